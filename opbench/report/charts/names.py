"""Names beside points: which of them fit on a plot without covering each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

LETTER, LINE = 6.5, 14.0
"""Width of a letter and height of a line, in pixels."""
PLOT = (520.0, 260.0)
"""What is left of a plot's width and height for points."""
LONGEST = 230.0


def with_room_below(places: Sequence[tuple[float, float]], names: Sequence[str]) -> list[str]:
    """The names that have room below their points: to the left, or to the right of those too near to the left end.

    The others are emptied, and so are names that were empty from the start.

    Args:
        places: of all points, on two logarithmic axes.
        names: one for each point.
    """
    across, up = (_pixels([place[axis] for place in places], PLOT[axis]) for axis in (0, 1))
    taken: list[tuple[float, float, float]] = []
    kept = [""] * len(names)
    for index in sorted(range(len(names)), key=lambda index: across[index]):
        x, y, width = across[index], up[index], min(LONGEST, LETTER * len(names[index]))
        start, end = (x - width, x) if x > width else (x, x + width)
        clear = all(end < left or start > right or abs(y - height) >= LINE for left, right, height in taken)
        if names[index] and clear:
            taken.append((start, end, y))
            kept[index] = names[index]
    return kept


def _pixels(values: Sequence[float], length: float) -> list[float]:
    logarithms = [math.log(value) for value in values]
    low, high = min(logarithms, default=0.0), max(logarithms, default=0.0)
    return [length * (value - low) / (high - low) if high > low else length / 2 for value in logarithms]
