"""How a quantity grows: the exponent of a power law, with an interval, and where two of them change places.

A power law is a straight line through the logarithms. The exponent is its slope, by least squares in which every point
weighs the same: what keeps points off the line is mostly that no operator follows a power law exactly (a call has a
fixed cost, a cache ends), and not the noise of their times, so the most precise time deserves no greater say in the
slope. The interval is the t-interval of the slope, and so counts the bend as noise, too. Where the points lie on a line
more closely than their own intervals vouch for, those are the limit.

Distances between logarithms are relative distances: 0.01 is one percent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from opbench.measure.statistics import CONFIDENCE

FEWEST_POINTS = 3
"""Through two points goes any power law, and nothing tells how well."""


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """y = factor · x ** exponent."""

    exponent: float
    low: float
    high: float
    """Ends of the exponent's 95 % interval."""
    factor: float
    misfit: float
    """The largest relative distance of a point from the law."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much longer the first of two took than the second, at one point of an axis."""

    x: float
    value: float
    """Logarithm of their ratio."""
    half_width: float
    """Of its 95 % interval; infinite where nothing is certain."""

    @property
    def sign(self) -> int:
        """1 where the first certainly took longer, -1 where the second did, 0 where that is not told."""
        return 0 if abs(self.value) <= self.half_width else int(math.copysign(1, self.value))


@dataclass(frozen=True, kw_only=True)
class Crossover:
    """Where two lines change places; never beyond what was measured."""

    below: float
    """The last point at which it is certain that they have not."""
    above: float
    """The first point at which it is certain that they have."""
    first_is_less_below: bool
    at: float | None
    """Where straight lines through the logarithms cross; None where they do so more than once in between."""
    low: float | None
    high: float | None
    """Between which they cross, if each point may lie anywhere in its interval."""


def fit(xs: Sequence[float], ys: Sequence[float], half_widths: Sequence[float] = ()) -> PowerLaw:
    """Fit a power law by least squares.

    Args:
        xs: where it was measured.
        ys: what was measured.
        half_widths: relative half-widths of the 95 % intervals of `ys`; infinite where none is known.

    Raises:
        ValueError: there are fewer than three points, a number is not positive, or all are at one place.
    """
    x, y = _logarithms(xs), _logarithms(ys)
    if len(x) < FEWEST_POINTS or len(x) != len(y) or np.ptp(x) == 0:
        raise ValueError("a power law needs three points or more, and not all at one place")
    centred = x - x.mean()
    pull = centred / (centred @ centred)
    slope = float(pull @ y)
    residuals = y - y.mean() - slope * centred
    half = max(_half_width(residuals, pull), _vouched_for(half_widths, pull))
    return PowerLaw(
        exponent=slope,
        low=slope - half,
        high=slope + half,
        factor=math.exp(float(y.mean() - slope * x.mean())),
        misfit=float(np.expm1(np.abs(residuals).max())),
    )


def crossovers(differences: Sequence[Difference]) -> list[Crossover]:
    """Where two lines change places for certain, from the points that both have."""
    points = sorted(differences, key=lambda point: point.x)
    certain = [index for index, point in enumerate(points) if point.sign]
    return [
        _crossover(points[first : last + 1])
        for first, last in pairwise(certain)
        if points[first].sign != points[last].sign
    ]


def _half_width(residuals: NDArray[np.float64], pull: NDArray[np.float64]) -> float:
    """Half-width of the t-interval of a slope; two degrees of freedom went into the line."""
    # Late, as everywhere: its import starts threads.
    from scipy.special import stdtrit

    free = len(residuals) - 2
    variance = float(residuals @ residuals) / free
    return float(stdtrit(free, (1 + CONFIDENCE) / 2)) * math.sqrt(variance * float(pull @ pull))


def _vouched_for(half_widths: Sequence[float], pull: NDArray[np.float64]) -> float:
    """How far the slope moves when the points move within their intervals, independently of each other."""
    known = [(width * part) ** 2 for width, part in zip(half_widths, pull, strict=False) if math.isfinite(width)]
    return math.sqrt(sum(known))


def _crossover(points: Sequence[Difference]) -> Crossover:
    """The change of places between the first and the last of some points."""
    rising = 1 if points[0].sign < 0 else -1
    ats = _zeros(points, lambda point: point.value)
    # The sooner it may come, the more the band around the line has room on the side that it moves to.
    banded = all(math.isfinite(point.half_width) for point in points)
    soonest = _zeros(points, lambda point: point.value + rising * point.half_width)
    latest = _zeros(points, lambda point: point.value - rising * point.half_width)
    return Crossover(
        below=points[0].x,
        above=points[-1].x,
        first_is_less_below=points[0].sign < 0,
        at=ats[0] if len(ats) == 1 else None,
        low=min(soonest, default=None) if banded else None,
        high=max(latest, default=None) if banded else None,
    )


def _zeros(points: Sequence[Difference], value: Callable[[Difference], float]) -> list[float]:
    """Where the line through the points' values is zero; values that are not finite have no line."""
    found = []
    for left, right in pairwise(points):
        start, end = value(left), value(right)
        if start == 0:
            found.append(left.x)
        elif math.isfinite(start) and math.isfinite(end) and start * end < 0:
            found.append(left.x * (right.x / left.x) ** (start / (start - end)))
    return found


def _logarithms(values: ArrayLike) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if not bool(((numbers > 0) & np.isfinite(numbers)).all()):
        raise ValueError("a power law is of positive numbers")
    return np.log(numbers)
