"""A run on disk: `run.json` says what was asked and where, `records.jsonl` grows by one line per record.

A line is written with one call and flushed to the disk, so a killed run loses at most the case in flight; a torn
last line is recognised, left out, and cut off before a resumed run appends.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from opbench.cases import Case
from opbench.environment import Environment
from opbench.errors import MachineError, RunError, said, short
from opbench.locking import locked
from opbench.plain import finite_json
from opbench.results import SCHEMA_VERSION, Record
from opbench.settings import Measure, Metric, Report

HEADER_FILE = "run.json"
RECORDS_FILE = "records.jsonl"
RECORDS_GLOB = "records*.jsonl"
LOCK_FILE = ".lock"


@dataclass(frozen=True, kw_only=True)
class Header:
    """What was asked, of which machine."""

    title: str
    question: str
    suite_path: str
    suite_text: str
    overrides: tuple[str, ...]
    operator_paths: tuple[str, ...]
    metrics: tuple[Metric, ...]
    measure: Measure
    report: Report
    environment: Environment
    plan: tuple[tuple[Case, str], ...]
    """(case, implementation) of every record the run will have, in order."""
    schema: int = SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as read from disk."""

    directory: Path
    header: Header
    records: tuple[Record, ...]
    """In the planned order; of two records of one case the later."""
    warnings: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[tuple[Case, str], ...]:
        """What was planned and has no record yet."""
        done = {record.key for record in self.records}
        return tuple((case, name) for case, name in self.header.plan if (case.id, name) not in done)


_HEADER: TypeAdapter[Header] = TypeAdapter(Header)


def refuse_taken(directory: Path) -> None:
    """Raise where a run cannot begin.

    Raises:
        RunError: the directory holds a run already, or records of one, or cannot be looked into.
    """
    with _clear_words(directory):
        begun, recorded = (directory / HEADER_FILE).exists(), any(directory.glob(RECORDS_GLOB))
    if begun:
        raise RunError(f"{directory} already holds a run; finish it with --resume {directory}, or choose another --out")
    if recorded:
        raise RunError(f"{directory} holds records but no {HEADER_FILE}; choose another --out")


def create(directory: Path, header: Header, records: Iterable[Record] = ()) -> None:
    """Begin a run in a directory that holds none, with the records that are known beforehand.

    Raises:
        RunError: the directory already holds a run or cannot be written.
    """
    refuse_taken(directory)
    lines = "".join(record.to_json() + "\n" for record in records).encode()
    with _clear_words(directory):
        directory.mkdir(parents=True, exist_ok=True)
        # The header comes last: where there is one, the run lacks nothing that it was begun with.
        if lines:
            _write_whole(directory / RECORDS_FILE, lines)
        _write_whole(directory / HEADER_FILE, _HEADER.dump_json(header, indent=2) + b"\n")


def append(directory: Path, record: Record) -> None:
    """Add a record: one write, flushed to the disk.

    Raises:
        MachineError: the disk is full or read-only; what was written before stays.
    """
    line = record.to_json().encode() + b"\n"
    try:
        descriptor = os.open(directory / RECORDS_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            written = os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise MachineError(f"cannot write {directory / RECORDS_FILE}: {error.strerror}") from error
    if written < len(line):
        raise MachineError(f"cannot write {directory / RECORDS_FILE}: the disk is full")


def read(directory: Path) -> Run:
    """Read a run.

    Raises:
        RunError: there is no run, it was written by another version, or a line other than the last is damaged.
    """
    header = _read_header(directory / HEADER_FILE)
    records: dict[tuple[str, str], Record] = {}
    warnings = []
    for path in sorted(directory.glob(RECORDS_GLOB)):
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError as error:
            raise RunError(f"cannot read {path}: {error.strerror}") from error
        torn = lines.pop()
        if torn:
            warnings.append(f"{path}: the last line is torn and left out: its case was in flight when the run ended")
        for number, line in enumerate(lines, start=1):
            try:
                record = Record.from_json(line.decode())
            except (ValueError, RecursionError) as error:
                raise RunError(f"{path}:{number}: damaged record: {_fault(error)}") from error
            records[record.key] = record
    order = {(case.id, name): index for index, (case, name) in enumerate(header.plan)}
    ordered = sorted(records.values(), key=lambda record: order.get(record.key, len(order)))
    return Run(directory=directory, header=header, records=tuple(ordered), warnings=tuple(warnings))


def cut_torn_line(directory: Path) -> None:
    """Remove what a killed run left after its last complete line."""
    path = directory / RECORDS_FILE
    if path.exists():
        complete = path.read_bytes().rfind(b"\n") + 1
        os.truncate(path, complete)


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold a run's directory, so that two processes never append to one run.

    Raises:
        RunError: another process holds it, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        with _clear_words(directory):
            directory.mkdir(parents=True, exist_ok=True)
            alone = stack.enter_context(locked(directory / LOCK_FILE))
        if not alone:
            raise RunError(f"{directory} is in use by another opbench run")
        yield


@contextlib.contextmanager
def _clear_words(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write {directory}: {error.strerror}") from error


def _read_header(path: Path) -> Header:
    try:
        data = finite_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(f"{path.parent} holds no run: there is no {HEADER_FILE}") from error
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: {said(error)}") from error
    found = data.get("schema") if isinstance(data, dict) else None
    if found != SCHEMA_VERSION:
        newer = isinstance(found, int) and found > SCHEMA_VERSION
        hint = "; a later opbench wrote it, so update this one" if newer else ""
        raise RunError(f"{path}: schema {found}, but this opbench reads schema {SCHEMA_VERSION}{hint}")
    try:
        # JSON has no tuples, so the strict models read it as JSON, not as Python values.
        return _HEADER.validate_json(json.dumps(data))
    except ValidationError as error:
        raise RunError(f"{path}: {_fault(error)}") from error


def _fault(error: Exception) -> str:
    """The first thing that is wrong, and where."""
    if not isinstance(error, ValidationError):
        return said(error)
    fault = error.errors(include_url=False)[0]
    return short(": ".join(filter(None, [".".join(map(str, fault["loc"])), fault["msg"]])))


def _write_whole(path: Path, content: bytes) -> None:
    """Write beside and rename, so that nobody ever sees half a file."""
    beside = path.with_name(path.name + ".part")
    beside.write_bytes(content)
    beside.replace(path)
