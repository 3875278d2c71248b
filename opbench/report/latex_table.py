"""A table for LaTeX, in parts that fit on a page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from opbench.report.latex_columns import Laid, laid
from opbench.report.model import Table
from opbench.report.words import superscript

PAGE_WIDTH = 124
"""Characters of footnote size that fit beside each other, the room between columns included."""
PAGE_LINES = 55
"""Of rows and footnotes."""
_FOOTNOTE_WIDTH = 110
_BETWEEN = 3


@dataclass(frozen=True, kw_only=True)
class Part:
    """As much of a table as fits on a page."""

    lines: tuple[str, ...]
    """The tabular, as LaTeX."""
    footnotes: tuple[tuple[str, str], ...]
    """(mark, text), not yet escaped."""
    dimensions: frozenset[str]
    """What its numbers measure, as `units.dimension` calls it."""
    keys: frozenset[str]
    """Of its columns."""
    best: bool
    """Whether something is bold."""
    bounds: bool
    """Whether something is a lower bound."""


def parts(table: Table) -> Iterator[Part]:
    """Cut a table by columns, then by rows; what names the rows is in every part."""
    noted = _notes_as_footnotes(table)
    for chosen in _by_width(laid(noted)):
        indices = [column.index for column in chosen]
        for rows in _by_height(noted):
            numbered = _numbered(noted, indices, rows)
            columns = laid(numbered)
            yield _part(numbered, [columns[index] for index in indices], rows)


def _notes_as_footnotes(table: Table) -> Table:
    """The same table with its notes below it: a paper has no room for a column of sentences."""
    indices = [index for index, column in enumerate(table.columns) if column.key == "notes"]
    if not indices:
        return table
    (notes,) = indices
    title = table.columns[notes].title
    known = {text: mark for mark, text in table.footnotes}
    rows = []
    for row in table.rows:
        first, text = row[0], row[notes].text
        marks = [first.mark, row[notes].mark]
        if text:
            said = text if title == "notes" else f"{title}: {text}"
            marks.append(known.setdefault(said, superscript(len(known) + 1)))
        first = replace(first, mark=" ".join(filter(None, marks)))
        rows.append((first, *(cell for index, cell in enumerate(row[1:], start=1) if index != notes)))
    return Table(
        title=table.title,
        columns=tuple(column for index, column in enumerate(table.columns) if index != notes),
        rows=tuple(rows),
        footnotes=tuple((mark, text) for text, mark in known.items()),
    )


def _numbered(table: Table, columns: Sequence[int], rows: slice) -> Table:
    """The same table with the footnotes that some of its cells have, numbered from 1 as one reads."""
    marks: dict[str, str] = {}
    for row in table.rows[rows]:
        for mark in (mark for index in columns for mark in row[index].mark.split()):
            marks.setdefault(mark, superscript(len(marks) + 1))
    texts = dict(table.footnotes)
    return replace(
        table,
        rows=tuple(
            tuple(replace(cell, mark=" ".join(marks.get(mark, "") for mark in cell.mark.split())) for cell in row)
            for row in table.rows
        ),
        footnotes=tuple((new, texts[old]) for old, new in marks.items()),
    )


def _by_width(columns: Sequence[Laid]) -> Iterator[list[Laid]]:
    """As many columns as fit beside those that name the rows, again and again; what belongs together stays so."""
    names = [column for column in columns if column.names_rows]
    groups: list[list[Laid]] = []
    for column in columns:
        if column.joined and groups:
            groups[-1].append(column)
        elif not column.names_rows:
            groups.append([column])
    room = PAGE_WIDTH - _width(names)
    chosen: list[Laid] = []
    for group in groups:
        if chosen and _width([*chosen, *group]) > room:
            yield [*names, *chosen]
            chosen = []
        chosen += group
    if chosen or not groups:
        yield [*names, *chosen]


def _by_height(table: Table) -> Iterator[slice]:
    """As many rows as fit with their footnotes, again and again."""
    notes = dict(table.footnotes)
    start, lines, known = 0, 0, set[str]()
    for index, row in enumerate(table.rows):
        new = {mark for cell in row for mark in cell.mark.split()} - known
        needed = 1 + sum(math.ceil(len(notes[mark]) / _FOOTNOTE_WIDTH) for mark in new)
        if index > start and lines + needed > PAGE_LINES:
            yield slice(start, index)
            start, lines, known = index, 0, set()
        lines, known = lines + needed, known | new
    yield slice(start, len(table.rows))


def _width(columns: Iterable[Laid]) -> int:
    return sum(column.width + _BETWEEN for column in columns)


def _part(table: Table, columns: Sequence[Laid], rows: slice) -> Part:
    height = max(len(column.head) for column in columns)
    heads = [("",) * (height - len(column.head)) + column.head for column in columns]
    lines = [
        rf"\begin{{tabular}}{{@{{}}{' '.join(column.alignment for column in columns)}@{{}}}}",
        r"\toprule",
        *(
            _row(_braced(line, column) for line, column in zip(level, columns, strict=True))
            for level in zip(*heads, strict=True)
        ),
        r"\midrule",
        *map(_row, zip(*(column.cells[rows] for column in columns), strict=True)),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    cells = [row[column.index] for row in table.rows[rows] for column in columns]
    return Part(
        lines=tuple(lines),
        footnotes=table.footnotes,
        dimensions=frozenset(column.dimension for column in columns),
        keys=frozenset(table.columns[column.index].key for column in columns),
        best=any(cell.best for cell in cells),
        bounds=any(cell.text.startswith("≥") for cell in cells),
    )


def _braced(head: str, column: Laid) -> str:
    """A head for siunitx, which would read a number out of it."""
    return f"{{{head}}}" if head and column.alignment.startswith("S") else head


def _row(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"
