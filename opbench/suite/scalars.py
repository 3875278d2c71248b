"""YAML 1.2 core scalars. PyYAML by itself reads YAML 1.1, where `no` is false, `1e-3` is text and `017` is fifteen."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from yaml.resolver import BaseResolver

from opbench.cases import ParamValue

LONGEST_NUMBER = 40
"""Characters of the longest number a suite may write; Python refuses to convert very long ones."""


@dataclass(frozen=True)
class _Form:
    """How the values of one type are written."""

    noun: str
    pattern: re.Pattern[str]
    read: Callable[[str], ParamValue]

    @classmethod
    def of(cls, noun: str, pattern: str, read: Callable[[str], ParamValue]) -> _Form:
        return cls(noun, re.compile(rf"(?:{pattern})\Z"), read)


def _integer(text: str) -> int:
    # int(text, 0) would read the prefixes too, but refuses the leading zero of 017.
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_FORMS = {
    "tag:yaml.org,2002:null": _Form.of("null", r"null|Null|NULL|~|", lambda _: None),
    "tag:yaml.org,2002:bool": _Form.of(
        "true or false", r"true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true"
    ),
    "tag:yaml.org,2002:int": _Form.of("an integer", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", _integer),
    "tag:yaml.org,2002:float": _Form.of(
        "a number",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        _float,
    ),
    "tag:yaml.org,2002:str": _Form.of("text", r"(?s:.*)", str),
}


class CoreResolver(BaseResolver):
    """Tells the type of a plain scalar by the YAML 1.2 core schema."""


for _tag, _form in _FORMS.items():
    if _form.noun != "text":
        CoreResolver.add_implicit_resolver(_tag, _form.pattern, None)


def scalar(tag: str, text: str) -> ParamValue:
    """Read a scalar of a resolved or written tag.

    Raises:
        ValueError: the text does not have the tag's form, or the tag is not of the core schema.
    """
    form = _FORMS.get(tag)
    if form is None:
        raise ValueError(f"unknown tag {tag!r}; write plain values")
    if not form.pattern.match(text):
        raise ValueError(f"{text!r} is not {form.noun}")
    if form.noun in ("an integer", "a number") and len(text) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text)} characters is too long; write at most {LONGEST_NUMBER}")
    return form.read(text)


def plain(text: str) -> ParamValue:
    """Read a plain scalar, its type told by its form: '7' -> 7, 'no' -> 'no', '' -> None."""
    return next(form for form in _FORMS.values() if form.pattern.match(text)).read(text)
