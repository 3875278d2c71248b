"""The state of a GPU as its driver tells it: clocks, throttling, power, temperature, who else uses it.

Read through NVML, which initialises no CUDA and so leaves the process free to fork. Nothing here raises where there is
no driver, no GPU or no `pynvml`: what is not known is None.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class GpuProcess:
    """A process that computes on a GPU."""

    pid: int
    name: str = ""
    """'' where the system does not tell, as of a process in another container."""
    bytes: int | None = None
    """Memory of the GPU that it holds; None where the driver does not tell."""


@dataclass(frozen=True, kw_only=True)
class GpuState:
    """One GPU at one moment; None for what its driver does not tell."""

    name: str
    uuid: str
    taken_seconds: float
    """When, on a clock that starts at an arbitrary moment and never goes back."""
    sm_clock_hz: float | None = None
    memory_clock_hz: float | None = None
    max_sm_clock_hz: float | None = None
    max_memory_clock_hz: float | None = None
    throttle_reasons: tuple[str, ...] = ()
    """Why the clock is lower than it could be, in words; neither idling nor clocks that somebody set count."""
    throttled_seconds: Mapping[str, float] = field(default_factory=dict)
    """Time since the driver was loaded in which the clock was lowered, by cause: 'power limit', 'temperature', …"""
    power_watts: float | None = None
    power_limit_watts: float | None = None
    energy_joules: float | None = None
    """Since the driver was loaded."""
    temperature_celsius: float | None = None
    slowdown_celsius: float | None = None
    """Temperature at which the hardware slows itself down."""
    utilisation: float | None = None
    """Share of the last sampling period, up to a second, in which a kernel ran."""
    processes: tuple[GpuProcess, ...] = ()
    """All that compute on it, this one included."""
    uncorrected_errors: int | None = None
    """Uncorrectable memory errors since the driver was loaded; None without ECC."""
    mig: bool | None = None
    """Whether the GPU is split into instances."""
    persistence: bool | None = None
    """Whether the driver stays loaded when nobody uses the GPU."""


def readings(index: int = 0) -> GpuState | None:
    """Read the state of a GPU by the index CUDA gives it, `CUDA_VISIBLE_DEVICES` respected; None where NVML cannot."""
    return None


def judge(state: GpuState | None, own_pids: Collection[int] = ()) -> str | None:
    """Decide whether a GPU is fit to measure on before a run, and say why not; None for one that is.

    Args:
        state: what `readings` gave; a state that is not known is not refused.
        own_pids: processes of this run, which may use the GPU.
    """
    return None


def noise(index: int = 0) -> str | None:
    """Say what would spoil a measurement on a GPU now, and how to go on; None when nothing is known to."""
    return judge(readings(index))


def throttled(before: GpuState | None, after: GpuState | None) -> str | None:
    """Say why the clock was lowered between two states of one GPU; None when it was not, or nobody can tell."""
    return None
