"""The state of a GPU as its driver tells it: clocks, throttling, power, temperature, who else uses it.

Read through NVML, which initialises no CUDA and so leaves the process free to fork. Nothing here raises where there is
no driver, no GPU or no `pynvml`: what is not known is None.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from opbench import units
from opbench.measure.machine import ALLOW
from opbench.measure.visible import visible_uuids

KERNEL_MODULE = Path("/proc/driver/nvidia/version")
BUSY = 0.05
"""Least utilisation of a GPU that somebody uses."""
HEADROOM_CELSIUS = 3.0
"""A GPU this close to the temperature at which it slows down will not keep its clock."""
NOTICEABLE = 0.01
"""Least share of the time with a lowered clock that a measurement would show."""

# Bits of the reasons for the current clock. Idling, clocks that somebody set, and the highest clock that the voltage
# allows are left out: none of them slows a measurement below what the GPU is set to.
_REASONS = {
    0x004: "power limit",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "temperature",
    0x040: "hardware temperature limit",
    0x080: "power brake",
    0x200: "board limit",
}
# What the driver keeps a total of, in nanoseconds.
_POLICIES = {0: "power limit", 1: "temperature", 2: "sync boost", 3: "board limit"}

_SM_CLOCK, _MEMORY_CLOCK = 1, 2
_GPU_SENSOR, _SLOWDOWN = 0, 1
_UNCORRECTED, _SINCE_LOADED = 1, 0

Ask = Callable[..., Any]
"""Calls an NVML function by its name without 'nvml'; None where the driver or the binding cannot answer."""


@dataclass(frozen=True, kw_only=True)
class GpuProcess:
    """A process that computes on a GPU."""

    pid: int
    name: str = ""
    """'' where the system does not tell, as of a process in another container."""
    bytes: int | None = None
    """Memory of the GPU that it holds; None where the driver does not tell."""

    def __str__(self) -> str:
        name = f" ({self.name})" if self.name else ""
        return f"process {self.pid}{name}" + (f" with {units.bytes_(self.bytes)}" if self.bytes else "")


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


def judge(state: GpuState | None, own_pids: Collection[int] = ()) -> str | None:
    """Decide whether a GPU is fit to measure on before a run, and say why not; None for one that is.

    A power limit is no reason: an idle GPU may name it, and the work that would reach it is not there yet.

    Args:
        state: what `readings` gave; a state that is not known is not refused.
        own_pids: processes of this run, which may use the GPU. In a container the driver may know them by other
            numbers, so judge before any of them does.
    """
    if state is None:
        return None
    if state.uncorrected_errors:
        return f"{state.name} has had {state.uncorrected_errors} uncorrectable memory errors; reset it, or use another"
    if lowered := [reason for reason in state.throttle_reasons if reason != "power limit"]:
        return f"{state.name} has lowered its clock already ({', '.join(lowered)}); let it cool, or, {ALLOW}"
    temperature, limit = state.temperature_celsius, state.slowdown_celsius
    if temperature is not None and limit is not None and temperature >= limit - HEADROOM_CELSIUS:
        return f"{state.name} is at {temperature:.0f} °C and slows down at {limit:.0f} °C; let it cool, or, {ALLOW}"
    if foreign := [process for process in state.processes if process.pid not in own_pids]:
        return f"{state.name} is used by {', '.join(map(str, foreign))}; stop it, or, {ALLOW}"
    if state.utilisation is not None and state.utilisation >= BUSY and not state.processes:
        busy = f"{units.percent(state.utilisation)} of the time by a process that cannot be seen from here"
        return f"{state.name} is used {busy}; stop it, or, {ALLOW}"
    return None


def lowered(before: GpuState | None, after: GpuState | None) -> dict[str, float | None]:
    """Tell what lowered the clock between two states of one GPU, and for which share of the time; None: not told.

    The driver's totals tell of all the time between; the reasons at the end only of that moment.
    """
    if before is None or after is None:
        return {}
    elapsed = after.taken_seconds - before.taken_seconds
    causes: dict[str, float | None] = dict.fromkeys(after.throttle_reasons)
    for cause, total in after.throttled_seconds.items():
        grown = total - before.throttled_seconds.get(cause, total)
        if elapsed > 0 and grown > NOTICEABLE * elapsed:
            causes[cause] = min(1.0, grown / elapsed)
    return causes


def throttled(before: GpuState | None, after: GpuState | None) -> str | None:
    """Say why the clock was lowered between two states of one GPU; None when it was not, or nobody can tell."""
    causes = [
        cause if share is None else f"{cause} for {units.percent(share)} of the time"
        for cause, share in lowered(before, after).items()
    ]
    return f"the clock was lowered: {', '.join(causes)}" if causes else None


def readings(index: int = 0) -> GpuState | None:
    """Read the state of a GPU by the index CUDA gives it, `CUDA_VISIBLE_DEVICES` respected; None where NVML cannot."""
    return _read(index, state_of)


def pace(index: int = 0) -> GpuState | None:
    """Read clocks and throttling only, as often as between the blocks of a measurement."""
    return _read(index, pace_of)


def noise(index: int = 0) -> str | None:
    """Say what would spoil a measurement on a GPU now, and how to go on; None when nothing is known to."""
    return judge(readings(index))


def driver_version(kernel_module: Path = KERNEL_MODULE) -> str | None:
    """'580.65.06', by NVML or else by the kernel; None where there is no driver."""
    with driver() as ask:
        if ask and (version := ask("SystemGetDriverVersion")):
            return str(version)
    try:
        found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)\s", kernel_module.read_text())
    except OSError:
        return None
    return found[1] if found else None


def pace_of(ask: Ask, handle: object) -> GpuState:
    """Ask the driver how fast a GPU runs, and what slows it."""
    reasons = ask("DeviceGetCurrentClocksEventReasons", handle)
    if reasons is None:  # The name in drivers before 535.
        reasons = ask("DeviceGetCurrentClocksThrottleReasons", handle)
    return GpuState(
        name=ask("DeviceGetName", handle) or "GPU",
        uuid=ask("DeviceGetUUID", handle) or "",
        taken_seconds=time.monotonic(),
        sm_clock_hz=_scaled(ask("DeviceGetClockInfo", handle, _SM_CLOCK), 1e6),
        memory_clock_hz=_scaled(ask("DeviceGetClockInfo", handle, _MEMORY_CLOCK), 1e6),
        throttle_reasons=tuple(words for bit, words in _REASONS.items() if (reasons or 0) & bit),
        throttled_seconds={
            words: 1e-9 * status.violationTime
            for policy, words in _POLICIES.items()
            if (status := ask("DeviceGetViolationStatus", handle, policy)) is not None
        },
    )


def state_of(ask: Ask, handle: object) -> GpuState:
    """Ask the driver everything about one GPU."""
    utilisation = ask("DeviceGetUtilizationRates", handle)
    mig, persistence = ask("DeviceGetMigMode", handle), ask("DeviceGetPersistenceMode", handle)
    return replace(
        pace_of(ask, handle),
        max_sm_clock_hz=_scaled(ask("DeviceGetMaxClockInfo", handle, _SM_CLOCK), 1e6),
        max_memory_clock_hz=_scaled(ask("DeviceGetMaxClockInfo", handle, _MEMORY_CLOCK), 1e6),
        power_watts=_scaled(ask("DeviceGetPowerUsage", handle), 1e-3),
        power_limit_watts=_scaled(ask("DeviceGetEnforcedPowerLimit", handle), 1e-3),
        energy_joules=_scaled(ask("DeviceGetTotalEnergyConsumption", handle), 1e-3),
        temperature_celsius=_scaled(ask("DeviceGetTemperature", handle, _GPU_SENSOR), 1.0),
        slowdown_celsius=_scaled(ask("DeviceGetTemperatureThreshold", handle, _SLOWDOWN), 1.0),
        utilisation=None if utilisation is None else utilisation.gpu / 100,
        processes=tuple(
            GpuProcess(pid=one.pid, name=_process_name(ask, one.pid), bytes=one.usedGpuMemory)
            for one in ask("DeviceGetComputeRunningProcesses", handle) or ()
        ),
        uncorrected_errors=ask("DeviceGetTotalEccErrors", handle, _UNCORRECTED, _SINCE_LOADED),
        mig=None if mig is None else bool(mig[0]),
        persistence=None if persistence is None else bool(persistence),
    )


@contextmanager
def driver() -> Iterator[Ask | None]:
    """Open NVML while the block runs; gives a way to ask it, or None where there is no NVML or no driver.

    Opening takes some ten milliseconds. A process that uses CUDA will not fork any more, so there it stays open.
    """
    try:
        import pynvml
    except ImportError:
        yield None
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return

    def ask(name: str, *arguments: object) -> Any:
        try:
            return getattr(pynvml, f"nvml{name}")(*arguments)
        except Exception:  # Not supported, not permitted, not in this driver, not in this binding, not UTF-8.
            return None

    try:
        yield ask
    finally:
        if not _uses_cuda():
            pynvml.nvmlShutdown()


def handles(ask: Ask) -> list[Any]:
    """All GPUs of the machine, by PCI bus."""
    found = [ask("DeviceGetHandleByIndex", index) for index in range(ask("DeviceGetCount") or 0)]
    return [handle for handle in found if handle is not None]


def visible_handles(ask: Ask) -> list[Any]:
    """The GPUs that `CUDA_VISIBLE_DEVICES` leaves to this process, in CUDA's order."""
    found = [ask("DeviceGetHandleByUUID", uuid) for uuid in _visible(ask)]
    return [handle for handle in found if handle is not None]


def _read(index: int, read: Callable[[Ask, object], GpuState]) -> GpuState | None:
    with driver() as ask:
        uuid = ask and _uuid(ask, index)
        handle = ask("DeviceGetHandleByUUID", uuid) if ask and uuid else None
        return read(ask, handle) if ask and handle is not None else None


def _uses_cuda() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def _uuid(ask: Ask, index: int) -> str | None:
    # Once a process uses CUDA, that alone knows for sure which GPU it numbered how.
    if _uses_cuda():
        return f"GPU-{sys.modules['torch'].cuda.get_device_properties(index).uuid}"
    visible = _visible(ask)
    return visible[index] if index < len(visible) else None


def _visible(ask: Ask) -> tuple[str, ...]:
    uuids = [ask("DeviceGetUUID", handle) or "" for handle in handles(ask)]
    return visible_uuids(os.environ.get("CUDA_VISIBLE_DEVICES"), uuids)


def _process_name(ask: Ask, pid: int) -> str:
    path = ask("SystemGetProcessName", pid) or ""
    return str(path).rpartition("/")[2]


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value
