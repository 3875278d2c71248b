"""The view-model: all a format needs to print, as ready strings. Formats lay out and escape, and compute nothing."""

from __future__ import annotations

from dataclasses import dataclass

from opbench.report.matches import Match
from opbench.report.rows import Row
from opbench.settings import SortBy
from opbench.store import Run


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table."""

    key: str
    """Stable name, for formats that style some columns their own way: 'operator', 'latency', 'notes', …"""
    title: str
    numeric: bool
    rank: int
    """How soon a narrow page may leave the column out: the highest first, 0 never."""
    coordinate: bool = False
    """Whether it tells in which setting a row was measured."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One value with its unit, or in words why there is none."""

    text: str
    mark: str = ""
    """Superscript number of its footnotes, printed after the text."""
    best: bool = False
    """Whether it is certainly the smallest of its column, by its interval; a format may print it bold."""
    value: float | None = None
    """The number that the text shows, in SI units: what a page sorts by. None for words."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows that may be compared with each other, unless the reader grouped them otherwise."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    footnotes: tuple[tuple[str, str], ...] = ()
    """(mark, text)"""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A heading and some lines below the tables."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One run."""

    title: str
    question: str
    answer: str
    """One sentence, with numbers."""
    alerts: tuple[str, ...]
    """What a reader must know before the first number: missing records, damaged lines."""
    tables: tuple[Table, ...]
    blocks: tuple[Block, ...]
    run: Run
    rows: tuple[Row, ...]
    """The raw numbers, in the order they were measured."""
    baseline: str | None
    group_by: tuple[str, ...] = ()
    """Keys that the reader asked the tables to be grouped by; empty for rows that may be compared."""
    sort_by: SortBy = "suite"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Several runs side by side, before the section of each; reads like a `Section`, and stands at its level."""

    title: str
    question: str
    answer: str
    """One sentence, with numbers, for each run but the first."""
    alerts: tuple[str, ...]
    """What a reader must know before the first number: unfinished runs, counts that changed."""
    runs: Block
    """What the labels stand for, and what only one run has; printed before the tables, however little room there is."""
    tables: tuple[Table, ...]
    blocks: tuple[Block, ...]
    labels: tuple[str, ...]
    """What each run is called in the tables, in the order given; the first is the one divided by."""
    directories: tuple[str, ...]
    matches: tuple[Match, ...]
    """The raw numbers."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A whole report."""

    remarks: tuple[str, ...]
    """What holds for the report as a whole."""
    sections: tuple[Section, ...]
    command: str
    """The command line that makes the report again, but for its `--format`."""
    comparison: Comparison | None = None
    """What the runs have in common, side by side; None for a single run."""
