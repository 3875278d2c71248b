"""Samples in few numbers: what a picture of thousands needs, with nothing unusual left out.

Lists of numbers are written as text, '3 -2 0 …', in steps of `STEP` of a time that they are given relative to: a page
holds the samples of many rows, and this is a tenth of what they take as a mark each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

STEP = 1e-5
MOST_POINTS = 90
"""Samples of a process that are shown one by one; of more, the least and the most of each of half as many stretches."""
STRETCHES = 24
"""Stretches of a process whose medians show its course."""
FEWEST_BINS, MOST_BINS = 8, 36
CENTRAL = (1, 99)
"""Percentiles that a window must hold."""
ROOM = 0.3
"""What it has besides on either side, by the distance between those."""
WIDEST = 3
"""Intervals are held, too, if they are no wider than so many times that distance."""


def extremes(samples: Sequence[float], most: int = MOST_POINTS) -> list[float]:
    """All samples if they are few, else the least and the most of each stretch of successive ones, in their order."""
    if len(samples) <= most:
        return list(samples)
    kept = []
    for stretch in np.array_split(np.asarray(samples), most // 2):
        first, second = sorted((int(stretch.argmin()), int(stretch.argmax())))
        kept += [float(stretch[first]), float(stretch[second])]
    return kept


def course(samples: Sequence[float], stretches: int = STRETCHES) -> list[float]:
    """The medians of stretches of successive samples, three samples long or longer."""
    number = max(1, min(stretches, len(samples) // 3))
    return [float(np.median(stretch)) for stretch in np.array_split(np.asarray(samples), number)]


def window(streams: Sequence[Sequence[float]], middle: float, low: float, high: float) -> tuple[float, float]:
    """The times that a picture shows: all but the rarest samples, and the interval if it is not far wider than they.

    Args:
        streams: the samples of each process.
        middle: the median.
        low: lower end of the interval of the median.
        high: upper end.
    """
    pooled = np.concatenate([np.asarray(stream) for stream in streams])
    bottom, top = (float(value) for value in np.percentile(pooled, CENTRAL))
    spread = max(top - bottom, STEP * middle)
    if high - low < WIDEST * spread:
        bottom, top = min(bottom, low), max(top, high)
    return max(bottom - ROOM * spread, middle / 1000), top + ROOM * spread


def bins(streams: Sequence[Sequence[float]]) -> int:
    """Bins of a histogram: the more samples the more, as the cube root of their number."""
    longest = max(map(len, streams))
    return min(MOST_BINS, max(FEWEST_BINS, round(3 * math.cbrt(longest))))


def histogram(samples: Sequence[float], low: float, high: float, number: int) -> list[float]:
    """The share of all samples in each of some bins of equal width; what lies beyond is in the first or the last."""
    inside = np.clip(np.asarray(samples), low, high)
    counts, _ = np.histogram(inside, bins=number, range=(low, high))
    shares: NDArray[np.float64] = counts / len(samples)
    return [float(share) for share in shares]


def as_text(values: Sequence[float], relative_to: float) -> str:
    """Times as whole steps away from one of them."""
    return " ".join(str(round((value / relative_to - 1) / STEP)) for value in values)
