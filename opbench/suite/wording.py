"""What may stand at a path of a suite, in words, read from the JSON Schema: pydantic's messages speak of Python."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from opbench.suite.faults import KeyPath, quoted
from opbench.suite.schema import schema

_TYPES = {
    "string": ("text",),
    "boolean": ("true", "false"),
    "null": ("null",),
    "object": ("a mapping",),
    "array": ("a list",),
    "integer": ("integer",),
    "number": ("number",),
}
_LIMITS = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))


def is_known(path: KeyPath) -> bool:
    """Whether the language has a value at a path."""
    return bool(_nodes(path))


def keys_at(path: KeyPath) -> list[str]:
    """Return the keys that the mapping at a path may have."""
    return [key for node in _nodes(path) for key in node.get("properties", ())]


def choices_at(path: KeyPath) -> list[str]:
    """Return the words that are legal at a path, where they can be counted."""
    return [choice for node in _nodes(path) for choice in _choices(node) if isinstance(choice, str)]


def legal_at(path: KeyPath) -> str:
    """Say what the value at a path may be: "'core' or 'layer'", 'integer ≥ 1'."""
    words = [word for node in _nodes(path) for word in _words(node)]
    # A list is legal wherever one value is; it is worth a word only where nothing else is.
    return _joined([word for word in words if word != "a list"] or words)


def _nodes(path: KeyPath) -> list[dict[str, Any]]:
    """The schemas of which the value at a path may obey any."""
    nodes = _alternatives(_schema())
    for key in path:
        nodes = [inner for node in nodes for inner in _inner(node, key)]
    return nodes


def _inner(node: dict[str, Any], key: str | int) -> list[dict[str, Any]]:
    below = node.get("items") if isinstance(key, int) else node.get("properties", {}).get(key)
    if below is None and isinstance(key, str):
        below = node.get("additionalProperties")
    return _alternatives(below) if isinstance(below, dict) else []


def _alternatives(node: dict[str, Any]) -> list[dict[str, Any]]:
    if "$ref" in node:
        return _alternatives(_schema()["$defs"][node["$ref"].rpartition("/")[2]])
    if "anyOf" in node:
        return [inner for option in node["anyOf"] for inner in _alternatives(option)]
    return [node]


def _choices(node: dict[str, Any]) -> list[Any]:
    return [node["const"]] if "const" in node else node.get("enum", [])


def _words(node: dict[str, Any]) -> list[str]:
    if choices := _choices(node):
        return [quoted(choice) for choice in choices]
    types = node["type"] if isinstance(node["type"], list) else [node["type"]]
    limits = " and ".join(f"{sign} {node[key]:g}" for key, sign in _LIMITS if key in node)
    words = [word for name in types for word in _TYPES[name]]
    if node.get("minLength"):
        words = [f"non-empty {word}" for word in words]
    return [f"{word} {limits}".strip() for word in words]


def _joined(words: Iterable[str]) -> str:
    *most, last = dict.fromkeys(words)
    return f"{', '.join(most)} or {last}" if most else last


@functools.cache
def _schema() -> dict[str, Any]:
    return schema()
