"""From drafts of cells to a table: crowns the best, numbers the footnotes, drops what says nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from opbench.report.model import Cell, Column, Table
from opbench.report.words import NONE, NOT_APPLICABLE

T = TypeVar("T")

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_UNKNOWN = (-math.inf, math.inf)


@dataclass(frozen=True)
class Draft:
    """A cell before it knows its neighbours."""

    text: str = NONE
    bounds: tuple[float, float] | None = None
    """Where the true value lies, if it takes part in the contest for the smallest."""
    footnotes: tuple[str, ...] = ()

    @classmethod
    def exact(cls, value: float, text: str, *footnotes: str) -> Draft:
        """A number without uncertainty."""
        return cls(text, (value, value), footnotes)

    @classmethod
    def at_least(cls, value: float, text: str, *footnotes: str) -> Draft:
        """A lower bound: it can lose a contest, but never win one."""
        return cls(f"≥ {text}", (value, math.inf), footnotes)

    @classmethod
    def unknown(cls, *footnotes: str) -> Draft:
        """A value that exists but is not known: nobody wins against it."""
        return cls(bounds=_UNKNOWN, footnotes=footnotes)

    @property
    def says_something(self) -> bool:
        """Whether the cell is more than the absence of a value."""
        return self.text not in (NONE, NOT_APPLICABLE, "") or bool(self.footnotes)

    def out_of_contest(self) -> Draft:
        """The same cell, never the best and never a rival."""
        return Draft(self.text, None, self.footnotes)

    def in_doubt(self) -> Draft:
        """The same cell with an interval that cannot be trusted: nobody wins against it, nor does it."""
        return Draft(self.text, self.bounds and _UNKNOWN, self.footnotes)


def winner(drafts: Sequence[Draft]) -> int | None:
    """Index of the draft whose interval lies below all others; None when it overlaps one, or has no rival."""
    contestants = [(draft.bounds, index) for index, draft in enumerate(drafts) if draft.bounds is not None]
    if len(contestants) < 2:
        return None
    contestants.sort(key=lambda contestant: contestant[0][1])
    (_, high), best = contestants[0]
    return best if all(low > high for (low, _), index in contestants if index != best) else None


def table(
    title: str,
    columns: Sequence[Column],
    drafts: Sequence[Sequence[Draft]],
    contest: Literal["columns", "rows"] = "columns",
) -> Table:
    """Finish a table whose drafts are given by column; the best is sought in each column, or in each row.

    A column after the first that says nothing in any row is left out.
    """
    kept = [index for index, column in enumerate(drafts) if not index or any(cell.says_something for cell in column)]
    by_column = [drafts[index] for index in kept]
    by_row = _transposed(by_column)
    best = [_crowned(line) for line in by_row] if contest == "rows" else _transposed(list(map(_crowned, by_column)))
    footnotes: dict[str, str] = {}
    rows = tuple(
        tuple(
            Cell(text=draft.text, mark=_marks(draft.footnotes, footnotes), best=crowned)
            for draft, crowned in zip(line, crowns, strict=True)
        )
        for line, crowns in zip(by_row, best, strict=True)
    )
    return Table(
        title=title,
        columns=tuple(columns[index] for index in kept),
        rows=rows,
        footnotes=tuple((mark, text) for text, mark in footnotes.items()),
    )


def _crowned(contestants: Sequence[Draft]) -> list[bool]:
    best = winner(contestants)
    return [index == best for index in range(len(contestants))]


def _transposed(grid: Sequence[Sequence[T]]) -> list[Sequence[T]]:
    return list(zip(*grid, strict=True))


def _marks(texts: Sequence[str], known: dict[str, str]) -> str:
    """The marks of some footnotes; new ones get the next number."""
    for text in texts:
        known.setdefault(text, str(len(known) + 1).translate(_SUPERSCRIPTS))
    return " ".join(known[text] for text in texts)
