"""What tools that watch benchmarks over time take: one run, each of its numbers under a name that never changes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from opbench.errors import OpbenchError
from opbench.plain import one_line
from opbench.report import keys
from opbench.report.columns import READINGS
from opbench.report.model import Section, View
from opbench.report.rows import Row
from opbench.results import Record

NAME_LIMIT = 1000
"""Bencher takes names of up to 1024 characters."""
_DIGEST_LENGTH = 12


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A latency to be watched."""

    name: str
    """'involution/cuda/8x64x56x56/float32/layer/forward (cold cache, 1 thread, cpu, eager)'"""
    group: str
    """What must be equal for two of them to be divided, in words."""
    row: Row


@dataclass(frozen=True, kw_only=True)
class Sized:
    """What a record takes of memory."""

    name: str
    """Without a policy, for memory does not depend on it."""
    bytes: dict[str, int]
    """By what is read: 'forward peak', 'saved for backward', 'backward peak'."""


def only_section(view: View, form: str) -> Section:
    """The one run that a file of these formats can hold.

    Raises:
        OpbenchError: there are several.
    """
    if len(view.sections) != 1:
        raise OpbenchError(f"--format {form} holds one run; write a file for each DIR")
    return view.sections[0]


def timed(section: Section, form: str) -> list[Timed]:
    """All latencies of a run.

    Raises:
        OpbenchError: there is none.
    """
    rows = [row for row in section.rows if row.latency is not None]
    if not rows:
        raise OpbenchError(f"--format {form} has nothing to hold: nothing was timed in {section.run.directory}")
    names = _names([(f"{_path(row.record)} ({row.policy})", f"{row.record.key} {row.policy}") for row in rows])
    return [
        Timed(name=name, group=keys.title(keys.COMPARABLE, keys.values(row, keys.COMPARABLE)), row=row)
        for name, row in zip(names, rows, strict=True)
    ]


def sized(section: Section) -> list[Sized]:
    """The memory of all records of a run, from the most exact source that each has."""
    rows = [row for row in {row.record.key: row for row in section.rows}.values() if row.memory() is not None]
    names = _names([(_path(row.record), str(row.record.key)) for row in rows])
    return [Sized(name=name, bytes=_bytes(row)) for name, row in zip(names, rows, strict=True)]


def _bytes(row: Row) -> dict[str, int]:
    memory = row.memory()
    read = {each.title: each.read(memory) for each in READINGS} if memory else {}
    return {title: number for title, number in read.items() if number is not None}


def _path(record: Record) -> str:
    """The implementation, which a case's id leaves open, after the name that it begins with."""
    name = record.case.name
    return f"{name}/{record.implementation}{record.case.id.removeprefix(name)}"


def _names(told: Sequence[tuple[str, str]]) -> list[str]:
    """(name, identity) to unique names of one line, with a digest of the identity where a name cannot stay as it is."""
    lines = [one_line(name)[:NAME_LIMIT] for name, _ in told]
    taken = Counter(lines)
    return [
        line if line == name and taken[line] == 1 else f"{line[: NAME_LIMIT - _DIGEST_LENGTH - 1]} {_digest(identity)}"
        for line, (name, identity) in zip(lines, told, strict=True)
    ]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:_DIGEST_LENGTH]
