"""A GPU, and what a device can do at best, in words."""

from __future__ import annotations

from opbench import units
from opbench.environment import Gpu
from opbench.measure.ceilings import Ceiling, Ceilings


def gpu_words(gpu: Gpu) -> str:
    """One GPU in one line; what its driver does not tell is left out, but for its clocks."""
    facts = [
        gpu.name,
        units.bytes_(gpu.memory_bytes),
        gpu.compute_capability and f"compute capability {gpu.compute_capability}",
        gpu.multiprocessors and f"{gpu.multiprocessors} multiprocessors",
        f"SM {_mhz(gpu.sm_clock_mhz, gpu.max_sm_clock_mhz)}",
        f"memory {_mhz(gpu.memory_clock_mhz, gpu.max_memory_clock_mhz)}",
        gpu.power_limit_watts and f"limit {gpu.power_limit_watts:.0f} W",
        _switch("ECC", gpu.ecc),
        _switch("MIG", gpu.mig),
        _switch("persistence mode", gpu.persistence),
    ]
    return ", ".join(fact for fact in facts if fact)


def ceiling_lines(ceilings: Ceilings) -> tuple[str, ...]:
    """One line for each ceiling, with the half-width of its interval."""
    # What to do about it is for whoever measures.
    remark = (ceilings.remark or "").partition(";")[0]
    lines = [
        f"measured {ceilings.captured}" + (f"; {remark}" if remark else ""),
        f"copy: {units.bytes_per_second(ceilings.bytes_per_second.value)} read and written"
        f"{_spread(ceilings.bytes_per_second)}",
    ]
    lines += [
        f"arithmetic, {name}: {units.macs_per_second(rate.value)}{_spread(rate)}"
        for name, rate in ceilings.macs_per_second.items()
    ]
    for title, duration in (
        ("empty kernel", ceilings.empty_call_seconds),
        ("launch interval", ceilings.launch_interval_seconds),
    ):
        if duration is not None:
            lines.append(f"{title}: {units.seconds(duration.value)}{_spread(duration)}")
    if ceilings.event_resolution_seconds is not None:
        lines.append(f"event resolution: {units.seconds(ceilings.event_resolution_seconds)}")
    lines.append(f"last-level cache: {units.bytes_(ceilings.last_level_cache_bytes)}")
    return tuple(lines)


def _mhz(clock: int | None, highest: int | None) -> str:
    known = "unknown MHz" if clock is None else f"{clock} MHz"
    return known if highest is None else f"{known} of {highest}"


def _switch(name: str, on: bool | None) -> str:
    return "" if on is None else f"{name} {'on' if on else 'off'}"


def _spread(ceiling: Ceiling) -> str:
    return f" ± {units.percent((ceiling.high - ceiling.low) / (2 * ceiling.value))}"
