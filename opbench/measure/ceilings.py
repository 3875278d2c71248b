"""What a device can do at best, measured: the lines of a roofline. Data sheets are never asked.

Measured once for a device, its driver and the software, then kept in a file of the user's cache until one of them
changes.
"""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pydantic import TypeAdapter, ValidationError

from opbench.measure import nvml, processor
from opbench.measure.statistics import half_width

PROTOCOL = 2
"""Counts the ways of measuring: ceilings measured another way are not comparable, so they are measured anew."""


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """The middle of several repetitions, with its 95 % interval, in SI."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """The best a device did; what it cannot do, or has not, is absent."""

    device: str
    """'cpu' or 'cuda'."""
    threads: int = 1
    """Of the CPU; 1 on a GPU, whose threads only launch."""
    identity: Mapping[str, str]
    """What they depend on: device, driver, versions."""
    captured: str
    """UTC, ISO 8601."""
    bytes_per_second: Ceiling
    """Copying: bytes read plus bytes written."""
    macs_per_second: Mapping[str, Ceiling]
    """Square matrix products of random values, by 'float32' (strict), 'tf32', 'float16', 'bfloat16'.

    On a CPU a 3x3 convolution where that is faster: matrix products come from another library there, which does not use
    the widest vectors of every processor.
    """
    empty_call_seconds: Ceiling | None = None
    """Duration of a kernel that does nothing, as events see it."""
    launch_interval_seconds: Ceiling | None = None
    """Time from one such kernel to the next, where they wait for the device and not for the host."""
    event_resolution_seconds: float | None = None
    """Smallest step that events have shown."""
    last_level_cache_bytes: int
    remark: str | None = None
    """What was not as it should be meanwhile: somebody else on the device, a clock that was lowered."""

    @property
    def name(self) -> str:
        """The device in words."""
        return self.identity["device"]


_CEILINGS: TypeAdapter[Ceilings] = TypeAdapter(Ceilings)


def load(device: str, threads: int = 1) -> Ceilings | None:
    """Return the ceilings of 'cpu' or 'cuda' that an earlier run kept, if one did.

    Meant for a child process, since asking a GPU who it is may initialise CUDA.
    """
    known = identity(device, threads)
    return kept(_path(known), known)


def load_or_measure(device: str, threads: int = 1) -> Ceilings:
    """Return the ceilings of 'cpu' or 'cuda': kept from an earlier run, or measured now, in some ten seconds.

    Meant for a child process, since measuring initialises CUDA or starts threads; `opbench.probing.ceilings` calls it
    in one. Ceilings with a remark are given but not kept.
    """
    from opbench.measure import limits

    known = identity(device, threads)
    found = kept(_path(known), known)
    if found is None:
        found = limits.measure(device, threads, known)
        if found.remark is None:
            keep(_path(known), found)
    return found


def _path(identity: Mapping[str, str]) -> Path:
    from opbench.cuda import cache

    return cache.folder() / "ceilings" / file_name(identity)


def fold(values: Sequence[float], step: float = 0.0) -> Ceiling:
    """The median of two or more repetitions, with its interval from batch means.

    Args:
        values: all above 0.
        step: of the clock, which is the interval where it shows the same value each time.
    """
    middle = median(values)
    half = half_width(values) if min(values) < max(values) else step / middle
    return Ceiling(value=middle, low=middle * math.exp(-half), high=middle * math.exp(half))


def identity(device: str, threads: int = 1) -> dict[str, str]:
    """Say what ceilings depend on. Initialises CUDA where nothing else knows the GPU: for child processes only."""
    import torch

    software = {"torch": torch.__version__, "cuda": str(torch.version.cuda), "protocol": str(PROTOCOL)}
    if device == "cpu":
        capability = torch.backends.cpu.get_cpu_capability()
        name = f"{processor.name()}, {threads} {'thread' if threads == 1 else 'threads'}"
        return {"device": name, "capability": capability, "host": platform.node(), **software}
    state = nvml.readings()
    if state is None:
        properties = torch.cuda.get_device_properties()
        name, uuid, watts = properties.name, f"GPU-{properties.uuid}", None
    else:
        name, uuid, watts = state.name, state.uuid, state.power_limit_watts
    limit = "unknown" if watts is None else f"{watts:.0f} W"
    driver = nvml.driver_version() or "unknown"
    return {"device": name, "uuid": uuid, "driver": driver, "power limit": limit, **software}


def file_name(identity: Mapping[str, str]) -> str:
    """One file for each device: 'NVIDIA-H200-GPU-1b2c….json'."""
    words = f"{identity['device']} {identity.get('uuid') or identity['host']}"
    return re.sub(r"\W+", "-", words, flags=re.ASCII).strip("-") + ".json"


def kept(path: Path, identity: Mapping[str, str]) -> Ceilings | None:
    """Read what was kept; None where there is nothing, or nothing readable, or it was measured under other conditions.

    Without this identity a driver's update would divide today's times by yesterday's ceilings.
    """
    try:
        found = _CEILINGS.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return found if dict(found.identity) == dict(identity) else None


def keep(path: Path, ceilings: Ceilings) -> None:
    """Write them whole or not at all; where the cache cannot be written, the next run measures again."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.{platform.node()}.part")
        beside.write_bytes(_CEILINGS.dump_json(ceilings, indent=2))
        beside.replace(path)


def l2_bytes(index: int = 0) -> int:
    """Bytes of a GPU's L2 cache. Initialises CUDA: for child processes only."""
    import torch

    size: int = torch.cuda.get_device_properties(index).L2_cache_size
    return size
