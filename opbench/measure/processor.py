"""The processor as one process may use it: physical cores, and the cache that a cold measurement must exceed."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

from opbench.measure import cgroup

SYSTEM = Path("/sys/devices/system/cpu")
FALLBACK_CACHE_BYTES = 32 << 20
"""Last-level cache where the system does not describe it, as on some virtual machines: that of a common server."""

_SUFFIXES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Cache(NamedTuple):
    """One cache as Linux describes it."""

    level: int
    kind: str
    """'Data', 'Instruction' or 'Unified'."""
    bytes: int
    shared_by: str
    """The logical processors above it, '0-7,64-71'; what tells two caches apart."""


def name() -> str:
    """What the maker calls it; its architecture where the system does not say."""
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def physical_cores() -> int:
    """Physical cores this process may run on, within its affinity and its control group's quota; at least one."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    siblings = [_read(SYSTEM / f"cpu{processor}/topology/thread_siblings_list") for processor in sorted(allowed)]
    cores = len(set(siblings)) if all(siblings) else min(len(allowed), psutil.cpu_count(logical=False) or len(allowed))
    return within_quota(cores, cgroup.cpu_quota())


def within_quota(cores: int, quota: float | None) -> int:
    """Cores that a quota, in processors' worth of time, leaves fully usable; at least one."""
    return cores if quota is None else max(1, min(cores, math.floor(quota)))


def last_level_cache_bytes(threads: int = 1, system: Path = SYSTEM) -> int:
    """Bytes of last-level cache that so many threads can fill, or a stated fallback of 32 MiB.

    A processor made of several dies has a last-level cache on each; a thread fills that of its own die.
    """
    return last_level_bytes(_caches(system.glob("cpu[0-9]*")), threads) or FALLBACK_CACHE_BYTES


def caches_by_name(system: Path = SYSTEM) -> dict[str, int]:
    """Bytes of each cache of the first core: {'L1 data': 49152, 'L2': 1048576, …}; empty where not described."""
    names = {"Data": " data", "Instruction": " instruction"}
    caches = sorted(_caches([system / "cpu0"]))
    return {f"L{cache.level}{names.get(cache.kind, '')}": cache.bytes for cache in caches}


def last_level_bytes(caches: Iterable[Cache], threads: int) -> int:
    """Bytes of the largest last-level caches, one for each thread as far as there are so many; 0 for none."""
    holding_data = [cache for cache in caches if cache.kind != "Instruction" and cache.bytes]
    last = max((cache.level for cache in holding_data), default=0)
    sizes = sorted((cache.bytes for cache in holding_data if cache.level == last), reverse=True)
    return sum(sizes[:threads])


def _caches(cores: Iterable[Path]) -> set[Cache]:
    return {
        Cache(
            level=int(_read(index / "level") or 0),
            kind=_read(index / "type"),
            bytes=parse_bytes(_read(index / "size")),
            shared_by=_read(index / "shared_cpu_list"),
        )
        for core in cores
        for index in core.glob("cache/index[0-9]*")
    }


def parse_bytes(text: str) -> int:
    """'32768K' -> 33554432; 0 for what is not a size."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _SUFFIXES else (text, "")
    return int(number) * _SUFFIXES.get(unit, 1) if number.isdecimal() else 0


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
