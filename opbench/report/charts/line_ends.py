"""Labels at the ends of lines: where each may stand so that all can be read."""

from __future__ import annotations

import math
from collections.abc import Sequence

LABEL_PIXELS = 14
LINES_ASIDE = 2
"""Lines of text that a label may move up to make room."""


def labels_at(ends: Sequence[tuple[float, float]], pixel: float) -> list[float | None]:
    """Heights for the labels of lines: none covers another that ends at the same place.

    None where a label would stand so far from its line that nobody knew which it belongs to.

    Args:
        ends: (x, value) of the last point of each line.
        pixel: height of one, in logarithms of the value.
    """
    gap = LABEL_PIXELS * pixel
    heights: list[float | None] = [None] * len(ends)
    for place in {x for x, _ in ends}:
        free = -math.inf
        for value, index in sorted((value, index) for index, (x, value) in enumerate(ends) if x == place):
            height = max(free, math.log(value))
            if height <= math.log(value) + LINES_ASIDE * gap:
                heights[index] = math.exp(height)
                free = height + gap
    return heights
