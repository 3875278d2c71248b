"""The Pareto front of points of which nobody knows exactly where they lie."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

Standing = Literal["on it", "perhaps", "off"]
"""Whether no other point can beat this one, or one certainly does; 'perhaps' where the intervals do not tell."""

NOTHING_KNOWN = (0.0, math.inf)
"""The interval of a time that cannot be trusted."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A point in two costs: the less of each, the better."""

    x: float
    x_high: float
    """Above `x` where that is a lower bound only."""
    y: float
    low: float
    high: float
    """Ends of the interval of `y`."""
    source: Hashable = None
    """Candidates of one source have the same `x`, even where nobody knows it."""


def standings(candidates: Sequence[Candidate]) -> list[Standing]:
    """Say of each candidate whether it is on the front."""
    return [_standing(each, [other for other in candidates if other is not each]) for each in candidates]


def line(candidates: Sequence[Candidate]) -> list[bool]:
    """Which candidates are on the front if each lies where its median says."""
    exact = [(each.x, each.y) for each in candidates]
    return [not any(x <= own_x and y <= own_y and (x, y) != (own_x, own_y) for x, y in exact) for own_x, own_y in exact]


def _standing(candidate: Candidate, others: Sequence[Candidate]) -> Standing:
    if any(_beats(other, candidate) for other in others):
        return "off"
    return "perhaps" if any(_may_beat(other, candidate) for other in others) else "on it"


def _beats(one: Candidate, other: Candidate) -> bool:
    """Whether one certainly costs no more of either, and less of one of them."""
    alike = _have_equal_x(one, other)
    no_more = (alike or one.x_high <= other.x) and one.high <= other.low
    return no_more and (one.high < other.low or (not alike and one.x_high < other.x))


def _may_beat(one: Candidate, other: Candidate) -> bool:
    """Whether the same is possible, at the best for one and the worst for the other."""
    alike = _have_equal_x(one, other)
    no_more = (alike or one.x <= other.x_high) and one.low <= other.high
    return no_more and (one.low < other.high or (not alike and one.x < other.x_high))


def _have_equal_x(one: Candidate, other: Candidate) -> bool:
    return one.source is not None and one.source == other.source
