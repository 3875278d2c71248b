"""Axes: the extents and parameters along which a run scans its operators, and the lines of rows along them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from opbench.report import keys
from opbench.report.columns import differing_params, name
from opbench.report.rows import Row

FEWEST_POINTS = 3
"""Two points are read off two tables as easily, and through two goes any law."""

Line = Mapping[Hashable, Row]
"""The rows of one operator, under the axis' value of each."""


@dataclass(frozen=True)
class Axis:
    """What varies along a line of rows in which all else is equal."""

    name: str
    point: Callable[[Row], Hashable]
    """A row's place along the axis; None where it has none."""
    fixed: tuple[str, ...]
    """Keys whose values rows must share to be compared along the axis."""


SHAPE = Axis("shape", lambda row: row.record.case.shape, tuple(key for key in keys.COMPARABLE if key != "shape"))


def parameter(name: str) -> Axis:
    """The axis of a parameter."""
    return Axis(name, lambda row: row.params.get(name), keys.COMPARABLE)


def extent(name: str, point: Callable[[Row], Hashable], others: Sequence[str]) -> Axis:
    """An axis of which shapes differ in one extent only, the other ones being keys."""
    return Axis(name, point, (*SHAPE.fixed, *others))


def set_by_the_suite(rows: Sequence[Row]) -> list[str]:
    """The parameters that may be scanned, in order of appearance."""
    names = (name for row in rows for name in row.record.case.params if name not in keys.NAMES)
    return list(dict.fromkeys(names))


def longest(rows: Sequence[Row], axis: Axis) -> int:
    """Points of the longest line along an axis."""
    of_all = (line for group in keys.grouped(rows, axis.fixed).values() for line in lines(group, axis))
    return max(map(len, of_all), default=0)


def lines(rows: Sequence[Row], axis: Axis) -> list[Line]:
    """For each operator with its other parameters, its rows along the axis; rows without the axis are left out.

    Args:
        rows: of equal values of the axis' fixed keys.
        axis: along which they differ.
    """
    found: dict[Hashable, dict[Hashable, Row]] = {}
    for row in rows:
        others = tuple((name, value) for name, value in sorted(row.record.case.params.items()) if name != axis.name)
        point = axis.point(row)
        if point is not None:
            found.setdefault((row.record.name, others), {})[point] = row
    return list(found.values())


def names(rows: Sequence[Row], axis: Axis, lines: Sequence[Line]) -> list[str]:
    """What each line is called: the operator, with those of its parameters that tell it from others of that name."""
    params: dict[int, str] = {}
    for alike in keys.grouped(rows, ("operator", "network", "implementation")).values():
        params |= zip(map(id, alike), differing_params(alike, without=axis.name), strict=True)
    firsts = [next(iter(line.values())) for line in lines]
    return [" ".join(filter(None, [name(first), params[id(first)]])) for first in firsts]
