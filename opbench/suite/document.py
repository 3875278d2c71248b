"""A suite file as plain values, each with the place where it is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.scanner import Scanner

from opbench.errors import SuiteError
from opbench.suite.faults import Fault, KeyPath, Origin
from opbench.suite.scalars import CoreResolver, scalar

LARGEST_FILE_BYTES = 256 * 1024
DEEPEST = 20
"""Levels of nesting; a suite needs six."""
MOST_VALUES = 100_000
"""Values a file may hold once its aliases are written out."""
UNREADABLE = object()
"""Stands where a value was written that could not be read, and is a fault already."""


@dataclass
class Document:
    """The values of a suite, with their origins, and the faults found in them so far."""

    file: Path
    text: str
    root: Any = None
    origins: dict[KeyPath, Origin] = field(default_factory=dict)
    """Where each value begins."""
    key_origins: dict[KeyPath, Origin] = field(default_factory=dict)
    """Where each mapping's keys begin."""
    faults: list[Fault] = field(default_factory=list)

    def get(self, path: KeyPath) -> Any:
        """Return the value at a path, None where there is none."""
        value = self.root
        for key in path:
            if not _has(value, key):
                return None
            value = value[key]
        return value

    def existing(self, path: KeyPath) -> KeyPath:
        """Return the longest beginning of a path that leads to a value."""
        value, length = self.root, 0
        while length < len(path) and _has(value, path[length]):
            value, length = value[path[length]], length + 1
        return path[:length]

    def origin(self, path: KeyPath) -> Origin:
        """Return where a value is written, or else the nearest value around it."""
        return self.origins[self.existing(path)]

    def fault(self, path: KeyPath, what: str) -> None:
        """Note a fault of a value; one beyond what is written is a fault of the nearest value around it."""
        self.faults.append(Fault(self.origin(path), self.existing(path), what))

    def key_fault(self, path: KeyPath, what: str) -> None:
        """Note a fault of a key, at the key, under the path of the mapping it is in."""
        self.faults.append(Fault(self.key_origins.get(path) or self.origin(path), path[:-1], what))

    def faulty(self, path: KeyPath) -> bool:
        """Whether a fault lies in the value at a path."""
        return any(fault.path[: len(path)] == path for fault in self.faults)

    def check(self) -> None:
        """Raise what was found.

        Raises:
            SuiteError: a line for each fault, in the order of the file, then of the flags.
        """
        if self.faults:
            ordered = sorted(self.faults, key=lambda fault: fault.origin.order)
            raise SuiteError("\n".join(dict.fromkeys(map(str, ordered))))


def read(file: Path) -> Document:
    """Read a suite file.

    Raises:
        SuiteError: there is no such file, or it is not YAML; everything else is noted as a fault.
    """
    document = Document(file, _text(file))
    document.root = place(document, (), document.text, lambda line, column: Origin.place(file, line, column))
    if not isinstance(document.root, dict):
        if document.root is not UNREADABLE:
            document.fault((), "a suite is a mapping of keys to values, as in 'version: 1'")
        document.check()
    return document


def place(document: Document, path: KeyPath, text: str, origin: Callable[[int, int], Origin]) -> Any:
    """Read YAML text as the value at a path, noting origins and faults; UNREADABLE when it is not YAML."""
    try:
        node = _Loader(text).get_single_node()
    except yaml.YAMLError as error:
        line, column, what = _explained(error, text)
        document.faults.append(Fault(origin(line, column), (), what))
        return UNREADABLE
    if node is None:
        document.origins[path] = origin(1, 1)
        return None
    return _Placing(document, origin).value(node, path)


class _TooDeep(yaml.MarkedYAMLError):
    """Correct YAML, but nested like no suite."""


class _Loader(Reader, Scanner, Parser, Composer, CoreResolver):
    """Composes nodes in Python: PyYAML's C composer recurses without a limit."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        CoreResolver.__init__(self)
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose one node and all in it."""
        if self.depth == DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise _TooDeep(None, None, f"more than {DEEPEST} levels of nesting", mark)
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


@dataclass
class _Placing:
    """Turns YAML nodes into plain values of one document."""

    document: Document
    origin: Callable[[int, int], Origin]
    values: int = 0
    around: list[yaml.Node] = field(default_factory=list)
    """The nodes that the current one is in."""

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self.document.origins[path] = self._origin(node)
        self.values += 1
        if self.values > MOST_VALUES:
            # Nothing after this can be trusted, and there may be billions.
            raise SuiteError(f"{self._origin(node).text}: its aliases write out to more than {MOST_VALUES} values")
        if any(node is outer for outer in self.around):
            return self._fault(node, path, "an alias cannot stand inside the value it repeats")
        self.around.append(node)
        try:
            match node:
                case yaml.MappingNode(tag="tag:yaml.org,2002:map"):
                    return self._mapping(node, path)
                case yaml.SequenceNode(tag="tag:yaml.org,2002:seq"):
                    return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
                case yaml.ScalarNode():
                    return scalar(node.tag, node.value)
                case _:
                    return self._fault(node, path, f"unknown tag {node.tag!r}; write plain values")
        except ValueError as error:
            return self._fault(node, path, str(error))
        finally:
            self.around.pop()

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if key_node.tag != "tag:yaml.org,2002:str":
                self._fault(key_node, path, "a key must be text" + (f", got {key}" if isinstance(key, str) else ""))
            elif key == "<<":
                self._fault(key_node, path, "merge keys are not part of YAML 1.2; write shared keys under 'defaults'")
            elif key in values:
                first = self.document.key_origins[(*path, key)].text
                self._fault(key_node, path, f"duplicate key {key!r}, first at {first}")
            else:
                self.document.key_origins[(*path, key)] = self._origin(key_node)
                values[key] = self.value(value_node, (*path, key))
        return values

    def _fault(self, node: yaml.Node, path: KeyPath, what: str) -> object:
        self.document.faults.append(Fault(self._origin(node), path, what))
        return UNREADABLE

    def _origin(self, node: yaml.Node) -> Origin:
        return self.origin(node.start_mark.line + 1, node.start_mark.column + 1)


def _text(file: Path) -> str:
    if not file.is_file():
        raise SuiteError(f"{file}: {'not a file' if file.exists() else 'no such file'}")
    try:
        with file.open("rb") as stream:
            data = stream.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise SuiteError(f"{file}: cannot be read: {error.strerror}") from error
    if len(data) > LARGEST_FILE_BYTES:
        raise SuiteError(f"{file}: larger than {LARGEST_FILE_BYTES // 1024} KiB; a suite spans cases with lists")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise SuiteError(f"{file}:{line}:{column}: not UTF-8: byte 0x{data[error.start]:02x}") from error


def _explained(error: yaml.YAMLError, text: str) -> tuple[int, int, str]:
    """Line, column and words for text that is not YAML."""
    if isinstance(error, ReaderError):
        before = text[: error.position]
        what = f"the character {chr(error.character)!r} is not allowed in YAML"
        return before.count("\n") + 1, error.position - before.rfind("\n"), what
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    words = [getattr(error, name, None) for name in ("context", "problem")]
    what = ": ".join(filter(None, words)) or str(error)
    if isinstance(error, _TooDeep):
        return line, column, what
    if "'\\t'" in what:
        return line, column, "not YAML: indent and separate with spaces, not with tabs"
    return line, column, f"not YAML: {what}"


def _has(value: Any, key: str | int) -> bool:
    if isinstance(value, dict):
        return key in value
    return isinstance(value, list) and isinstance(key, int) and key < len(value)
