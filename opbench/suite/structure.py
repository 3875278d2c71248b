"""Holds a document to the models of the language, and says in the language's words what does not fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Set
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from opbench.errors import did_you_mean
from opbench.suite.document import UNREADABLE, Document
from opbench.suite.faults import KeyPath, quoted
from opbench.suite.schema import SuiteFile
from opbench.suite.wording import choices_at, is_known, keys_at, legal_at

_STAND_INS: dict[str, Any] = {"version": 1, "title": "?", "question": "?", "cases": ({},)}
"""For required keys that are missing or faulty, so that the rest can be checked all the same."""
_LISTS_OF_MAPPINGS = ("cases", "include", "exclude")


def validate(document: Document) -> SuiteFile:
    """Read a document; what does not fit is noted as a fault and left out, so that the rest can be checked."""
    try:
        return SuiteFile.model_validate(_without(document.root, (), set()))
    except ValidationError as error:
        faulty = _note(document, error.errors(include_url=False))
    return SuiteFile.model_validate(_STAND_INS | _without(document.root, (), faulty))


def _note(document: Document, errors: Iterable[ErrorDetails]) -> set[KeyPath]:
    """Note each faulty value once, however many members of a union refuse it; return their paths."""
    faulty: set[KeyPath] = set()
    for error in errors:
        path = document.existing(error["loc"])
        if error["type"] == "missing":
            document.fault(path, f"missing key {error['loc'][len(path)]!r}")
        elif error["type"] == "extra_forbidden":
            document.key_fault(path, f"unknown key {path[-1]!r}{did_you_mean(str(path[-1]), keys_at(path[:-1]))}")
            faulty.add(path)
        else:
            # A union's error ends in the name of its member, which may be a key of the value by chance.
            while not is_known(path):
                path = path[:-1]
            if path not in faulty and document.get(path) is not UNREADABLE:
                document.fault(path, _what(path, document.get(path), error))
            faulty.add(path)
    return faulty


def _what(path: KeyPath, value: object, error: ErrorDetails) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if isinstance(value, float) and not math.isfinite(value):
        return f"must be finite, got {quoted(value)}"
    return f"must be {legal_at(path)}, got {quoted(value)}{_hint(path, value)}"


def _hint(path: KeyPath, value: object) -> str:
    if isinstance(value, str):
        nearest = did_you_mean(value, choices_at(path))
        return nearest if "did you mean" in nearest else ""
    wants_text = legal_at(path).endswith("text") and isinstance(value, int | float)
    return "; quote it to make it text" if wants_text else ""


def _without(value: Any, path: KeyPath, faulty: Set[KeyPath]) -> Any:
    """Copy a value, lists as tuples, without the keys whose value is faulty."""
    if isinstance(value, dict):
        owners = {_owner(bad) for bad in faulty}
        kept = {key: item for key, item in value.items() if (*path, key) not in owners}
        return {key: _without(item, (*path, key), faulty) for key, item in kept.items()}
    if isinstance(value, list):
        # A faulty mapping among mappings is emptied, so that its neighbours keep their places.
        places = [(*path, index) for index in range(len(value))]
        return tuple(
            {} if place in faulty else _without(item, place, faulty) for place, item in zip(places, value, strict=True)
        )
    return value


def _owner(path: KeyPath) -> KeyPath:
    """The key to leave out for a faulty value: a list of plain values goes as a whole."""
    # A parameter may bear the name of a key.
    if isinstance(path[-1], int) and (path[-2] not in _LISTS_OF_MAPPINGS or "params" in path):
        return _owner(path[:-1])
    return path
