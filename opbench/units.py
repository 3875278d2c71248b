"""Numbers for people: the one module that scales. Inside, everything is SI seconds, bytes and plain counts."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_BYTES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))
_COUNTS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))
_RATIOS = ((1, "×"),)
_PRINTED = re.compile(r"(?P<bound>≥ )?(?P<value>\d+(?:\.\d+)?)(?: ?(?P<unit>s|ms|µs|ns|B|[KMGT]iB|[kMGT]|×))?")
_INTERVAL = re.compile(r"\[(?P<low>\d+(?:\.\d+)?), (?P<high>\d+(?:\.\d+)?|∞)\](?: (?P<unit>s|ms|µs|ns))?")


def seconds(value: float) -> str:
    """0.00123 -> '1.23 ms'."""
    return _scaled(value, _SECONDS)


def bytes_(value: float) -> str:
    """1536 -> '1.50 KiB'; bytes below a kibibyte stay whole."""
    return f"{value:.0f} B" if abs(value) < 1 << 10 else _scaled(value, _BYTES)


def count(value: float) -> str:
    """9834496 -> '9.83 M'; counts below a thousand stay whole."""
    return f"{value:.0f}" if abs(value) < 1000 else _scaled(value, _COUNTS)


def bytes_per_second(value: float) -> str:
    """4.31e12 -> '4.31 TB/s', in powers of ten, as bandwidths are given."""
    return f"{_scaled(value, _COUNTS)}B/s"


def macs_per_second(value: float) -> str:
    """3.94e14 -> '394 TMAC/s (788 TFLOP/s)'."""
    return f"{_scaled(value, _COUNTS)}MAC/s ({_scaled(2 * value, _COUNTS)}FLOP/s)"


def percent(fraction: float) -> str:
    """0.0123 -> '1.2 %'."""
    return f"{100 * fraction:.2g} %" if abs(fraction) < 0.1 else f"{100 * fraction:.0f} %"


def ratio(value: float) -> str:
    """1.4142 -> '1.41×'."""
    return f"{significant(value)}×"


def seconds_interval(middle: float, low: float, high: float) -> tuple[str, str]:
    """A time and its interval in one unit: ('1.23 ms', '[1.20, 1.27] ms')."""
    factor, unit = _step(middle, _SECONDS)
    value, interval = _interval(middle / factor, low / factor, high / factor)
    return f"{value} {unit}", f"{interval} {unit}"


def ratio_interval(middle: float, low: float, high: float) -> tuple[str, str]:
    """A ratio and its interval: ('1.41×', '[1.38, 1.44]')."""
    value, interval = _interval(middle, low, high)
    return f"{value}×", interval


def scientific(value: float) -> str:
    """A relative error: 0.031 -> '3.1e-2'."""
    digits, _, exponent = f"{value:.1e}".partition("e")
    return f"{digits}e{int(exponent)}" if exponent else digits


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
    rounded = round(value, _decimals(value, digits))
    # 9.996 rounds up to 10.0, which needs one decimal less than 9.996 did.
    return f"{rounded:.{_decimals(rounded, digits)}f}"


@dataclass(frozen=True)
class Printed:
    """A number or an interval as this module printed it, for formats that give a whole column one unit."""

    numbers: tuple[str, ...]
    """One, or the two ends of an interval."""
    unit: str = ""
    at_least: bool = False


def read(text: str) -> Printed | None:
    """Read what this module printed: '1.23 ms', '≥ 3.21 M', '[1.20, ∞] ms', '0.412×'; None for words."""
    if (match := _PRINTED.fullmatch(text)) is not None:
        return Printed((match["value"],), match["unit"] or "", bool(match["bound"]))
    if (match := _INTERVAL.fullmatch(text)) is not None:
        return Printed((match["low"], match["high"]), match["unit"] or "")
    return None


def dimension(printed: Iterable[Printed]) -> str | None:
    """What numbers measure: 'seconds', 'bytes', 'count' or 'ratio'; '' for bare ones, None for a mixture."""
    kinds = {kind for each in printed if each.unit for kind, steps in _DIMENSIONS.items() if each.unit in _units(steps)}
    return None if len(kinds) > 1 else next(iter(kinds), "")


def common_unit(printed: Iterable[Printed], dimension: str) -> str:
    """The unit of a dimension that suits the middle of the numbers; '' for bare ones."""
    steps = _DIMENSIONS.get(dimension)
    if steps is None:
        return ""
    factors = {unit: factor for factor, unit in steps}
    return _step(statistics.median(float(each.numbers[0]) * factors.get(each.unit, 1) for each in printed), steps)[1]


def in_unit(printed: Printed, dimension: str, unit: str) -> tuple[str, ...]:
    """The numbers in another unit: the same digits where it is ten, a hundred, … times as large."""
    factors = {symbol: factor for factor, symbol in _DIMENSIONS.get(dimension, ())}
    scale = factors.get(printed.unit, 1) / factors.get(unit, 1)
    return tuple(number if number == "∞" else _times(number, scale) for number in printed.numbers)


def _times(number: str, scale: float) -> str:
    shift = round(math.log10(scale))
    if math.isclose(scale, 10.0**shift):
        return f"{Decimal(number).scaleb(shift):f}"
    return significant(float(number) * scale)


def _units(steps: tuple[tuple[float, str], ...]) -> list[str]:
    return [unit for _, unit in steps]


_DIMENSIONS = {"seconds": _SECONDS, "bytes": _BYTES, "count": _COUNTS, "ratio": _RATIOS}


def _interval(middle: float, low: float, high: float) -> tuple[str, str]:
    """Three digits of the value, or as many as tell it from the ends of its interval, at most five."""
    if not all(map(math.isfinite, (middle, low, high))):
        return significant(middle), f"[{significant(low)}, {significant(high)}]".replace("inf", "∞")
    if high > 2 * low:
        # Ends so far apart have digits of their own: [0.0023, 1820] and not [0.00, 1820.00].
        return significant(middle), f"[{significant(low, 2)}, {significant(high, 2)}]"
    for decimals in range(_decimals(middle, 3), _decimals(middle, 5) + 1):
        texts = [f"{number:.{decimals}f}" for number in (middle, low, high)]
        if len(set(texts)) == len({middle, low, high}):
            break
    return texts[0], f"[{texts[1]}, {texts[2]}]"


def _decimals(value: float, digits: int) -> int:
    """Decimals that show this many significant digits; 0 shows none."""
    return max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0


def _scaled(value: float, steps: tuple[tuple[float, str], ...]) -> str:
    if not math.isfinite(value):
        return f"{value:g}"
    factor, unit = _step(value, steps)
    return f"{significant(value / factor)} {unit}".rstrip()


def _step(value: float, steps: tuple[tuple[float, str], ...]) -> tuple[float, str]:
    # A value that rounds up to the next unit is printed in it: 999.9 µs reads '1.00 ms'.
    return next((step for step in steps if abs(value) >= 0.9995 * step[0]), steps[-1])
