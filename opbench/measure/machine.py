"""Whether the machine can measure now: who else uses its processors, and whether a case fits its memory."""

from __future__ import annotations

import re
from pathlib import Path

import psutil

from opbench import units
from opbench.measure import cgroup

PRESSURE = Path("/proc/pressure/cpu")
QUIET_PRESSURE = 0.05
"""Share of time in which some task may wait for a processor before the machine counts as contended."""

ALLOW = "to measure all the same, with the results flagged, pass --allow-noisy"
"""How to go on where something spoils a measurement."""


def noise(threads: int = 1) -> str | None:
    """Say what would spoil a measurement with so many threads now, and how to go on; None when nothing is known to."""
    return judge(cpu_pressure(), cgroup.cpu_quota(), threads)


def judge(pressure: float | None, quota: float | None, threads: int) -> str | None:
    """Decide whether a machine is contended, and say why; None for a quiet one.

    Args:
        pressure: share of the last ten seconds in which some task waited for a processor; None where not told.
        quota: processors' worth of time the control group allows; None without a limit.
        threads: most threads that will compute at once.
    """
    if quota is not None and quota < threads:
        needed = "1 thread needs" if threads == 1 else f"{threads} threads need"
        return (
            f"the control group allows {quota:g} processors and {needed} {threads}, so the kernel would pause them; "
            f"use fewer threads or raise the limit, or, {ALLOW}"
        )
    if pressure is not None and pressure >= QUIET_PRESSURE:
        waited = f"in {units.percent(pressure)} of the last ten seconds a task waited for a processor"
        return f"{waited}; stop what else is running, or, {ALLOW}"
    return None


def cpu_pressure(path: Path = PRESSURE) -> float | None:
    """Share of the last ten seconds in which some task waited for a processor; None where the kernel does not tell."""
    try:
        return parse_pressure(path.read_text())
    # A kernel booted with psi=0 has the file and refuses to read it.
    except OSError:
        return None


def stalled_seconds(path: Path = PRESSURE) -> float | None:
    """Time since the system started in which some task waited for a processor; None where the kernel does not tell."""
    try:
        return parse_stalled(path.read_text())
    except OSError:
        return None


def parse_stalled(text: str) -> float | None:
    """'some avg10=… total=1500000' -> 1.5; None when there is no such line."""
    found = re.search(r"^some .*\btotal=(\d+)\b", text, re.MULTILINE)
    return int(found[1]) / 1e6 if found else None


def parse_pressure(text: str) -> float | None:
    """'some avg10=2.50 avg60=…' -> 0.025; None when there is no such line."""
    found = re.search(r"^some avg10=(\d+(?:\.\d+)?)\b", text, re.MULTILINE)
    return float(found[1]) / 100 if found else None


def available_bytes() -> int:
    """Bytes a case may allocate before the machine swaps or a control group's limit kills the process."""
    limit = cgroup.free_memory_bytes()
    available: int = psutil.virtual_memory().available
    return available if limit is None else min(available, limit)
