"""From drafts of cells to a table: crowns the best, numbers the footnotes, drops what says nothing."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from opbench.report.model import Cell, Column, Table
from opbench.report.words import NONE, NOT_APPLICABLE, superscript

T = TypeVar("T")

_UNKNOWN = (-math.inf, math.inf)


@dataclass(frozen=True)
class Draft:
    """A cell before it knows its neighbours."""

    text: str = NONE
    bounds: tuple[float, float] | None = None
    """Where the true value lies, if it takes part in the contest for the smallest."""
    footnotes: tuple[str, ...] = ()
    value: float | None = None
    """The number that the text shows, in SI units."""

    @classmethod
    def exact(cls, value: float, text: str, *footnotes: str) -> Draft:
        """A number without uncertainty."""
        return cls(text, (value, value), footnotes, value)

    @classmethod
    def at_least(cls, value: float, text: str, *footnotes: str) -> Draft:
        """A lower bound: it can lose a contest, but never win one."""
        return cls(f"≥ {text}", (value, math.inf), footnotes, value)

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
        return replace(self, bounds=None)

    def in_doubt(self) -> Draft:
        """The same cell with an interval that cannot be trusted: nobody wins against it, nor does it."""
        return replace(self, bounds=self.bounds and _UNKNOWN)


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
    heats: Sequence[Hashable] = (),
) -> Table:
    """Finish a table whose drafts are given by column; the best is sought in each column, or in each row.

    A column after the first that says nothing in any row is left out. With `heats`, a value for each row, the best of a
    column is sought among the rows of each heat.
    """
    kept = [index for index, column in enumerate(drafts) if not index or any(cell.says_something for cell in column)]
    by_column = [drafts[index] for index in kept]
    by_row = _transposed(by_column)
    if contest == "rows":
        best: list[Sequence[bool]] = [_crowned(line) for line in by_row]
    else:
        best = _transposed([_crowned_by_heat(column, heats or [None] * len(column)) for column in by_column])
    footnotes: dict[str, str] = {}
    rows = tuple(
        tuple(
            Cell(text=draft.text, mark=_marks(draft.footnotes, footnotes), best=crowned, value=draft.value)
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


def _crowned_by_heat(contestants: Sequence[Draft], heats: Sequence[Hashable]) -> list[bool]:
    places: dict[Hashable, list[int]] = {}
    for index, heat in enumerate(heats):
        places.setdefault(heat, []).append(index)
    crowned = {
        index
        for indices in places.values()
        for index, best in zip(indices, _crowned([contestants[index] for index in indices]), strict=True)
        if best
    }
    return [index in crowned for index in range(len(contestants))]


def _transposed(grid: Sequence[Sequence[T]]) -> list[Sequence[T]]:
    return list(zip(*grid, strict=True))


def _marks(texts: Sequence[str], known: dict[str, str]) -> str:
    """The marks of some footnotes; new ones get the next number."""
    for text in texts:
        known.setdefault(text, superscript(len(known) + 1))
    return " ".join(known[text] for text in texts)
