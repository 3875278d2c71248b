"""`--set KEY=VALUE`: a value put into a suite from the command line, checked like one from the file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from opbench.suite.document import UNREADABLE, Document, place
from opbench.suite.faults import Fault, KeyPath, Origin, quoted


def override(document: Document, assignments: Sequence[str]) -> None:
    """Put the values of 'measure.processes=1', 'cases.0.shape=1x16x8x8' or 'cases[0].shape=…' into a document."""
    for number, assignment in enumerate(assignments):
        origin = Origin.flag(assignment, number)
        key, equals, text = assignment.partition("=")
        steps = re.sub(r"\[(\d+)\]", r".\1", key.strip()).split(".")
        if not equals or "" in steps:
            what = "write KEY=VALUE, as in --set measure.processes=1"
            document.faults.append(Fault(origin, (), what))
        else:
            _put(document, steps, text, origin)


def _put(document: Document, steps: list[str], text: str, origin: Origin) -> None:
    container = document.root
    path: KeyPath = ()
    for step in steps[:-1]:
        key = _key(document, container, path, step, origin)
        if key is None:
            return
        path = (*path, key)
        if isinstance(container, dict) and key not in container:
            container[key] = {}
            document.origins[path] = document.key_origins[path] = origin
        container = container[key]
    key = _key(document, container, path, steps[-1], origin)
    if key is None:
        return
    path = (*path, key)
    _forget(document, path)
    value = place(document, path, text, lambda line, column: origin)
    document.origins.setdefault(path, origin)
    document.key_origins[path] = origin
    container[key] = value


def _key(document: Document, container: Any, path: KeyPath, step: str, origin: Origin) -> str | int | None:
    """The step as a key of the container, or None and a fault noted."""
    if isinstance(container, dict):
        return step
    if isinstance(container, list) and step.isdecimal() and int(step) < len(container):
        return int(step)
    if isinstance(container, list):
        what = f"no item {step!r}; there are {len(container)}, counted from 0"
    elif container is UNREADABLE:
        return None
    else:
        what = f"has no {step!r}: it is {quoted(container)}"
    document.faults.append(Fault(origin, path, what))
    return None


def _forget(document: Document, path: KeyPath) -> None:
    """Drop the origins and the faults of the value about to be replaced."""
    for origins in (document.origins, document.key_origins):
        for inner in [inner for inner in origins if inner[: len(path)] == path]:
            del origins[inner]
    document.faults = [fault for fault in document.faults if fault.path[: len(path)] != path]
