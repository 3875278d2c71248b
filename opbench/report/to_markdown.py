"""Markdown, for a repository, an issue or a paper's appendix: GitHub's dialect, readable as plain text too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from opbench.report.model import Block, Cell, Column, Comparison, Section, Table, View

_ACTIVE = re.compile(
    r"[\\`|&<>]"  # escapes, code, table cells, entities and tags: never left as characters
    r"|[*~#$]"  # emphasis, strike-through, headings and issue numbers, formulas
    r"|(?<![^\W_])_|_(?![^\W_])"  # an underscore inside a word does nothing
    r"|\](?=[(\[:])|^\[(?=[ xX]\])"  # links, images, task boxes
    r"|(?<=:)//"  # addresses
    r"|@(?=\w)|(?i:(?<!\w)www(?=\.)|(?<!\w)GH(?=-\d))"  # people, who would be told; addresses and issues
    r"|^[-+=]|^\d+[.)](?!\S)"  # what makes a line a list or a heading
)
_AS_ENTITY = frozenset("\\`|&<>")
_NOTHING = "<!-- -->"
"""Keeps GitHub from linking what it looks for after it has read the Markdown, however that escapes it."""


@dataclass(frozen=True, kw_only=True)
class Illustration:
    """A picture beside the page."""

    path: str
    """Relative to the page, of letters, digits and `-_./` only."""
    title: str
    caption: str


def markdown(view: View, illustrations: Sequence[Sequence[Illustration]] = ()) -> str:
    """Write a report; all text in it is inert, whatever it holds.

    Args:
        view: the report.
        illustrations: for each of its sections the pictures that stand below its tables; none where none are given.
    """
    parts = [escape(remark) for remark in view.remarks]
    if view.comparison:
        parts += _comparison(view.comparison)
    for index, section in enumerate(view.sections):
        parts += _section(section, illustrations[index] if illustrations else ())
    parts.append(f"Made by {code(f'{view.command} --format markdown')}.")
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Make one line of text mean itself, in a table as in a paragraph."""
    return _ACTIVE.sub(_inert, text)


def _inert(match: re.Match[str]) -> str:
    found = match[0]
    if found == "#":
        return f"\\#{_NOTHING}" if match.string[match.end() :][:1].isdigit() else "\\#"
    if found == "@" or found.isalpha():
        return f"{found}{_NOTHING}"
    return f"&#{ord(found)};" if found in _AS_ENTITY else f"{found[:-1]}\\{found[-1]}"


def _section(section: Section, illustrations: Sequence[Illustration]) -> list[str]:
    parts = [f"# {escape(section.title)}", escape(section.question), escape(section.answer), _alerts(section.alerts)]
    parts += map(_table, section.tables)
    parts += map(_illustration, illustrations)
    parts += map(_block, section.blocks)
    return [part for part in parts if part]


def _comparison(comparison: Comparison) -> list[str]:
    parts = [f"# {escape(comparison.title)}", escape(comparison.question), escape(comparison.answer)]
    parts += [_alerts(comparison.alerts), _block(comparison.runs)]
    parts += map(_table, comparison.tables)
    parts += map(_block, comparison.blocks)
    return [part for part in parts if part]


def _alerts(alerts: Sequence[str]) -> str:
    return "\n".join(f"> - {escape(alert)}" for alert in alerts)


def _table(table: Table) -> str:
    heads = [escape(column.title) for column in table.columns]
    lines = [[_cell(cell) for cell in row] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    rule = [_rule(column, width) for column, width in zip(table.columns, widths, strict=True)]
    grid = [_line(heads, table.columns, widths), "| " + " | ".join(rule) + " |"]
    grid += [_line(line, table.columns, widths) for line in lines]
    footnotes = "\n".join(f"- {mark} {escape(text)}" for mark, text in table.footnotes)
    return "\n\n".join(filter(None, [f"## {escape(table.title)}", "\n".join(grid), footnotes]))


def _illustration(illustration: Illustration) -> str:
    title = escape(illustration.title)
    return f"## {title}\n\n![{title}]({illustration.path})\n\n{escape(illustration.caption)}"


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    return " ".join(filter(None, [f"**{text}**" if cell.best else text, cell.mark]))


def _rule(column: Column, width: int) -> str:
    return "-" * max(2, width - 1) + ":" if column.numeric else "-" * max(3, width)


def _line(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    """Cells padded so that the table can be read as it is written."""
    padded = [
        cell.rjust(width) if column.numeric else cell.ljust(width)
        for cell, column, width in zip(cells, columns, widths, strict=True)
    ]
    return "| " + " | ".join(padded) + " |"


def _block(block: Block) -> str:
    return "\n".join([f"## {escape(block.title)}", "", *(f"- {escape(line)}" for line in block.lines)])


def code(text: str) -> str:
    """A code span, fenced by more backticks than the text has in a row."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"
