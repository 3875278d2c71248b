"""Numbers for people: the one module that scales. Inside, everything is SI seconds, bytes and plain counts."""

from __future__ import annotations

import math

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_BYTES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))
_COUNTS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))


def seconds(value: float) -> str:
    """0.00123 -> '1.23 ms'."""
    return _scaled(value, _SECONDS)


def bytes_(value: float) -> str:
    """1536 -> '1.50 KiB'; bytes below a kibibyte stay whole."""
    return f"{value:.0f} B" if abs(value) < 1 << 10 else _scaled(value, _BYTES)


def count(value: float) -> str:
    """9834496 -> '9.83 M'; counts below a thousand stay whole."""
    return f"{value:.0f}" if abs(value) < 1000 else _scaled(value, _COUNTS)


def percent(fraction: float) -> str:
    """0.0123 -> '1.2 %'."""
    return f"{100 * fraction:.2g} %" if abs(fraction) < 0.1 else f"{100 * fraction:.0f} %"


def ratio(value: float) -> str:
    """1.4142 -> '1.41×'."""
    return f"{significant(value)}×"


def duration(value: float) -> str:
    """Length of a wait: '42 s', '3 min 20 s', '2 h 05 min'."""
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def significant(value: float, digits: int = 3) -> str:
    """Round to significant digits without an exponent: 1234.5 -> '1234', 0.98765 -> '0.988'."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    rounded = round(value, decimals)
    # 9.996 rounds up to 10.0, which needs one decimal less than 9.996 did.
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:.{decimals}f}"


def _scaled(value: float, steps: tuple[tuple[float, str], ...]) -> str:
    if not math.isfinite(value):
        return f"{value:g}"
    # A value that rounds up to the next unit is printed in it: 999.9 µs reads '1.00 ms'.
    factor, unit = next((step for step in steps if abs(value) >= 0.9995 * step[0]), steps[-1])
    return f"{significant(value / factor)} {unit}".rstrip()
