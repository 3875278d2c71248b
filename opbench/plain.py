"""Text that others wrote, made harmless: one line, nothing invisible, of bounded length; numbers that are numbers."""

from __future__ import annotations

import json
import math
import unicodedata
from typing import Any

_JOINERS = "\u200c\u200d"
_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_RIGHT_TO_LEFT = {"R", "AL", "AN"}


def plain(text: str, limit: int | None = None) -> str:
    """Return text fit to stand beside numbers; what exceeds the limit becomes an ellipsis.

    Right-to-left words are isolated, lest they turn the numbers beside them around.
    """
    line = one_line(text)
    if limit is not None and len(line) > limit:
        line = line[: limit - 1].rstrip() + "…"
    if not line.isascii() and any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for character in line):
        return f"\u2068{line}\u2069"
    return line


def one_line(text: str) -> str:
    r"""Spell out what cannot be seen: 'a\n\x1b[31mb' becomes 'a \\x1b[31mb'.

    Control characters, invisible ones and lone surrogates are meant: no terminal obeys the result, and every encoder
    takes it.
    """
    # Nearly all text is plain already, and a report has a great deal of it.
    visible = text if text.isascii() and text.isprintable() else "".join(map(_visible, text))
    return " ".join(visible.split())


def _visible(character: str) -> str:
    if character.isspace():
        return " "
    if character in _JOINERS or unicodedata.category(character) not in _INVISIBLE:
        return character
    return character.encode("unicode_escape").decode()


def finite_json(text: str | bytes) -> Any:
    """Read JSON in which every number is one.

    Raises:
        ValueError: it is no JSON, or it has a NaN or something infinite.
    """
    return json.loads(text, parse_constant=_finite, parse_float=_finite)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number
