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
from opbench.report.words import NOT_APPLICABLE, outcome_in_words, status_in_words
from opbench.results import Memory

SETTING = tuple(key for key in keys.COMPARABLE if key != "policy")


def times(matches: Sequence[Match], labels: Sequence[str], group_by: Sequence[str]) -> list[Table]:
    """A table for each setting and policy, a row for each match that was timed in two runs or in one."""
    timed = [match for match in matches if match.policies]
    return [
        _times(f"Latency: {title}", group, labels)
        for title, group in _grouped(timed, group_by, lambda match: " beside ".join(map(str, match.policies)))
    ]


def memory(matches: Sequence[Match], labels: Sequence[str], group_by: Sequence[str]) -> list[Table]:
    """A table for each setting, source and quantity that is not the same everywhere, a row for each record."""
    known = [match for match in of_records(matches) if shared_source(match)]
    return [
        _memory(f"{reading.title.capitalize()}: {title}", reading, group, labels)
        for title, group in _grouped(known, group_by, _source_in_words)
        for reading in READINGS
        if any(not _is_same(match, reading) for match in group)
    ]


def same_memory(match: Match) -> bool:
    """Whether all runs that have it used the same bytes."""
    return shared_source(match) is not None and all(_is_same(match, reading) for reading in READINGS)


def _is_same(match: Match, reading: Reading) -> bool:
    numbers = [number for index in range(len(match.rows)) if (number := _number_of(match, reading, index)) is not None]
    return not numbers or max(numbers) - min(numbers) <= _slack(match, min(numbers))


def _slack(match: Match, number: int) -> float:
    # Two high-water marks that are each known within one percent.
    return 0.02 * number if shared_source(match) == "high_water" else 0


def shared_source(match: Match) -> str | None:
    """The most exact source that two runs read this record's memory from."""
    seen = {source: sum(bool(row and row.memory(source)) for row in match.rows) for source in SOURCES}
    return next((source for source, number in seen.items() if number > 1), None)


def _seen(match: Match) -> list[Memory | None]:
    """What the common source saw of each run."""
    source = shared_source(match)
    return [row.memory(source) if row and source else None for row in match.rows]


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
        ratios = [match.ratios[index] for match in matches]
        columns += [
            _number("ratio", _divided(labels, label), 0),
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
        Column(
            key=key,
            title=key.replace("_", " "),
            numeric=False,
            rank=11 if unique and key == "params" else 0,
            coordinate=key in SETTING,
        )
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


def _memory(title: str, reading: Reading, matches: Sequence[Match], labels: Sequence[str]) -> Table:
    columns, drafts = _heads(matches)
    columns += [_number("bytes", label, 0) for label in labels]
    drafts += [[_bytes(match, reading, index) for match in matches] for index in range(len(labels))]
    for index, label in enumerate(labels[1:], start=1):
        columns.append(_number("bytes_ratio", _divided(labels, label), 1))
        drafts.append([_bytes_ratio(match, reading, index) for match in matches])
    return table(title, columns, drafts)


def _divided(labels: Sequence[str], label: str) -> str:
    return f"{label} ÷ {labels[0]}" if len(labels) > 2 else f"÷ {labels[0]}"


def _bytes(match: Match, reading: Reading, index: int) -> Draft:
    row, seen = match.rows[index], _seen(match)[index]
    if row is None:
        return Draft()
    if row.measured is None:
        return Draft(status_in_words(row.record), footnotes=(outcome_in_words(row.record.outcome),))
    if seen is None:
        other = row.memory()
        source = "no memory measured" if other is None else f"read from the {SOURCES[other.source]} only"
        return Draft(footnotes=(source,))
    number = reading.read(seen)
    if number is None:
        return Draft(NOT_APPLICABLE)
    doubts = () if seen.repeatable else ("three repetitions did not agree",)
    return Draft(units.bytes_(number), footnotes=doubts, value=number)


def _bytes_ratio(match: Match, reading: Reading, index: int) -> Draft:
    first, other = _number_of(match, reading, 0), _number_of(match, reading, index)
    if match.unequal[index]:
        return Draft(footnotes=(plain(f"the parameters are not equal: {match.unequal[index]}", 300),))
    if first is None or other is None:
        return Draft()
    if abs(other - first) <= _slack(match, min(first, other)):
        return Draft("same", value=1.0)
    return Draft(units.ratio(other / first), value=other / first) if first else Draft()


def _number_of(match: Match, reading: Reading, index: int) -> int | None:
    seen = _seen(match)[index]
    return reading.read(seen) if seen else None


def _number(key: str, title: str, rank: int) -> Column:
    return Column(key=key, title=title, numeric=True, rank=rank)
