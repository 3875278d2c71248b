"""Names beside points: which of them fit on a plot without covering each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

LETTER, LINE, POINT = 6.5, 14.0, 6.0
"""Width of a letter, height of a line, radius of a point, in pixels."""
PLOT = (520.0, 260.0)
"""What is left of a plot's width and height for points."""
LONGEST = 230.0

Side = Literal["right", "left", "above", "below"]


class Spot(NamedTuple):
    """A point of a drawing, in pixels from its lower left, that wants a label."""

    x: float
    y: float
    label: str


class Box(NamedTuple):
    """What a point or a label covers."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Whether the two overlap."""
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )


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


def placed(spots: Sequence[Spot], width: float, obstacles: Sequence[Box] = ()) -> list[Side | None]:
    """For each point the side on which its label hides no other point and no label before it; None where there is none.

    Args:
        spots: the points of one drawing.
        width: of the drawing, which no label may leave.
        obstacles: what else no label may hide.
    """
    points = [Box(spot.x - POINT, spot.y - POINT, spot.x + POINT, spot.y + POINT) for spot in spots]
    taken = [*obstacles]
    sides: list[Side | None] = []
    for index, spot in enumerate(spots):
        others = [*points[:index], *points[index + 1 :], *taken]
        boxes: dict[Side, Box] = {side: _box(spot, side) for side in get_args(Side)}
        free = [side for side, box in boxes.items() if _within(box, width) and not any(map(box.meets, others))]
        sides.append(free[0] if free else None)
        taken += [boxes[side] for side in free[:1]]
    return sides


def _pixels(values: Sequence[float], length: float) -> list[float]:
    logarithms = [math.log(value) for value in values]
    low, high = min(logarithms, default=0.0), max(logarithms, default=0.0)
    return [length * (value - low) / (high - low) if high > low else length / 2 for value in logarithms]


def _box(spot: Spot, side: Side) -> Box:
    length = LETTER * len(spot.label)
    left = {"right": spot.x + POINT, "left": spot.x - POINT - length}.get(side, spot.x - length / 2)
    middle = {"above": spot.y + POINT + LINE / 2, "below": spot.y - POINT - LINE / 2}.get(side, spot.y)
    return Box(left, middle - LINE / 2, left + length, middle + LINE / 2)


def _within(box: Box, width: float) -> bool:
    return box.left >= 0 and box.right <= width and box.bottom >= 0
