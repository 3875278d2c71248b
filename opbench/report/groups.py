"""Which rows make a table, and in what order."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace

from opbench.report import keys
from opbench.report.rows import Row
from opbench.results import Policy
from opbench.settings import SortBy


def spread(rows: Sequence[Row]) -> list[Row]:
    """Repeat what was never timed under each policy of its setting, so that every table says what it lacks."""
    setting = [key for key in keys.COMPARABLE if key != "policy"]
    policies: dict[tuple[Hashable, ...], list[Policy | None]] = {
        values: list(dict.fromkeys(row.policy for row in group if row.policy))
        for values, group in keys.grouped(rows, setting).items()
    }
    return [
        replace(row, policy=policy)
        for row in rows
        for policy in ([row.policy] if row.policy else policies[keys.values(row, setting)] or [None])
    ]


def ordered(rows: Iterable[Row], sort_by: SortBy) -> list[Row]:
    """Sort rows, the least first; those without the quantity come last, and equals keep their order."""
    if sort_by == "suite":
        return list(rows)
    if sort_by == "name":
        return sorted(rows, key=lambda row: row.record.name)
    quantity = _QUANTITIES[sort_by]
    return sorted(rows, key=lambda row: math.inf if (number := quantity(row)) is None else number)


def _parameters(row: Row) -> float | None:
    return row.record.counts.parameters if row.record.counts else None


def _macs(row: Row) -> float | None:
    return row.record.counts.macs_dense if row.record.counts else None


def _latency(row: Row) -> float | None:
    return row.latency.median if row.latency else None


def peak_bytes(row: Row, source: str | None = None) -> int | None:
    """The higher of the two phases' peaks, each on top of what it found, as one source or the most exact one saw it."""
    memory = row.memory(source)
    if memory is None:
        return None
    return max(memory.forward_peak_bytes, (memory.saved_bytes or 0) + (memory.backward_peak_bytes or 0))


_QUANTITIES: Mapping[str, Callable[[Row], float | None]] = {
    "parameters": _parameters,
    "macs": _macs,
    "latency": _latency,
    "memory": peak_bytes,
}
