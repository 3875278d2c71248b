"""What a device can do at best, measured: the lines of a roofline. Data sheets are never asked.

Measured once per device, driver and software, then kept in a file of the user's cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """The middle of several repetitions, with its 95 % interval, in SI."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """The best a device did."""

    device: str
    """Its name, and what tells it from another of the same kind: 'NVIDIA H200 GPU-…', or the processor's name."""
    captured: str
    """UTC, ISO 8601."""
    bytes_per_second: Ceiling
    """Copying: bytes read plus bytes written."""
    macs_per_second: Mapping[str, Ceiling]
    """Square matrix products of random data, by 'float32' (strict), 'tf32', 'float16', 'bfloat16'."""
    empty_call_seconds: Ceiling | None = None
    """Duration of a kernel that does nothing, as events see it; None on a CPU."""
    launch_interval_seconds: Ceiling | None = None
    """Time between the starts of such kernels, launched one after the other; None on a CPU."""
    event_resolution_seconds: float | None = None
    """Smallest step that CUDA events have shown; None on a CPU."""
    last_level_cache_bytes: int = 0
    """L2 of a GPU."""
    identity: Mapping[str, str] = field(default_factory=dict)
    """What they depend on, versions and driver included; with another identity they are measured anew."""


def l2_bytes(index: int = 0) -> int:
    """Bytes of a GPU's L2 cache. Initialises CUDA: for child processes only."""
    import torch

    size: int = torch.cuda.get_device_properties(index).L2_cache_size
    return size


def load_or_measure(device: str) -> Ceilings:
    """Return the ceilings of 'cpu' or 'cuda', kept from an earlier run or measured now, in this process.

    For a child process: measuring initialises CUDA. From a parent call `opbench.probing.ceilings`.
    """
    raise NotImplementedError
