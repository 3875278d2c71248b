"""What is left out of a drawing so that it can be read: bars beyond the first few dozen, labels that would collide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from opbench.report.charts.model import Value

MOST_BARS = 40
"""Of one setting: a page's height or two."""
LETTER, LINE, POINT = 6.5, 13.0, 6.0
"""Width of a letter, height of a line, radius of a point, in pixels."""

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


def first_bars(drawing: Any, key: str) -> Any:
    """The drawing with the bars of the least values alone, in each setting; those without a value come last."""
    import altair as alt

    return (
        drawing.transform_calculate(order_=f"isValid(datum['{key}']) ? datum['{key}'] : 1e300")
        .transform_window(rank_="row_number()", sort=[alt.SortField("order_")], groupby=["setting"])
        .transform_filter(f"datum.rank_ <= {MOST_BARS}")
    )


def is_crowded(data: Iterable[Mapping[str, Value]]) -> bool:
    """Whether some setting has more rows than a drawing has bars."""
    return _most(data) > MOST_BARS


def remark(data: Iterable[Mapping[str, Value]]) -> str:
    """' Drawn are the 40 least of 500; the table has all.'; '' where all are drawn."""
    most = _most(data)
    return f" Drawn are the {MOST_BARS} least of {most}; the table has all." if most > MOST_BARS else ""


def _most(data: Iterable[Mapping[str, Value]]) -> int:
    return max(Counter(datum["setting"] for datum in data).values(), default=0)


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


def _box(spot: Spot, side: Side) -> Box:
    length = LETTER * len(spot.label)
    left = {"right": spot.x + POINT, "left": spot.x - POINT - length}.get(side, spot.x - length / 2)
    middle = {"above": spot.y + POINT + LINE / 2, "below": spot.y - POINT - LINE / 2}.get(side, spot.y)
    return Box(left, middle - LINE / 2, left + length, middle + LINE / 2)


def _within(box: Box, width: float) -> bool:
    return box.left >= 0 and box.right <= width and box.bottom >= 0
