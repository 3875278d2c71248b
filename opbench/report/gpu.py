"""What the times on a GPU tell besides the latency: launching, waiting, and what was dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from opbench import units
from opbench.measure.statistics import middle_of
from opbench.plain import plain
from opbench.report.columns import NAME_LIMIT
from opbench.report.rows import Row
from opbench.results import Timing

_DESPITE = {
    "not held": "the stream could not be held, so the latency may include what the host takes",
    "throttled": "the clock stayed lowered",
    "compiled": "every block compiled something",
}


def gpu_lines(rows: Iterable[Row]) -> tuple[str, ...]:
    """A line for every latency taken on a GPU."""
    return tuple(
        f"{plain(row.record.name, NAME_LIMIT)} ({plain(row.record.case.id)}; {row.policy}): {'; '.join(said)}"
        for row in rows
        if row.policy and row.timing and row.policy.device == "cuda" and (said := list(_facts(row.timing)))
    )


def _facts(timing: Timing) -> Iterator[str]:
    """'a caller waits 30.0 µs', 'launching takes 12.0 µs', 'dropped of 150 samples: 50 as throttled', …"""
    processes = timing.processes
    waited = middle_of([process.call_seconds for process in processes])
    launching = middle_of([process.host_seconds for process in processes])
    clock = middle_of([[process.sm_clock_hz] for process in processes if process.sm_clock_hz])
    if waited is not None:
        yield f"a caller waits {units.seconds(waited)}"
    if launching is not None:
        yield f"launching takes {units.seconds(launching)}"
    if clock is not None:
        yield f"SM clock {clock / 1e6:.0f} MHz"
    dropped: Counter[str] = Counter()
    for process in processes:
        dropped.update(process.voided)
    if dropped:
        taken = sum(len(process.seconds) for process in processes) + dropped.total()
        causes = ", ".join(f"{number} as {cause}" for cause, number in dropped.items())
        yield f"dropped of {taken} samples: {causes}"
    yield from dict.fromkeys(_DESPITE.get(cause, cause) for process in processes for cause in process.despite)
    yield from dict.fromkeys(plain(process.note) for process in processes if process.note)
