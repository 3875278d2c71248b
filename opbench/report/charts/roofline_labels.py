"""The names beside a roofline's points: on which side of each there is room for its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from opbench.report.charts import roofs
from opbench.report.charts.model import Value, number
from opbench.report.charts.names import Box, Side, Spot, placed

WIDTH, HEIGHT = 540.0, 340.0
"""Of the plot on a page of ordinary width, in pixels."""
BESIDE = 4.0
"""How far the lines go on beyond the point where they meet, as a factor."""


def labelled(data: Sequence[Mapping[str, Value]]) -> tuple[Mapping[str, Value], ...]:
    """The data, with the side of each point on which its label stands."""
    sides: dict[int, Side | None] = {}
    for setting in dict.fromkeys(datum["setting"] for datum in data):
        here = [datum for datum in data if datum["setting"] == setting and datum["macs_per_second"] is not None]
        if here:
            spots, height_of_level = _spots(here)
            words = Box(0, height_of_level, 240, height_of_level + 18)
            level = Box(0, height_of_level - 1, WIDTH, height_of_level + 1)
            sides |= zip(map(id, here), placed(spots, WIDTH, [words, level]), strict=True)
    return tuple({**datum, "side": sides.get(id(datum))} for datum in data)


def _spots(data: Sequence[Mapping[str, Value]]) -> tuple[list[Spot], float]:
    """Where the points of one setting come to lie, and the level of arithmetic, on a page of ordinary width."""
    roof = roofs.of_datum(data[0])
    across = [number(datum, "flops_per_byte") for datum in data]
    up = [number(datum, "macs_per_second") for datum in data]
    left = min(min(across) / 1.5, roof.balance_flops_per_byte / BESIDE)
    right = max(1.5 * max(across), BESIDE * roof.balance_flops_per_byte)
    bottom = min(*up, roof.attainable_macs_per_second(left))
    top = max(*up, roof.macs_per_second)

    def height(rate: float) -> float:
        return HEIGHT * math.log(rate / bottom) / math.log(top / bottom)

    spots = [
        Spot(x=WIDTH * math.log(x / left) / math.log(right / left), y=height(y), label=str(datum["label"]))
        for x, y, datum in zip(across, up, data, strict=True)
    ]
    return spots, height(roof.macs_per_second)
