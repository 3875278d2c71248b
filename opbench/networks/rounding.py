"""Whether a count prints as a paper printed it: rounded half up, or by way of two decimals, as some tables are."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Literal

Verdict = Literal["exact", "exact by way of two decimals", "differs"]

_UNITS = {"": 0, "k": 3, "M": 6, "G": 9}


def compare(published: str, count: int) -> Verdict:
    """Compare a count with a printed one, as '9.23 M', '1.73 G' or '79864168'."""
    number, unit = split(published)
    exponent = -_decimals(number)
    scaled = Decimal(count).scaleb(-_UNITS[unit])
    if _rounded(scaled, exponent) == number:
        return "exact"
    if exponent > -2 and _rounded(_rounded(scaled, -2), exponent) == number:
        return "exact by way of two decimals"
    return "differs"


def printed(published: str, count: int) -> str:
    """A count in the unit of a printed one, with two decimals more."""
    number, unit = split(published)
    if not unit:
        return str(count)
    return f"{_rounded(Decimal(count).scaleb(-_UNITS[unit]), -_decimals(number) - 2)} {unit}"


def split(published: str) -> tuple[Decimal, str]:
    """'9.23 M' -> 9.23 and 'M'.

    Raises:
        ValueError: the text is no number with one of the units k, M and G.
    """
    number, _, unit = published.partition(" ")
    if unit not in _UNITS:
        raise ValueError(f"{published!r}: the unit must be k, M or G, or left out")
    return Decimal(number), unit


def _decimals(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    return max(-exponent, 0)


def _rounded(value: Decimal, exponent: int) -> Decimal:
    return value.quantize(Decimal(1).scaleb(exponent), ROUND_HALF_UP)
