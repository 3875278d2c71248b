"""What rows can be grouped by: the coordinates of a case, the policy, and every parameter by its name."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from opbench.errors import OpbenchError, did_you_mean
from opbench.plain import plain
from opbench.report.rows import Row
from opbench.report.words import NONE, setting
from opbench.results import Record

_KEYS: Mapping[str, Callable[[Row], Hashable]] = {
    "operator": lambda row: row.record.case.operator,
    "implementation": lambda row: row.record.implementation,
    "scope": lambda row: row.record.case.scope,
    "network": lambda row: row.record.case.network,
    "pass": lambda row: row.record.case.pass_,
    "shape": lambda row: row.record.case.shape,
    "batch": lambda row: row.record.case.shape.batch,
    "channels": lambda row: row.record.case.shape.channels,
    "height": lambda row: row.record.case.shape.height,
    "width": lambda row: row.record.case.shape.width,
    "dtype": lambda row: row.record.case.dtype,
    "memory_format": lambda row: row.record.case.memory_format,
    "policy": lambda row: row.policy,
    "cache": lambda row: row.policy and row.policy.cache,
    "threads": lambda row: row.policy.threads if row.policy and row.policy.device == "cpu" else None,
    "device": lambda row: row.policy and row.policy.device,
    "launch": lambda row: row.policy and row.policy.launch,
    "params": lambda row: row.record.case.params_text,
}
NAMES = frozenset(_KEYS)

COMPARABLE = ("scope", "pass", "shape", "dtype", "memory_format", "policy")
"""What must be equal for two rows to be compared; by default a table has one value of each."""

POLICY = ("cache", "threads", "device", "launch")
"""What a policy is made of: where only some of it varies, the rest need not be said."""


def check_keys(keys: Iterable[str], records: Iterable[Record]) -> None:
    """Accept the names of keys, a parameter's name being one.

    Raises:
        OpbenchError: no record has such a key.
    """
    parameters = {name for record in records for name in (*record.case.params, *record.params)}
    known = [*_KEYS, *sorted(parameters - NAMES)]
    for key in keys:
        if key not in known:
            raise OpbenchError(f"cannot group by {key!r}{did_you_mean(key, known)}")


def value(row: Row, key: str) -> Hashable:
    """A row's value of a key; None where it has none."""
    return _KEYS[key](row) if key in _KEYS else row.params.get(key)


def values(row: Row, keys: Iterable[str]) -> tuple[Hashable, ...]:
    """A row's values of several keys."""
    return tuple(value(row, key) for key in keys)


def text(key: str, value: Hashable) -> str:
    """A value as a title shows it: 'forward', '8x64x56x56', 'batch 8', 'cold cache', 'kernel_size=7'."""
    if value is None or value == "":
        return NONE
    match key:
        case "batch" | "channels" | "height" | "width":
            return f"{key} {value}"
        case "cache":
            return f"{value} cache"
        case "threads":
            return "1 thread" if value == 1 else f"{value} threads"
        case _ if key in _KEYS:
            return setting(str(value)) if key == "memory_format" else plain(str(value))
        case _:
            return plain(f"{key}={value}")


def title(keys: Sequence[str], values: Sequence[Hashable]) -> str:
    """What the rows of a group share: 'layer, forward, 8x64x56x56, float32, contiguous, cold cache, …'."""
    texts = [text(key, value) for key, value in zip(keys, values, strict=True) if value is not None]
    return ", ".join(texts) or "all rows"


def grouped(rows: Iterable[Row], keys: Sequence[str]) -> dict[tuple[Hashable, ...], list[Row]]:
    """Put rows with the same values of all keys together; groups and rows keep the order of first appearance."""
    groups: dict[tuple[Hashable, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(values(row, keys), []).append(row)
    return groups


def distinct(rows: Iterable[Row], key: str) -> list[Hashable]:
    """The values a key takes, in order of first appearance."""
    return list(dict.fromkeys(value(row, key) for row in rows))
