"""What can go wrong, as one tree.

OpbenchError            printed without a traceback; exit status 2 unless a subclass says otherwise
├── SuiteError          a suite file asks for something that does not exist
├── PluginError         an operator folder breaks the plugin contract
├── RunError            a run directory cannot be read, written or resumed
├── Incomparable        two numbers were not taken under the same conditions; exit status 4
└── MachineError        the machine cannot measure now; exit status 6
Unsupported             not an error: an implementation or operator says which case it does not cover
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from opbench.plain import one_line

_LONGEST_REASON = 300


class OpbenchError(Exception):
    """Printed as one line after `opbench: `."""

    exit_status = 2


class SuiteError(OpbenchError):
    """A suite file, or an override of it, is not valid; the message has a line for each fault."""


class PluginError(OpbenchError):
    """An operator folder breaks the plugin contract."""


class RunError(OpbenchError):
    """A run directory cannot be read, written or resumed."""


class Incomparable(OpbenchError):  # noqa: N818 - it is a verdict, not an accident
    """Two numbers were not taken under the same conditions, so neither is faster or slower than the other."""

    exit_status = 4


class MachineError(OpbenchError):
    """The machine cannot take a measurement that deserves to be printed."""

    exit_status = 6


class Unsupported(Exception):  # noqa: N818 - it is an answer, not an error
    """Raised by a plugin for a case it does not cover; the message says why and is recorded as a skip."""


def said(error: BaseException) -> str:
    """Return the first line of what an error says, made harmless; '' where its own `__str__` fails."""
    try:
        lines = str(error).splitlines()
    except Exception:
        return ""
    return next(filter(None, map(short, lines)), "")


def short(line: str) -> str:
    """Return a line that any file and terminal can hold, and no longer than a reason should be."""
    line = one_line(line)
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 1] + "…"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?", or the words that exist when none is near."""
    choices = list(known)
    near = difflib.get_close_matches(word, choices, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are {', '.join(map(repr, choices))}" if choices else ""
