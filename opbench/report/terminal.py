"""The report on a terminal: a narrow one folds names and shows fewer columns, and says which; numbers are never cut."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table as Grid
from rich.text import Text

from opbench.report.model import Block, Cell, Comparison, Section, Table, View

FOLDED_WIDTH = 30
"""Names may be folded to this width before a column is left out."""
_BETWEEN = 2
"""Cells between two columns, one of them the box's."""
_UNBOUNDED = 100_000


def show(view: View, console: Console, *, everything: bool = False) -> None:
    """Print the answer and the tables; `everything` adds what explains them: legend, parameters, counters, machine.

    A file or a pipe gets the width that the tables need. All text is `Text`, so that no markup in it is obeyed.
    """
    width = console.width if console.is_terminal else _UNBOUNDED
    for remark in view.remarks:
        console.print(_Wide(Text(remark), width), crop=False)
    if view.comparison:
        for part in _comparison(view.comparison, width, everything):
            console.print(_Wide(part, width), crop=False)
    for section in view.sections:
        for part in _section(section, width, everything):
            console.print(_Wide(part, width), crop=False)
    again = f"Made by {view.command}" if everything else f"What it all means: {view.command} --format markdown"
    console.print(_Wide(Text(again, style="dim"), width), crop=False)


class _Wide:
    """Something rendered at a width of its own, whatever the console's."""

    def __init__(self, content: RenderableType, width: int) -> None:
        self.content = content
        self.width = width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self.content, options.update_width(self.width))


def _section(section: Section, width: int, everything: bool) -> Iterator[RenderableType]:
    yield Text(section.title, style="bold")
    yield from (Text(text) for text in (section.question, section.answer) if text)
    yield from (Text(f"! {alert}", style="yellow") for alert in section.alerts)
    for table in section.tables:
        yield from _table(table, width)
    for block in section.blocks if everything else ():
        yield from _block(block)


def _comparison(comparison: Comparison, width: int, everything: bool) -> Iterator[RenderableType]:
    yield Text(comparison.title, style="bold")
    yield from (Text(text) for text in (comparison.question, comparison.answer))
    yield from (Text(f"! {alert}", style="yellow") for alert in comparison.alerts)
    yield from _block(comparison.runs)
    for table in comparison.tables:
        yield from _table(table, width)
    for block in comparison.blocks if everything else ():
        yield from _block(block)
    yield Text("")


def _block(block: Block) -> Iterator[RenderableType]:
    yield Text(f"\n{block.title}", style="bold")
    yield from (Text(f"- {line}") for line in block.lines)


def _table(table: Table, width: int) -> Iterator[RenderableType]:
    yield Text(f"\n{table.title}", style="bold")
    kept = list(range(len(table.columns)))
    notes = next((index for index in kept if table.columns[index].key == "notes"), None)
    notes_below = notes is not None and _least_width(table, kept) > width
    if notes_below:
        kept = [index for index in kept if index != notes]
    left_out = []
    while _least_width(table, kept) > width and (lesser := _lesser(table, kept)):
        left_out.append(lesser[0])
        kept.remove(lesser[0])
    for part in _side_by_side(table, kept, width):
        yield _grid(table, part, width)
    marks = {mark for row in table.rows for index in kept for mark in row[index].mark.split()}
    yield from (Text(f"{mark} {text}") for mark, text in table.footnotes if mark in marks)
    if notes_below and notes is not None:
        yield from (Text(f"{_label(table, row)}: {row[notes].text}") for row in table.rows if row[notes].text)
    if left_out:
        names = "; ".join(dict.fromkeys(table.columns[index].title for index in sorted(left_out)))
        yield Text(f"Too narrow for: {names}", style="dim")


def _lesser(table: Table, kept: Sequence[int]) -> list[int]:
    """The columns that may be left out, the first to go first; the most important number is not among them."""
    lesser = sorted(
        (index for index in kept if table.columns[index].rank), key=lambda index: -table.columns[index].rank
    )
    return lesser if len(lesser) > 1 else []


def _side_by_side(table: Table, kept: Sequence[int], width: int) -> list[list[int]]:
    """Break columns that nothing may be left out of into several tables, each led by the first column."""
    parts = [[kept[0]]]
    for index in kept[1:]:
        if len(parts[-1]) > 1 and _least_width(table, [*parts[-1], index]) > width:
            parts.append([kept[0]])
        parts[-1].append(index)
    return parts


def _grid(table: Table, kept: Sequence[int], width: int) -> RenderableType:
    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, _BETWEEN - 1, 0, 0), pad_edge=False, show_edge=False)
    widths = _widths(table, kept, width)
    for index, column_width in zip(kept, widths, strict=True):
        column = table.columns[index]
        title = Text(column.title)
        grid.add_column(title, width=column_width, justify="right" if column.numeric else "left", overflow="fold")
    for row in table.rows:
        cells = [_folded(_text(row[index]), column_width) for index, column_width in zip(kept, widths, strict=True)]
        styles = ["bold" if row[index].best else "" for index in kept]
        grid.add_row(*map(Text, cells, styles))
    # The widths are set above, so rich has no reason to squeeze a number.
    return _Wide(grid, _UNBOUNDED)


def _folded(text: str, width: int) -> str:
    """A name on several lines, broken after a network's colon and before an implementation's slash."""
    if cell_len(text) <= width or " " in text:
        return text
    lines = [""]
    for part in re.split(r"(?<=:)(?=.)|(?=/)", text):
        if lines[-1] and cell_len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _widths(table: Table, kept: Sequence[int], width: int) -> list[int]:
    """Natural widths, folded as far as need be, the widest first."""
    widths = [_natural(table, index) for index in kept]
    excess = sum(widths) + _BETWEEN * len(kept) - width
    for place in sorted(range(len(kept)), key=lambda place: -widths[place]):
        cut = min(excess, widths[place] - _least(table, kept[place]))
        if cut > 0:
            widths[place] -= cut
            excess -= cut
    return widths


def _least_width(table: Table, kept: Sequence[int]) -> int:
    return sum(_least(table, index) + _BETWEEN for index in kept)


def _least(table: Table, index: int) -> int:
    """The width below which a number would be cut; titles are folded between words, and names anywhere."""
    words = max(map(cell_len, table.columns[index].title.split()), default=0)
    cells = _widest_cell(table, index)
    return max(words, cells if table.columns[index].numeric else min(cells, FOLDED_WIDTH))


def _natural(table: Table, index: int) -> int:
    return max(cell_len(table.columns[index].title), _widest_cell(table, index))


def _widest_cell(table: Table, index: int) -> int:
    return max((cell_len(_text(row[index])) for row in table.rows), default=0)


def _text(cell: Cell) -> str:
    return f"{cell.text} {cell.mark}".rstrip()


def _label(table: Table, row: Sequence[Cell]) -> str:
    """What tells a row from the others."""
    never_left_out = [cell.text for cell, column in zip(row, table.columns, strict=True) if column.rank == 0]
    return " ".join(filter(None, never_left_out))
