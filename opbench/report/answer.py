"""One sentence that answers a suite's question with numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from opbench import units
from opbench.plain import plain
from opbench.report import keys
from opbench.report.columns import differing_params, name
from opbench.report.rows import Row
from opbench.report.words import DOUBTFUL_TIME, status_in_words


class _Finding(NamedTuple):
    """One row's value of the quantity that the sentence is about."""

    row: Row
    low: float
    value: float
    high: float
    text: str


class _Words(NamedTuple):
    """How the sentence calls the two extremes."""

    least: str
    most: str
    relative_to: str = ""
    quantity: str = ""
    """What the numbers are of, where their unit does not tell."""


_TIMES = _Words("the fastest", "the slowest")
_MEMORY = _Words("the least forward memory", "the most", quantity=" of forward memory")
_MACS = _Words("the fewest dense MACs", "the most", quantity=" dense MACs")


def answer(rows: Sequence[Row], baseline: str | None, missing: int) -> str:
    """Say which operator is fastest and which slowest, with intervals, and what could not be measured."""
    finding = (
        (_relative(rows, baseline) if baseline else "")
        or _at_one_shape(rows, _latency, ("scope", "pass", "policy"), _TIMES)
        or _at_one_shape(rows, _forward_peak, ("scope", "pass"), _MEMORY)
        or _at_one_shape(rows, _dense_macs, ("scope", "pass"), _MACS)
        or "Nothing was measured"
    )
    return "; ".join([finding, *_shortfall(rows, missing)]) + "."


def _relative(rows: Sequence[Row], baseline: str) -> str:
    """The least and the greatest ratio to the baseline, over all shapes."""
    fixed = ("scope", "pass", "policy")
    found = _headline(map(_ratio, rows), fixed)
    # The baseline has no ratio, and may be the fastest or the slowest of all.
    words = _TIMES._replace(relative_to=f"relative to {plain(baseline)}, ")
    if all(each.value >= 1 for each in found):
        words = words._replace(least="the fastest other")
    if all(each.value <= 1 for each in found):
        words = words._replace(most="the slowest other")
    return _sentence(found, fixed, words)


def _at_one_shape(
    rows: Sequence[Row], read: Callable[[Row], _Finding | None], fixed: Sequence[str], words: _Words
) -> str:
    """The least and the most of a quantity, at the shape where most rows have it."""
    found = _headline(map(read, rows), fixed)
    by_shape = keys.grouped([each.row for each in found], ("shape", "dtype", "memory_format")).values()
    chosen = {id(row) for row in max(by_shape, key=len, default=[])}
    return _sentence([each for each in found if id(each.row) in chosen], fixed, words)


def _headline(findings: Iterable[_Finding | None], fixed: Sequence[str]) -> list[_Finding]:
    """Those that agree with the first forward one, or the first of all, in what the sentence holds fixed."""
    found = list(filter(None, findings))
    forward = [each for each in found if each.row.record.case.pass_ == "forward"] or found
    return [each for each in forward if keys.values(each.row, fixed) == keys.values(forward[0].row, fixed)]


def _sentence(found: Sequence[_Finding], fixed: Sequence[str], words: _Words) -> str:
    """'Layer, forward, cold cache, …: the fastest is involution at 1.23 ms [1.20, 1.26], the slowest …'."""
    if not found:
        return ""
    least, most = min(found, key=lambda each: each.value), max(found, key=lambda each: each.value)
    where = _where([each.row for each in found])
    head = f"{keys.title(fixed, keys.values(least.row, fixed))}: {words.relative_to}"
    head = head[0].upper() + head[1:]
    if len({each.row.record.name for each in found}) == 1:
        # Along a scan, one operator has several values and none of them is the fastest.
        values = dict.fromkeys(f"{each.text}{where(each.row)}" for each in (least, most))
        return f"{head}{name(least.row)} is at {' to '.join(values)}{words.quantity}"
    overlap = "" if least.high < most.low else ", but their intervals overlap"
    return (
        f"{head}{words.least} is {name(least.row)} at {least.text}{where(least.row)}, "
        f"{words.most} {name(most.row)} at {most.text}{where(most.row)}{overlap}"
    )


def _where(rows: Sequence[Row]) -> Callable[[Row], str]:
    """How to tell a row from the others: by what is not the same for all, and from its like by its parameters."""
    varying = [key for key in keys.COMPARABLE if len(keys.distinct(rows, key)) > 1 and key != "policy"]

    def where(row: Row) -> str:
        alike = [each for each in rows if each.record.name == row.record.name]
        params = differing_params(alike)[alike.index(row)]
        place = keys.title(varying, keys.values(row, varying)) if varying else ""
        return f" ({'; '.join(filter(None, [place, params]))})" if place or params else ""

    return where


def _ratio(row: Row) -> _Finding | None:
    if row.ratio is None:
        return None
    value, interval = units.ratio_interval(row.ratio.value, row.ratio.low, row.ratio.high)
    return _Finding(row, row.ratio.low, row.ratio.value, row.ratio.high, f"{value} {interval}{_doubts(row)}")


def _latency(row: Row) -> _Finding | None:
    if row.latency is None:
        return None
    value, interval = units.seconds_interval(row.latency.median, row.latency.low, row.latency.high)
    return _Finding(row, row.latency.low, row.latency.median, row.latency.high, f"{value} {interval}{_doubts(row)}")


def _doubts(row: Row) -> str:
    doubts = [flag for flag in (row.measured.flags if row.measured else ()) if flag in DOUBTFUL_TIME]
    return f" ({', '.join(doubts)})" if doubts else ""


def _forward_peak(row: Row) -> _Finding | None:
    memory = row.memory("allocator") or row.memory("tracker")
    return None if memory is None else _exact(row, memory.forward_peak_bytes, units.bytes_(memory.forward_peak_bytes))


def _dense_macs(row: Row) -> _Finding | None:
    counts = row.record.counts
    if row.measured is None or counts is None or counts.macs_dense is None or counts.at_least:
        return None
    return _exact(row, counts.macs_dense, units.count(counts.macs_dense))


def _exact(row: Row, value: float, text: str) -> _Finding:
    return _Finding(row, value, value, value, text)


def _shortfall(rows: Sequence[Row], missing: int) -> list[str]:
    """'2 skipped, 1 wrong of 12 records', '36 records missing'."""
    records = {row.record.key: row.record for row in rows}.values()
    statuses = Counter(status_in_words(record) for record in records if record.status != "measured")
    ended = ", ".join(f"{number} {status}" for status, number in statuses.items())
    parts = [f"{ended} of {len(records)} records"] if ended else []
    return [*parts, f"{missing} more missing"] if missing else parts
