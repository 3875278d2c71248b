"""What several runs have in common: one case and implementation under one policy, with a ratio where one is allowed."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from opbench.errors import Incomparable
from opbench.measure.statistics import Ratio, ratio
from opbench.report.rows import Row
from opbench.results import Policy

Difference = Literal["faster", "slower", "none shown"]
"""What the interval of a ratio says; none is shown where it includes 1."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """One case and implementation in several runs, in the order of the runs."""

    rows: tuple[Row | None, ...]
    """What each run has; of one policy, unless a run has the case under another policy only."""
    ratios: tuple[Ratio | None, ...]
    """Each run's latency divided by the first run's; None for the first, and where it is refused."""
    refused: tuple[str, ...]
    """Why a latency is not divided by the first run's; '' where it is, or where there is none."""
    unequal: tuple[str, ...]
    """In which parameters a run's record differs from the first run's; '' where all are equal."""

    @property
    def any_row(self) -> Row:
        """The row of the first run that has one: what is true of all."""
        return next(row for row in self.rows if row is not None)

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies of the times, each once."""
        return tuple(dict.fromkeys(row.policy for row in self.rows if row is not None and row.policy))


def difference(of: Ratio) -> Difference:
    """Say whether a ratio's interval leaves out 1, and on which side."""
    if of.high < 1:
        return "faster"
    return "slower" if of.low > 1 else "none shown"


def matches(runs: Sequence[Sequence[Row]]) -> tuple[Match, ...]:
    """Pair the times of the runs, in the order of the first run that has them; what only one run has is left out."""
    return tuple(
        _match(rows)
        for of_each_run in _by_record(runs).values()
        for rows in _by_policy(of_each_run)
        if _filled(rows) > 1
    )


def of_records(found: Iterable[Match]) -> list[Match]:
    """One match for each case and implementation, for what does not depend on the policy."""
    firsts: dict[Hashable, Match] = {}
    for match in found:
        firsts.setdefault(match.any_row.record.key, match)
    return list(firsts.values())


def _by_record(runs: Sequence[Sequence[Row]]) -> Mapping[Hashable, list[list[Row]]]:
    """For each case and implementation the rows of every run: one for each policy, or a single one without times."""
    found: dict[Hashable, list[list[Row]]] = {}
    for index, rows in enumerate(runs):
        for row in rows:
            found.setdefault(row.record.key, [[] for _ in runs])[index].append(row)
    return found


def _by_policy(of_each_run: Sequence[Sequence[Row]]) -> list[list[Row | None]]:
    """Rows of equal policy side by side; a run that never timed the case has the same row beside each time."""
    untimed = [next((row for row in rows if row.policy is None), None) for rows in of_each_run]
    lines: dict[Policy, list[Row | None]] = {}
    for index, rows in enumerate(of_each_run):
        for row in rows:
            if row.policy is not None:
                lines.setdefault(row.policy, [None] * len(of_each_run))[index] = row
    _move_together(lines)
    return [
        [row or other for row, other in zip(line, untimed, strict=True)]
        for line in lines.values() or [[None] * len(of_each_run)]
    ]


def _move_together(lines: dict[Policy, list[Row | None]]) -> None:
    """Put a time whose policy no other run has beside the others' of the nearest policy, where there is room."""
    alone = [policy for policy, line in lines.items() if _filled(line) == 1]
    # The nearest first, so that cold goes beside cold before hot can take its place.
    pairs = sorted(
        ((mine, other) for mine in alone for other in lines if mine != other), key=lambda pair: _distance(*pair)
    )
    for mine, other in pairs:
        if mine not in lines or other not in lines or _filled(lines[mine]) > 1:
            continue
        index = next(index for index, row in enumerate(lines[mine]) if row is not None)
        if lines[other][index] is None:
            lines[other][index] = lines.pop(mine)[index]


def _filled(line: Sequence[Row | None]) -> int:
    return sum(row is not None for row in line)


def _distance(one: Policy, other: Policy) -> int:
    """In how many conditions two policies differ."""
    return sum(getattr(one, name) != getattr(other, name) for name in ("cache", "threads", "device", "launch"))


def _match(rows: Sequence[Row | None]) -> Match:
    first = rows[0]
    unequal = [_unequal(row, first) if index else "" for index, row in enumerate(rows)]
    quotients = [_quotient(row, first, unequal[index]) if index else None for index, row in enumerate(rows)]
    return Match(
        rows=tuple(rows),
        ratios=tuple(each if isinstance(each, Ratio) else None for each in quotients),
        refused=tuple(each if isinstance(each, str) else "" for each in quotients),
        unequal=tuple(unequal),
    )


def _quotient(row: Row | None, first: Row | None, unequal: str) -> Ratio | str | None:
    """The ratio of two latencies, or why it is not taken; None where there is no latency to speak of."""
    if row is None or row.latency is None:
        return None
    if first is None or first.latency is None:
        return "the first run has no time to divide by"
    if unequal:
        return f"the parameters are not equal: {unequal}"
    try:
        return ratio(row.latency, first.latency)
    except Incomparable as refusal:
        return str(refusal)


def _unequal(row: Row | None, first: Row | None) -> str:
    """'kernel_size 7 and 3', the first run's last; what did not come to run has no parameters to compare."""
    if row is None or first is None or not (row.measured and first.measured):
        return ""
    return ", ".join(
        f"{name} {_said(row, name)} and {_said(first, name)}"
        for name in sorted(row.params.keys() | first.params.keys())
        if _typed(row, name) != _typed(first, name)
    )


def _typed(row: Row, name: str) -> tuple[bool, type, object]:
    # With its type: True equals 1, but is another value.
    value = row.params.get(name)
    return name in row.params, type(value), value


def _said(row: Row, name: str) -> str:
    return str(row.params[name]) if name in row.params else "unknown"
