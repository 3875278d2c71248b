"""Scans: where a run varies a shape or a parameter, one table shows how time and memory grow along it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from opbench import units
from opbench.cases import Nchw
from opbench.plain import plain
from opbench.report import keys
from opbench.report.axes import FEWEST_POINTS, SHAPE, Axis, lines, longest, names, parameter, set_by_the_suite
from opbench.report.cells import Draft, table
from opbench.report.columns import READINGS, bytes_draft, dense_macs, latency_draft, memory_source, ratio_text
from opbench.report.model import Column, Table
from opbench.report.rows import Row
from opbench.report.words import status_in_words


class _Quantity(NamedTuple):
    """What a scan shows, and what must be equal within one of its tables besides the axis."""

    title: str
    draft: Callable[[Row], Draft]
    keys: tuple[str, ...]


def scans(rows: Sequence[Row], baseline: str | None) -> list[Table]:
    """Tables of operators against the values of the longest scanned axis; none where nothing is scanned."""
    axis = _axis(rows)
    return (
        []
        if axis is None
        else [table for quantity in _quantities(rows, baseline) for table in _of(quantity, axis, rows)]
    )


def _quantities(rows: Sequence[Row], baseline: str | None) -> list[_Quantity]:
    """The quantities that were measured; dense MACs where none was."""
    divided = f" (÷ {plain(baseline)})" if baseline and any(row.ratio for row in rows) else ""
    source = memory_source(rows)
    # Neither memory nor counts depend on the policy.
    setting = tuple(key for key in keys.COMPARABLE if key != "policy")
    quantities = [
        _Quantity(f"Latency{divided}", _latency, keys.COMPARABLE),
        *(_Quantity(each.title.capitalize(), partial(bytes_draft, source, each), setting) for each in READINGS),
    ]
    measured = [quantity for quantity in quantities if any(quantity.draft(row).bounds for row in rows)]
    return measured or [_Quantity("Dense MACs", dense_macs, setting)]


def _axis(rows: Sequence[Row]) -> Axis | None:
    """The shape or the parameter that takes most values while all else is equal."""
    lengths = [(axis, longest(rows, axis)) for axis in (SHAPE, *map(parameter, set_by_the_suite(rows)))]
    axis, length = max(lengths, key=lambda found: found[1])
    return axis if length >= FEWEST_POINTS else None


def _of(quantity: _Quantity, axis: Axis, rows: Sequence[Row]) -> Iterator[Table]:
    """One table for each group of rows that differ in operator, parameters and axis only."""
    fixed = [key for key in quantity.keys if key in axis.fixed]
    for values, group in keys.grouped(rows, fixed).items():
        found = lines(group, axis)
        points = _in_order(list(dict.fromkeys(point for line in found for point in line)))
        if len(points) >= FEWEST_POINTS and any(quantity.draft(row).bounds for row in group):
            yield _laid_out(
                f"{quantity.title} by {axis.name.replace('_', ' ')}: {keys.title(fixed, values)}",
                axis.name,
                [keys.text(axis.name, point) for point in points],
                names(group, axis, found),
                [[_cell(line.get(point), quantity.draft) for point in points] for line in found],
            )


def _in_order(points: Sequence[Hashable]) -> list[Hashable]:
    """Ascending where that has a meaning, else as the suite has them."""
    if all(isinstance(point, Nchw) for point in points):
        return sorted(points, key=lambda point: point.numel if isinstance(point, Nchw) else 0)
    numbers = [point for point in points if isinstance(point, int | float)]
    return [*sorted(numbers)] if len(numbers) == len(points) else list(points)


def _cell(row: Row | None, draft: Callable[[Row], Draft]) -> Draft:
    if row is None:
        return Draft()
    return draft(row) if row.measured else Draft(status_in_words(row.record))


def _latency(row: Row) -> Draft:
    if row.latency is None:
        return Draft()
    time, _ = units.seconds_interval(row.latency.median, row.latency.low, row.latency.high)
    footnotes = (f"{', '.join(row.measured.flags)}",) if row.measured and row.measured.flags else ()
    ratio = "" if row.ratio is None else f" ({ratio_text(row.ratio)})"
    return latency_draft(row, time + ratio, *footnotes)


def _laid_out(
    title: str, axis: str, points: Sequence[str], names: Sequence[str], cells: Sequence[Sequence[Draft]]
) -> Table:
    """Operators down and points across, or the other way round where that is narrower; rivals share a point."""
    head, down, across, grid = "operator", names, points, cells
    if len(points) > len(names):
        head, down, across, grid = axis.replace("_", " "), points, names, list(zip(*cells, strict=True))
    columns = [
        Column(key="head", title=head, numeric=False, rank=0),
        *(Column(key="point", title=each, numeric=True, rank=0) for each in across),
    ]
    drafts = [[Draft(label) for label in down], *zip(*grid, strict=True)]
    return table(title, columns, drafts, contest="rows" if grid is not cells else "columns")
