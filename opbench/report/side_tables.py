"""Tables of several runs side by side: times with their ratios, and memory."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence

from opbench import units
from opbench.measure.statistics import Ratio
from opbench.plain import plain
from opbench.report import keys
from opbench.report.cells import Draft, table
from opbench.report.columns import READINGS, Reading, differing_params, name, ratio_text
from opbench.report.matches import Match, difference, of_records
from opbench.report.model import Column, Table
from opbench.report.rows import SOURCES, Row
from opbench.report.words import NONE, NOT_APPLICABLE, outcome_in_words, status_in_words
from opbench.results import Memory

SETTING = tuple(key for key in keys.COMPARABLE if key != "policy")
SAME_WITHIN = 0.02
"""Two high-water marks that are each known within one percent."""


def times(matches: Sequence[Match], labels: Sequence[str], group_by: Sequence[str]) -> list[Table]:
    """A table for each setting and policy, a row for each match that was timed in two runs or in one."""
    timed = [match for match in matches if match.policies]
    return [
        _times(f"Latency: {title}", group, labels)
        for title, group in _grouped(timed, group_by, lambda match: " beside ".join(map(str, match.policies)))
    ]


def memory(matches: Sequence[Match], labels: Sequence[str], group_by: Sequence[str]) -> list[Table]:
    """A table for each setting and source, a row for each quantity of a record."""
    known = [match for match in of_records(matches) if shared_source(match)]
    return [_memory(f"Memory: {title}", group, labels) for title, group in _grouped(known, group_by, _source_in_words)]


def shared_source(match: Match) -> str | None:
    """The most exact source that two runs read this record's memory from."""
    return next((source for source in SOURCES if sum(each is not None for each in _seen(match, source)) > 1), None)


def _seen(match: Match, source: str | None) -> list[Memory | None]:
    return [row.memory(source) if row else None for row in match.rows]


def _source_in_words(match: Match) -> str:
    return f"read from the {SOURCES[shared_source(match) or '']}"


def _grouped(
    matches: Sequence[Match], group_by: Sequence[str], rest: Callable[[Match], str]
) -> Iterator[tuple[str, list[Match]]]:
    """Groups and their titles; what `rest` says of a match is always the same within one."""
    group_keys = tuple(key for key in group_by if key != "policy") or SETTING
    groups: dict[Hashable, list[Match]] = {}
    for match in matches:
        groups.setdefault((keys.values(match.any_row, group_keys), rest(match)), []).append(match)
    for group in groups.values():
        yield f"{keys.title(group_keys, keys.values(group[0].any_row, group_keys))}, {rest(group[0])}", group


def _times(title: str, matches: Sequence[Match], labels: Sequence[str]) -> Table:
    columns, drafts = _heads(matches)
    for index, label in enumerate(labels):
        rows = [match.rows[index] for match in matches]
        columns += [_number("latency", label, 0), _number("latency_interval", "95 % interval", 8)]
        drafts += [list(map(_latency, rows)), list(map(_latency_interval, rows))]
    for index, label in enumerate(labels[1:], start=1):
        divided = f"{label} ÷ {labels[0]}" if len(labels) > 2 else f"÷ {labels[0]}"
        ratios = [match.ratios[index] for match in matches]
        columns += [
            _number("ratio", divided, 0),
            _number("ratio_interval", "ratio's 95 % interval", 3),
            Column(key="difference", title="difference", numeric=False, rank=0),
        ]
        drafts += [
            [_ratio(match, index) for match in matches],
            list(map(_ratio_interval, ratios)),
            [Draft() if ratio is None else Draft(difference(ratio)) for ratio in ratios],
        ]
    return table(title, columns, drafts)


def _heads(matches: Sequence[Match]) -> tuple[list[Column], list[Sequence[Draft]]]:
    """Operator, the coordinates that vary within the table, and the parameters that tell its rows apart."""
    rows = [match.any_row for match in matches]
    varying = [key for key in SETTING if len(keys.distinct(rows, key)) > 1]
    texts = [
        ("operator", list(map(name, rows))),
        *((key, [keys.text(key, keys.value(row, key)) for row in rows]) for key in varying),
        ("params", differing_params(rows)),
    ]
    # Where names alone tell the rows apart, a narrow page has better use for the room.
    unique = len({match.any_row.record.key for match in matches}) == len({row.record.name for row in rows})
    columns = [
        Column(key=key, title=key.replace("_", " "), numeric=False, rank=11 if unique and key == "params" else 0)
        for key, _ in texts
    ]
    return columns, [list(map(Draft, of_column)) for _, of_column in texts]


def _latency(row: Row | None) -> Draft:
    if row is None:
        return Draft()
    if row.measured is None:
        return Draft(status_in_words(row.record), footnotes=(outcome_in_words(row.record.outcome),))
    if row.latency is None:
        return Draft()
    text, _ = units.seconds_interval(row.latency.median, row.latency.low, row.latency.high)
    flags = outcome_in_words(row.record.outcome)
    return Draft(text, footnotes=(flags,) if flags else (), value=row.latency.median)


def _latency_interval(row: Row | None) -> Draft:
    if row is None or row.latency is None:
        return Draft()
    text = units.seconds_interval(row.latency.median, row.latency.low, row.latency.high)[1]
    return Draft(text, value=row.latency.low)


def _ratio(match: Match, index: int) -> Draft:
    ratio, refused = match.ratios[index], match.refused[index]
    if ratio is None:
        return Draft(footnotes=(plain(refused, 300),) if refused else ())
    return Draft(ratio_text(ratio), value=ratio.value)


def _ratio_interval(ratio: Ratio | None) -> Draft:
    if ratio is None:
        return Draft()
    return Draft(units.ratio_interval(ratio.value, ratio.low, ratio.high)[1], value=ratio.low)


def _memory(title: str, matches: Sequence[Match], labels: Sequence[str]) -> Table:
    lines = [
        (match, reading)
        for match in matches
        for reading in READINGS
        if any(each and reading.read(each) is not None for each in _seen(match, shared_source(match)))
    ]
    columns, drafts = _heads([match for match, _ in lines])
    columns.append(Column(key="quantity", title="memory", numeric=False, rank=0))
    drafts.append([Draft(reading.title) for _, reading in lines])
    columns += [_number("bytes", label, 0) for label in labels]
    drafts += [[_bytes(match, reading, index) for match, reading in lines] for index in range(len(labels))]
    for index, label in enumerate(labels[1:], start=1):
        divided = f"{label} ÷ {labels[0]}" if len(labels) > 2 else f"÷ {labels[0]}"
        columns.append(_number("bytes_ratio", divided, 1))
        drafts.append([_bytes_ratio(match, reading, index) for match, reading in lines])
    return table(title, columns, drafts)


def _bytes(match: Match, reading: Reading, index: int) -> Draft:
    row, seen = match.rows[index], _seen(match, shared_source(match))[index]
    if seen is None:
        other = row.memory() if row else None
        if other is not None:
            return Draft(footnotes=(f"read from the {SOURCES[other.source]} only, so not set beside",))
        return Draft(status_in_words(row.record) if row and row.measured is None else NONE)
    number = reading.read(seen)
    if number is None:
        return Draft(NOT_APPLICABLE)
    doubts = () if seen.repeatable else ("three repetitions did not agree",)
    return Draft(units.bytes_(number), footnotes=doubts, value=number)


def _bytes_ratio(match: Match, reading: Reading, index: int) -> Draft:
    source = shared_source(match)
    seen = _seen(match, source)
    first, other = (reading.read(each) if each else None for each in (seen[0], seen[index]))
    if first is None or other is None or match.unequal[index]:
        return Draft()
    if first == other or (source == "high_water" and abs(other - first) <= SAME_WITHIN * first):
        return Draft("same", value=1.0)
    return Draft(units.ratio(other / first), value=other / first) if first else Draft()


def _number(key: str, title: str, rank: int) -> Column:
    return Column(key=key, title=title, numeric=True, rank=rank)
