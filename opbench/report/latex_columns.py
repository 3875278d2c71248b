"""The columns of a table for LaTeX: each with one unit in its head, and its numbers with their points aligned."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from opbench import units
from opbench.report.latex_text import breakable, escape
from opbench.report.model import Cell, Column, Table
from opbench.units import Printed

_HEAD_WIDTH = 12
_NAME_WIDTH = 48
"""Wider names are folded."""
_TEXT_LIMIT = 120
_REMARKED = re.compile(r"(?P<text>.+?) (?P<remark>\([^()]+×\))")
"""A time with its ratio."""

_UNITS = {"s": r"\si{\second}", "ms": r"\si{\milli\second}", "µs": r"\si{\micro\second}", "ns": r"\si{\nano\second}"}


@dataclass(frozen=True, kw_only=True)
class Laid:
    """A column of a table, laid out."""

    index: int
    """Of the column in the table."""
    dimension: str
    alignment: str
    head: tuple[str, ...]
    """Lines, the unit last."""
    cells: tuple[str, ...]
    width: int
    names_rows: bool
    joined: bool
    """Whether it belongs to the column before it, as an interval does."""


def laid(table: Table) -> list[Laid]:
    """Lay out every column: as figures where its cells are numbers of one dimension, else as words."""
    cells = list(zip(*table.rows, strict=True)) if table.rows else [()] * len(table.columns)
    read = [_numbers(column, of_column) for column, of_column in zip(table.columns, cells, strict=True)]
    dimensions = [units.dimension(filter(None, numbers)) if numbers else None for numbers in read]
    first_number = next((index for index, column in enumerate(table.columns) if column.numeric), len(cells))
    done = []
    for index, (column, of_column, numbers, dimension) in enumerate(
        zip(table.columns, cells, read, dimensions, strict=True)
    ):
        if numbers is None or dimension is None:
            made = _words(index, column, of_column, names_rows=index < first_number and not column.rank)
        else:
            # Counts differ by orders of magnitude from column to column; times and bytes of a table have one unit.
            alike = [index] if dimension not in ("seconds", "bytes") else range(len(read))
            rivals = [each for other in alike if dimensions[other] == dimension for each in read[other] or () if each]
            made = _figures(index, column, of_column, numbers, dimension, units.common_unit(rivals, dimension))
        done.append(made)
    return done


def _numbers(column: Column, cells: Sequence[Cell]) -> list[Printed | None] | None:
    """What a column's cells say as numbers, None for words such as 'n/a'; None if it is no column of numbers."""
    read = [units.read(_remarked(cell)[0]) for cell in cells]
    lengths = {len(each.numbers) for each in read if each}
    mixed = any(number is None and any(map(str.isdigit, cell.text)) for number, cell in zip(read, cells, strict=True))
    return read if column.numeric and len(lengths) == 1 and not mixed else None


def _remarked(cell: Cell) -> tuple[str, str]:
    """A cell's text, and what stands behind it in brackets."""
    match = _REMARKED.fullmatch(cell.text)
    return (match["text"], match["remark"]) if match else (cell.text, "")


def _wrapped(title: str, width: int) -> list[str]:
    """A title in lines; a word is broken only where it is longer than any name."""
    longest = max(map(len, title.split()), default=0)
    return textwrap.wrap(title, min(max(width, longest), _NAME_WIDTH)) or [""]


def _words(index: int, column: Column, cells: Sequence[Cell], *, names_rows: bool) -> Laid:
    head = _wrapped(column.title, 2 * _HEAD_WIDTH)
    width = max(map(len, [*head, *(cell.text + cell.mark for cell in cells)]))
    folded = not column.numeric and width > _NAME_WIDTH
    alignment = r">{\raggedright\arraybackslash}p{6cm}" if folded else "r" if column.numeric else "l"
    return Laid(
        index=index,
        dimension="",
        alignment=alignment,
        head=tuple(map(escape, head)),
        cells=tuple(_word(cell, folded=folded) for cell in cells),
        width=min(width, _NAME_WIDTH) if folded else width,
        names_rows=names_rows,
        joined=False,
    )


def _word(cell: Cell, *, folded: bool) -> str:
    text = breakable(_short(cell.text)) if folded else escape(cell.text)
    return (rf"\textbf{{{text}}}" if cell.best else text) + _mark(cell)


def _short(text: str) -> str:
    """What fits into a few lines; all values of parameters stand below the tables."""
    return text if len(text) <= _TEXT_LIMIT else text[: _TEXT_LIMIT - 1] + "…"


def _mark(cell: Cell) -> str:
    return rf"\,{escape(cell.mark)}" if cell.mark else ""


def _figures(
    index: int, column: Column, cells: Sequence[Cell], numbers: Sequence[Printed | None], dimension: str, unit: str
) -> Laid:
    texts = [None if each is None else units.in_unit(each, dimension, unit) for each in numbers]
    interval = any(text is not None and len(text) == 2 for text in texts)
    shown = _UNITS.get(unit, escape("" if dimension == "ratio" else unit))
    title = _wrapped(column.title, _HEAD_WIDTH)
    plain = ["" if text is None else ", ".join(text) for text in texts]
    width = max(
        *map(len, title),
        *(
            len(text or cell.text) + len(_remarked(cell)[1] + cell.mark)
            for text, cell in zip(plain, cells, strict=True)
        ),
    )
    if interval:
        alignment, made = "r", [_ends(cell, text) for cell, text in zip(cells, texts, strict=True)]
    else:
        alignment = _digits([text for text in plain if text], cells, any(each.at_least for each in numbers if each))
        made = [_digit(cell, text, each) for cell, text, each in zip(cells, plain, numbers, strict=True)]
    return Laid(
        index=index,
        dimension=dimension,
        alignment=alignment,
        head=(*map(escape, title), *([f"({shown})"] if shown else [])),
        cells=tuple(made),
        width=width,
        names_rows=False,
        joined=interval,
    )


def _ends(cell: Cell, ends: tuple[str, ...] | None) -> str:
    return (escape(cell.text) if ends is None else f"[{', '.join(map(escape, ends))}]") + _mark(cell)


def _digits(texts: Iterable[str], cells: Iterable[Cell], bounded: bool) -> str:
    """A column of siunitx whose numbers stand with their decimal points below each other."""
    halves = [text.partition(".") for text in texts]
    whole, decimals = (max(len(half[index]) for half in halves) for index in (0, 2))
    room = max(map(_after, cells), key=len)
    options = [f"table-format={'>' if bounded else ''}{whole}.{decimals}", "detect-weight"]
    if room:
        options.append(f"table-space-text-post={{{room}}}")
    return f"S[{', '.join(options)}]"


def _after(cell: Cell) -> str:
    """What stands behind a number."""
    _, remark = _remarked(cell)
    return (rf"\,{escape(remark)}" if remark else "") + _mark(cell)


def _digit(cell: Cell, text: str, printed: Printed | None) -> str:
    """A number for siunitx, or words in braces, which it centres."""
    if printed is None:
        return f"{{{_word(cell, folded=False)}}}"
    after = f"{{{_after(cell)}}}" if _after(cell) else ""
    weight, bound = (r"\bfseries " if cell.best else ""), (r"\geq " if printed.at_least else "")
    return f"{weight}{bound}{text}{after}"
