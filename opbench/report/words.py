"""How a record ended and under what conditions, in words."""

from __future__ import annotations

from collections.abc import Sequence

from opbench import units
from opbench.plain import plain
from opbench.results import Failed, Measured, Outcome, Record, Skipped, Wrong

NONE = "–"
"""There could be a value, but there is none; the notes say why."""
NOT_APPLICABLE = "n/a"
"""There is no such quantity, as with saved bytes in a forward pass."""

REASON_LIMIT = 100
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_FAILURES = {"failed": "failed", "out_of_memory": "out of memory", "timed_out": "timed out", "crashed": "crashed"}

FLAGS = {
    "noisy": "other programs used the machine meanwhile; the times may be too long",
    "unstable": "the samples drifted, so that the median depends on when it was taken",
    "imprecise": "sampling ended at its limit, before the interval was as narrow as asked",
    "nondeterministic": "two identical calls gave different bits",
    "throttled": "the GPU lowered its clock again and again; the times may be too long",
    "unheld": "the call waits for the GPU or overfills its queue; the times may include what the host takes",
    "host-bound": "launching a call takes the host longer than the GPU takes to run it, so a caller waits for the host",
}
"""What the reservations of a measured record mean."""

DOUBTFUL_TIME = frozenset({"noisy", "unstable", "throttled"})
"""Flags under which an interval cannot be trusted, so that no time is called the best."""


def outcome_in_words(outcome: Outcome, limit: int | None = REASON_LIMIT) -> str:
    """'skipped: no CUDA device', 'wrong: …', 'out of memory: …'; for a measured record its flags, mostly none."""
    match outcome:
        case Measured():
            return ", ".join(plain(flag) for flag in outcome.flags)
        case Wrong():
            return f"wrong: {plain(_fault(outcome), limit)}"
        case Skipped():
            return f"skipped: {_said(outcome.reason, limit)}"
        case Failed():
            return f"{_FAILURES[outcome.status]}: {_said(outcome.reason, limit)}"


def status_in_words(record: Record) -> str:
    """'measured', 'out of memory', …"""
    return _FAILURES.get(record.status, record.status)


def several(number: int, noun: str) -> str:
    """'1 run', '3 runs'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(words: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def superscript(number: int) -> str:
    """The mark of a footnote: 12 -> '¹²'."""
    return str(number).translate(_SUPERSCRIPTS)


def setting(text: str) -> str:
    """A name from the data format as a reader would write it: 'channels_last' -> 'channels last'."""
    return text.replace("_", " ")


def _said(reason: str, limit: int | None) -> str:
    return plain(reason, limit) or "no reason given"


def _fault(outcome: Wrong) -> str:
    if outcome.error is None:
        return f"{outcome.quantity} cannot be compared: {outcome.where}"
    error, budget = units.scientific(outcome.error), units.scientific(outcome.budget)
    return f"{outcome.quantity} off by {error} (budget {budget}) at {outcome.where}"
