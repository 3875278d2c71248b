"""The columns of a table of operators: what each shows of a row, and when it takes part in the contest for the best."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from opbench import units
from opbench.measure.statistics import Ratio
from opbench.plain import plain
from opbench.report import keys
from opbench.report.cells import Draft, table
from opbench.report.model import Column, Table
from opbench.report.rows import SOURCES, Row
from opbench.report.words import DOUBTFUL_TIME, NOT_APPLICABLE, outcome_in_words
from opbench.results import Counts, Memory

NAME_LIMIT = 80
"""Of our own names, the longest with its network has 73 characters."""


@dataclass(frozen=True)
class _Kind:
    """A column and how it reads a row."""

    column: Column
    draft: Callable[[Row], Draft]


def of_rows(title: str, rows: Sequence[Row], baseline: str | None, *, by_setting: bool = False) -> Table:
    """Make a table with a row for each of the given ones, and a column for all they have to show.

    Args:
        title: of the table.
        rows: its rows.
        baseline: what the ratios refer to.
        by_setting: whether the best is sought in each setting; else only in tables whose rows may all be compared.
    """
    comparable = by_setting or all(len(keys.distinct(rows, key)) == 1 for key in keys.COMPARABLE)
    kinds = [
        _operator(),
        *_coordinates(rows),
        _params(rows),
        *_counts(rows),
        *_times(baseline),
        *_throughput(rows),
        *_memory(rows),
        _notes(),
    ]
    drafts = [[_in_contest(kind.draft(row), row, comparable) for row in rows] for kind in kinds]
    heats = [keys.values(row, keys.COMPARABLE) for row in rows] if by_setting else []
    return table(title, [kind.column for kind in kinds], drafts, heats=heats)


def name(row: Row) -> str:
    """An operator's name, fit for a cell."""
    return plain(row.record.name, NAME_LIMIT)


def differing_params(rows: Sequence[Row], without: str | None = None) -> list[str]:
    """For each row its parameters, as 'kernel_size=7, groups=4', but for those equal in all rows that have them."""
    values: dict[str, set[Hashable]] = {}
    for row in rows:
        for parameter, value in row.params.items():
            values.setdefault(parameter, set()).add((type(value), value))
    differing = sorted(parameter for parameter, taken in values.items() if len(taken) > 1 and parameter != without)
    return [", ".join(plain(f"{each}={row.params[each]}") for each in differing if each in row.params) for row in rows]


def latency_draft(row: Row, text: str, *footnotes: str) -> Draft:
    """A time, or what follows from it, that takes part in the contest with the interval of the time."""
    bounds = (row.latency.low, row.latency.high) if row.latency else None
    draft = Draft(text, bounds, footnotes, row.latency.median if row.latency else None)
    return draft.in_doubt() if row.measured and DOUBTFUL_TIME & set(row.measured.flags) else draft


def ratio_text(ratio: Ratio) -> str:
    """'1.41×', with as many digits as its interval allows."""
    return units.ratio_interval(ratio.value, ratio.low, ratio.high)[0]


def _in_contest(draft: Draft, row: Row, comparable: bool) -> Draft:
    if not (comparable and row.measured):
        return draft.out_of_contest()
    # What is not known of a measured row might be the least.
    return Draft.unknown() if draft == Draft() else draft


def _operator() -> _Kind:
    return _Kind(_text("operator", "operator", rank=0), lambda row: Draft(name(row)))


def _coordinates(rows: Sequence[Row]) -> list[_Kind]:
    """A column for each coordinate that the reader's grouping left to vary within the table."""
    varying = [key for key in keys.COMPARABLE if len(keys.distinct(rows, key)) > 1]
    return [
        _Kind(replace(_text(key, key.replace("_", " "), rank=0), coordinate=True), partial(_coordinate, key))
        for key in varying
    ]


def _coordinate(key: str, row: Row) -> Draft:
    return Draft(keys.text(key, keys.value(row, key)))


def _params(rows: Sequence[Row]) -> _Kind:
    texts = {id(row): text for row, text in zip(rows, differing_params(rows), strict=True)}
    # Where names alone tell the rows apart, a narrow page has better use for the room.
    unique = len({row.record.name for row in rows}) == len(rows)
    return _Kind(_text("params", "params", rank=11 if unique else 0), lambda row: Draft(texts[id(row)]))


def _counts(rows: Sequence[Row]) -> list[_Kind]:
    padded = any(counts and counts.macs_in_bounds not in (None, counts.macs_dense) for counts in map(_counts_of, rows))
    return [
        _Kind(_number("parameters", "parameters", rank=7), _parameters),
        _Kind(_number("macs", "MACs, dense", rank=5), dense_macs),
        _Kind(_number("flops", "FLOPs = 2 × MACs", rank=10), lambda row: dense_macs(row, times=2)),
        *([_Kind(_number("macs_in_bounds", "MACs, in bounds", rank=12), _macs_in_bounds)] if padded else []),
        _Kind(_number("intensity", "FLOP/byte", rank=13), _intensity),
    ]


def _counts_of(row: Row) -> Counts | None:
    return row.record.counts


def _parameters(row: Row) -> Draft:
    if row.record.case.scope == "core":
        return Draft(NOT_APPLICABLE)
    counts = row.record.counts
    if counts is None or counts.parameters is None:
        return Draft()
    return Draft.exact(counts.parameters, units.count(counts.parameters))


def dense_macs(row: Row, times: int = 1) -> Draft:
    """Multiply-accumulates as papers count them, or a multiple."""
    counts = row.record.counts
    return Draft() if counts is None else _bounded(counts, counts.macs_dense, times)


def _macs_in_bounds(row: Row) -> Draft:
    counts = row.record.counts
    return Draft() if counts is None else _bounded(counts, counts.macs_in_bounds)


def _bounded(counts: Counts, macs: int | None, times: int = 1) -> Draft:
    if macs is None:
        return Draft()
    text = units.count(times * macs)
    return Draft.at_least(macs, text, _uncounted(counts)) if counts.at_least else Draft.exact(macs, text)


def _intensity(row: Row) -> Draft:
    return Draft() if row.intensity is None else Draft(units.significant(row.intensity), value=row.intensity)


def _uncounted(counts: Counts) -> str:
    names = sorted({name for counted in counts.counters for name in counted.unknown})
    return plain(f"at least, because no counter knows {', '.join(names) or 'every operation'}", 300)


def _times(baseline: str | None) -> list[_Kind]:
    times = [
        _Kind(_number("latency", "latency", rank=1), _latency),
        _Kind(_number("latency_interval", "95 % interval", rank=4), _latency_interval),
    ]
    if baseline is None:
        return times
    return [
        *times,
        _Kind(_number("ratio", f"÷ {plain(baseline, NAME_LIMIT)}", rank=2), _ratio),
        _Kind(_number("ratio_interval", "95 % interval", rank=9), _ratio_interval),
    ]


def _throughput(rows: Sequence[Row]) -> list[_Kind]:
    """Images per second, which is how networks are spoken of; no contest, for it is the latency again."""
    if all(row.record.case.scope != "network" for row in rows):
        return []
    return [_Kind(_number("throughput", "images/s", rank=8), _images_per_second)]


def _images_per_second(row: Row) -> Draft:
    return Draft() if row.throughput is None else Draft(units.significant(row.throughput), value=row.throughput)


def _latency(row: Row) -> Draft:
    if row.latency is None:
        return Draft()
    text, _ = units.seconds_interval(row.latency.median, row.latency.low, row.latency.high)
    return latency_draft(row, text)


def _latency_interval(row: Row) -> Draft:
    if row.latency is None:
        return Draft()
    text = units.seconds_interval(row.latency.median, row.latency.low, row.latency.high)[1]
    return Draft(text, value=row.latency.low)


def _ratio(row: Row) -> Draft:
    if row.no_ratio:
        return Draft.unknown(plain(row.no_ratio))
    if row.is_baseline and row.latency:
        return replace(latency_draft(row, "baseline"), value=1.0)
    if row.ratio is None:
        return Draft()
    return replace(latency_draft(row, ratio_text(row.ratio)), value=row.ratio.value)


def _ratio_interval(row: Row) -> Draft:
    if row.ratio is None:
        return Draft()
    return Draft(units.ratio_interval(row.ratio.value, row.ratio.low, row.ratio.high)[1], value=row.ratio.low)


class Reading(NamedTuple):
    """One number of a `Memory`, and its column."""

    key: str
    title: str
    rank: int
    read: Callable[[Memory], int | None]


READINGS = (
    Reading("forward_peak", "forward peak", 6, lambda memory: memory.forward_peak_bytes),
    Reading("saved", "saved for backward", 8, lambda memory: memory.saved_bytes),
    Reading("backward_peak", "backward peak", 9, lambda memory: memory.backward_peak_bytes),
)


def _memory(rows: Sequence[Row]) -> list[_Kind]:
    source = memory_source(rows)
    return [_Kind(_number(each.key, each.title, each.rank), partial(bytes_draft, source, each)) for each in READINGS]


def memory_source(rows: Sequence[Row]) -> str | None:
    """The most exact source that any of the rows has: one for the whole table, so that rows can be compared."""
    known = {memory.source for row in rows if (memory := row.memory())}
    return next((source for source in SOURCES if source in known), None)


def bytes_draft(source: str | None, reading: Reading, row: Row) -> Draft:
    """Bytes as the given source saw them, else as another one did, which a footnote names."""
    memory = row.memory(source) or row.memory()
    if memory is None:
        return Draft()
    number = reading.read(memory)
    if number is None:
        return Draft(NOT_APPLICABLE)
    footnotes = []
    if memory.source != source:
        footnotes.append(f"read from the {SOURCES[memory.source]}, so not to be compared with the others")
    if not memory.repeatable:
        footnotes.append("three repetitions did not agree")
    draft = Draft(units.bytes_(number), _bounds(memory, number), tuple(footnotes), number)
    return draft.in_doubt() if footnotes else draft


def _bounds(memory: Memory, number: int) -> tuple[float, float]:
    # Repetitions of the high-water mark count as equal within one percent.
    slack = 0.01 * number if memory.source == "high_water" else 0
    return number - slack, number + slack


def _notes() -> _Kind:
    return _Kind(_text("notes", "notes", rank=3), lambda row: Draft(outcome_in_words(row.record.outcome)))


def _text(key: str, title: str, rank: int) -> Column:
    return Column(key=key, title=title, numeric=False, rank=rank)


def _number(key: str, title: str, rank: int) -> Column:
    return Column(key=key, title=title, numeric=True, rank=rank)
