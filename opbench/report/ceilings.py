"""What a device can do at best, in words."""

from __future__ import annotations

from opbench import units
from opbench.measure.ceilings import Ceiling, Ceilings


def ceiling_lines(ceilings: Ceilings) -> tuple[str, ...]:
    """One line for each ceiling, with the half-width of its interval."""
    lines = [
        f"{ceilings.name}, measured {ceilings.captured}" + (f"; {ceilings.remark}" if ceilings.remark else ""),
        f"copy: {units.bytes_per_second(ceilings.bytes_per_second.value)} read and written"
        f"{_spread(ceilings.bytes_per_second)}",
    ]
    lines += [
        f"matrix product, {name}: {units.macs_per_second(rate.value)}{_spread(rate)}"
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


def _spread(ceiling: Ceiling) -> str:
    return f" ± {units.percent((ceiling.high - ceiling.low) / (2 * ceiling.value))}"
