"""A run's rows as one table that a page can sort, filter, group, and divide by another baseline, without arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from opbench import units
from opbench.plain import plain
from opbench.report import keys
from opbench.report.columns import NAME_LIMIT, of_rows, ratio_text
from opbench.report.groups import ordered, spread
from opbench.report.model import Cell, Column, Table
from opbench.report.rows import Row, compared
from opbench.report.words import NONE
from opbench.settings import SortBy

MOST_RATIOS = 60_000
"""Ratios that a page carries for all its baselines together: some 2 MB."""


class Against(NamedTuple):
    """How a row compares with a baseline, in ready strings; why it does not, where it does not."""

    ratio: str
    interval: str
    refused: str = ""


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """A way of grouping the rows: the heading that each row stands under."""

    title: str
    headings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The table, and for each of its rows what other groupings and baselines would say."""

    table: Table
    rows: tuple[Row, ...]
    """What the table's rows show."""
    groupings: tuple[Grouping, ...]
    """The first is the table's own."""
    in_settings: bool
    """Whether the first grouping's headings say all that tells one setting from another."""
    baseline: str
    """What the table's ratios refer to, by its name among the baselines; '' for none."""
    baselines: dict[str, tuple[Against, ...]]
    """By the whole name of what was timed, for cut ones may be equal.

    The commonest names only, where all would be too much for a page.
    """
    baselines_left_out: int


def grid(rows: Sequence[Row], baseline: str | None, group_by: Sequence[str] = (), sort_by: SortBy = "suite") -> Grid:
    """Make the table of all rows of a run, with the best of each setting.

    Args:
        rows: at least one.
        baseline: what the ratios refer to at first.
        group_by: keys of the first grouping; none for rows that may be compared.
        sort_by: order of the rows in a group.
    """
    group_keys = group_by or keys.COMPARABLE
    groups = keys.grouped(spread(rows), group_keys)
    shown = [row for group in groups.values() for row in ordered(group, sort_by)]
    names = _baselines(shown)
    kept = names[: max(1, MOST_RATIOS // max(1, len(shown)))]
    if baseline in names and baseline not in kept:
        kept[-1] = baseline
    table = of_rows("All rows", shown, baseline, by_setting=True)
    return Grid(
        table=_most_asked_first(_with_room_for_ratios(table) if names else table),
        rows=tuple(shown),
        groupings=tuple(_groupings(shown, group_keys)),
        in_settings=not group_by,
        baseline=plain(baseline or ""),
        baselines={plain(name): tuple(map(_against, compared(shown, name))) for name in kept},
        baselines_left_out=len(names) - len(kept),
    )


def _baselines(rows: Sequence[Row]) -> list[str]:
    """What was timed, the name with most times first."""
    times: dict[str, int] = {}
    for row in rows:
        if row.latency:
            times[row.record.name] = times.get(row.record.name, 0) + 1
    return sorted(times, key=lambda name: -times[name])


def _against(row: Row) -> Against:
    if row.is_baseline and row.latency:
        return Against("baseline", NONE)
    if row.ratio is None:
        return Against(NONE, NONE, plain(row.no_ratio))
    interval = units.ratio_interval(row.ratio.value, row.ratio.low, row.ratio.high)[1]
    return Against(ratio_text(row.ratio), interval)


def _with_room_for_ratios(table: Table) -> Table:
    """The same table with empty columns for what it lacks of ratios, for a reader who picks a baseline."""
    room = (
        Column(key="ratio", title="÷ baseline", numeric=True, rank=2),
        Column(key="ratio_interval", title="95 % interval", numeric=True, rank=9),
    )
    there = [column.key for column in table.columns]
    lacking = tuple(column for column in room if column.key not in there)
    before = ("latency", "latency_interval", "ratio")
    place = 1 + max((index for index, key in enumerate(there) if key in before), default=0)
    none = (Cell(text=NONE),) * len(lacking)
    return replace(
        table,
        columns=(*table.columns[:place], *lacking, *table.columns[place:]),
        rows=tuple((*cells[:place], *none, *cells[place:]) for cells in table.rows),
    )


_FIRST = (
    "latency",
    "latency_interval",
    "ratio",
    "ratio_interval",
    "throughput",
    "forward_peak",
    "saved",
    "backward_peak",
)


def _most_asked_first(table: Table) -> Table:
    """What a row is and how it ended, then what was measured, then what was counted: a page is seldom wide enough."""

    def rank(index: int) -> tuple[int, int]:
        column = table.columns[index]
        if column.key == "operator" or column.coordinate:
            return 0, index
        if column.key == "params":
            return (4 if column.rank else 1), index
        if column.key == "notes":
            return 2, index
        return (3, _FIRST.index(column.key)) if column.key in _FIRST else (4, index)

    order = sorted(range(len(table.columns)), key=rank)
    return replace(
        table,
        columns=tuple(table.columns[index] for index in order),
        rows=tuple(tuple(cells[index] for index in order) for cells in table.rows),
    )


def _groupings(rows: Sequence[Row], first: Sequence[str]) -> list[Grouping]:
    """By the keys of the first, by nothing, and by every key or parameter that takes several values."""
    parameters = sorted({name for row in rows for name in row.params} - keys.NAMES)
    varying = [key for key in (*_KEYS, *parameters) if len({keys.text(key, keys.value(row, key)) for row in rows}) > 1]
    headings = [keys.title(first, keys.values(row, first)) for row in rows]
    title = "setting" if first == keys.COMPARABLE else plain(", ".join(first), NAME_LIMIT)
    return [
        Grouping(title=title, headings=tuple(headings)),
        Grouping(title="nothing", headings=("",) * len(rows)),
        *(
            Grouping(
                title=plain(key.replace("_", " "), NAME_LIMIT),
                headings=tuple(keys.text(key, keys.value(row, key)) for row in rows),
            )
            for key in varying
        ),
    ]


_KEYS = (
    *("operator", "implementation", "network", "scope", "pass", "shape", "batch", "channels", "height", "width"),
    *("dtype", "memory_format", "policy"),
)
"""Of the known keys, those that a reader picks from a list, in its order."""
