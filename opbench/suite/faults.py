"""What is wrong with a suite, and where it is written."""

from __future__ import annotations

import math
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]
"""Keys and list indices from the top of a suite down to a value."""


@dataclass(frozen=True)
class Origin:
    """Where a value is written: a place in the file, or a command line's flag."""

    text: str
    """'suite.yaml:3:5' or '--set measure.processes=1'."""
    order: tuple[int, int, int]
    """Places sort by line and column, flags after them by their number."""

    @classmethod
    def place(cls, file: object, line: int, column: int) -> Origin:
        """A line and column of the file, counted from one."""
        return cls(f"{file}:{line}:{column}", (0, line, column))

    @classmethod
    def flag(cls, assignment: str, number: int) -> Origin:
        """The flag that sets a value, by its place among the flags."""
        return cls(f"--set {assignment}", (1, number, 0))


@dataclass(frozen=True)
class Fault:
    """One thing wrong with one value."""

    origin: Origin
    path: KeyPath
    what: str

    def __str__(self) -> str:
        parts = (self.origin.text, path_text(self.path), self.what)
        return ": ".join(part for part in parts if part)


def path_text(path: KeyPath) -> str:
    """('cases', 2, 'params') -> 'cases[2].params'."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def quoted(value: object) -> str:
    """Show a value as a suite would write it, shortened."""
    match value:
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float() if not math.isfinite(value):
            return str(value).replace("inf", ".inf").replace("nan", ".nan")
        case str() if len(value) > 60:
            return repr(value[:57] + "...")
        case _:
            return repr(value)
