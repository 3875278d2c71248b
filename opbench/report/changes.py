"""What must be equal between runs and is not: the counts of a case, which do not depend on any machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from opbench.plain import plain
from opbench.report.columns import NAME_LIMIT
from opbench.report.matches import Match, of_records
from opbench.results import Counts

_COUNTS = {"parameters": "parameters", "macs_dense": "dense MACs", "macs_in_bounds": "MACs in bounds"}


def changes(found: Sequence[Match], labels: Sequence[str]) -> tuple[str, ...]:
    """A line for each operator whose counts or parameters differ between runs, with the first case of each."""
    cases: dict[tuple[str, str], list[str]] = {}
    for match in of_records(found):
        name = plain(match.any_row.record.name, NAME_LIMIT)
        for what, text in _of(match, labels):
            cases.setdefault((name, what), []).append(f"{plain(match.any_row.record.case.id)}: {text}")
    return tuple(f"{name}: {what} ({texts[0]}{_more(len(texts) - 1)})" for (name, what), texts in cases.items())


def _of(match: Match, labels: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What differs, and how: ('dense MACs', '924 844 032 in …, 1 000 in …')."""
    unequal = next(filter(None, match.unequal), "")
    if unequal:
        # Other parameters may well have other counts.
        yield "ran with other parameters, so nothing of it is divided", plain(unequal, 200)
        return
    for count, words in _COUNTS.items():
        values = [_value(row.record.counts, count) if row else None for row in match.rows]
        if len({value for value in values if value is not None}) > 1:
            yield (
                f"{words} differ between the runs, so the operator itself changed",
                ", ".join(
                    f"{value:,}".replace(",", " ") + f" in {label}"
                    for value, label in zip(values, labels, strict=True)
                    if value is not None
                ),
            )


def _value(counts: Counts | None, count: str) -> int | None:
    """A count that is known; lower bounds may differ though nothing changed, when a counter has learned more."""
    if counts is None or (counts.at_least and count != "parameters"):
        return None
    value: int | None = getattr(counts, count)
    return value


def _more(number: int) -> str:
    return f"; {number} more" if number else ""
