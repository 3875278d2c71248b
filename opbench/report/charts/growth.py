"""How time and memory grow along an axis of a run: lines of points, the law of each, where two change places."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

from opbench.measure.power_law import FEWEST_POINTS, Crossover, Difference, PowerLaw, crossovers, fit
from opbench.report import keys
from opbench.report.axes import Axis, extent, lines, longest, names, parameter, set_by_the_suite
from opbench.report.charts.material import is_doubtful
from opbench.report.charts.model import Unit
from opbench.report.columns import memory_source
from opbench.report.groups import peak_bytes
from opbench.report.rows import Row

Reading = tuple[float, float, float]
"""A value with the ends of its interval."""


class Quantity(NamedTuple):
    """What grows."""

    variant: str
    title: str
    key: str
    """Of the field that holds it."""
    unit: Unit
    words: str
    less: str
    more: str


LATENCY = Quantity("latency", "Latency", "latency_seconds", "seconds", "time", "faster", "slower")
MEMORY = Quantity("memory", "Peak memory", "peak_bytes", "bytes", "peak memory", "smaller", "larger")


@dataclass(frozen=True, kw_only=True)
class Point:
    """What one row measured, at its place along an axis."""

    row: Row
    x: float
    value: float
    low: float
    high: float
    doubtful: bool
    """Whether its interval cannot be trusted."""

    @cached_property
    def stated_half_width(self) -> float:
        """Relative, of the wider half of the interval, trusted or not; infinite where it has no end."""
        if not (self.low > 0 and math.isfinite(self.high)):
            return math.inf
        return max(math.log(self.high / self.value), math.log(self.value / self.low))

    @property
    def half_width(self) -> float:
        """The same, where it can be trusted; else infinite."""
        return math.inf if self.doubtful else self.stated_half_width


@dataclass(frozen=True, kw_only=True)
class Line:
    """One operator in one implementation, all but the axis being equal."""

    label: str
    points: tuple[Point, ...]
    """In the order of the axis; never empty."""

    @property
    def row(self) -> Row:
        """Whose operator and implementation hold for the whole line."""
        return self.points[0].row

    @cached_property
    def law(self) -> PowerLaw | None:
        """The power law; None for fewer points than three."""
        if len(self.points) < FEWEST_POINTS:
            return None
        return fit(
            [point.x for point in self.points],
            [point.value for point in self.points],
            # Flagged ones, too: the slope is at least as uncertain as they say.
            [point.stated_half_width for point in self.points],
        )


@dataclass(frozen=True, kw_only=True)
class Crossed:
    """Two lines that change places."""

    less_below: Line
    """The one that takes less below the crossover."""
    less_above: Line
    crossover: Crossover
    value: float | None
    """What both take where they cross."""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """The lines that may be compared with each other."""

    setting: str
    rows: tuple[Row, ...]
    """All that belong here, measured or not."""
    lines: tuple[Line, ...]

    @cached_property
    def crossed(self) -> tuple[Crossed, ...]:
        """Every crossover of two lines."""
        return tuple(found for pair in combinations(self.lines, 2) for found in _crossed(*pair))


def axes(rows: Sequence[Row]) -> list[Axis]:
    """The axes along which some operator has three points or more: extents first, then parameters that are numbers."""
    square = all(row.record.case.shape.height == row.record.case.shape.width for row in rows)
    candidates = [
        extent("side", _side, ("batch", "channels")) if square else extent("pixels", _pixels, ("batch", "channels")),
        extent("channels", lambda row: row.record.case.shape.channels, ("batch", "height", "width")),
        extent("batch", lambda row: row.record.case.shape.batch, ("channels", "height", "width")),
        *map(_numbers_of, set_by_the_suite(rows)),
    ]
    return [axis for axis in candidates if longest(rows, axis) >= FEWEST_POINTS]


def growths(
    rows: Sequence[Row], axis: Axis, read: Callable[[Row], Reading | None], *, by_policy: bool = True
) -> list[Growth]:
    """The lines along an axis, by setting; settings in which no line has three points are left out.

    Args:
        rows: of a run.
        axis: one of its axes.
        read: what grows; None for rows that have none.
        by_policy: whether it depends on the policy; where it does not, the first row of a record stands for all.
    """
    policy = keys.POLICY if by_policy else ()
    fixed = [part for key in axis.fixed for part in (policy if key == "policy" else (key,))]
    found = []
    for values, group in keys.grouped(rows, fixed).items():
        along = lines(group, axis)
        labels = names(group, axis, along)
        made = [
            Line(label=label, points=points)
            for label, line in zip(labels, along, strict=True)
            if (points := _points(line.values(), axis, read, by_policy))
        ]
        if any(line.law for line in made):
            found.append((values, group, tuple(made)))
    varying = [index for index in range(len(fixed)) if len({values[index] for values, _, _ in found}) > 1]
    return [
        Growth(
            setting=keys.title([fixed[index] for index in varying], [values[index] for index in varying])
            if varying
            else "",
            rows=tuple(group),
            lines=made,
        )
        for values, group, made in sorted(found, key=lambda each: each[1][0].record.case.pass_ != "forward")
    ]


def latency(row: Row) -> Reading | None:
    """Seconds per call."""
    return (row.latency.median, row.latency.low, row.latency.high) if row.latency else None


def peak(rows: Sequence[Row]) -> Callable[[Row], Reading | None]:
    """Reads a row's peak memory, as the source that all of a chart are read from saw it."""
    source = memory_source(rows)

    def read(row: Row) -> Reading | None:
        found = None if source is None else peak_bytes(row, source)
        # Repetitions of the high-water mark count as equal within one percent.
        slack = 0.01 if source == "high_water" else 0.0
        return (found, found * (1 - slack), found * (1 + slack)) if found else None

    return read


def _side(row: Row) -> int:
    return row.record.case.shape.height


def _pixels(row: Row) -> int:
    return row.record.case.shape.height * row.record.case.shape.width


def _numbers_of(name: str) -> Axis:
    """The axis of a parameter, of which a logarithmic scale shows the numbers above zero."""
    axis = parameter(name)

    def point(row: Row) -> float | int | None:
        value = axis.point(row)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return value if 0 < value < math.inf else None

    return Axis(name, point, axis.fixed)


def _points(rows: Iterable[Row], axis: Axis, read: Callable[[Row], Reading | None], timed: bool) -> tuple[Point, ...]:
    """The rows that have a value, in the order of the axis; only times can be doubtful."""
    found = []
    for row in rows:
        x, reading = axis.point(row), read(row)
        if isinstance(x, int | float) and reading:
            value, low, high = reading
            found.append(Point(row=row, x=x, value=value, low=low, high=high, doubtful=timed and is_doubtful(row)))
    return tuple(sorted(found, key=lambda point: point.x))


def _crossed(first: Line, second: Line) -> Iterator[Crossed]:
    theirs = {point.x: point for point in second.points}
    pairs = [(point, theirs[point.x]) for point in first.points if point.x in theirs]
    differences = [
        Difference(
            x=mine.x,
            value=math.log(mine.value / other.value),
            half_width=math.hypot(mine.half_width, other.half_width),
        )
        for mine, other in pairs
    ]
    for crossover in crossovers(differences):
        less_below, less_above = (first, second) if crossover.first_is_less_below else (second, first)
        yield Crossed(
            less_below=less_below,
            less_above=less_above,
            crossover=crossover,
            value=None if crossover.at is None else _between([mine for mine, _ in pairs], crossover.at),
        )


def _between(points: Sequence[Point], x: float) -> float:
    """The value at some place between points, on the straight line through the logarithms."""
    left = max((point for point in points if point.x <= x), key=lambda point: point.x)
    right = min((point for point in points if point.x >= x), key=lambda point: point.x)
    if left.x == right.x:
        return left.value
    share = math.log(x / left.x) / math.log(right.x / left.x)
    return math.exp((1 - share) * math.log(left.value) + share * math.log(right.value))
