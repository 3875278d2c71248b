"""An operator's parameters: a frozen dataclass is the schema; this module reads it, checks it and builds it.

A plugin writes

    @dataclass(frozen=True)
    class Params:
        kernel_size: int = param(7, help="taps per side", at_least=1, odd=True)
        border: Literal["zero", "mask"] = param("zero", help="what lies outside the image")

        def __post_init__(self) -> None:
            check_params(self)

and every message, `opbench show` and the suite loader follow from it. Plain fields work too, with their types checked.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from opbench.cases import ParamValue
from opbench.errors import did_you_mean

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ParamSpec:
    """What `opbench show` tells about one parameter."""

    name: str
    type: Any
    default: ParamValue
    help: str
    at_least: float | None
    at_most: float | None
    odd: bool

    @property
    def choices(self) -> tuple[ParamValue, ...]:
        """Every legal value, where they can be counted; else empty."""
        values = [value for member in _members(self.type) for value in _literals(member)]
        if bool in _members(self.type):
            values += [True, False]
        return tuple(values)

    @property
    def legal(self) -> str:
        """The legal values in words: 'odd integer ≥ 1', "'zero' or 'mask'", 'integer ≥ 1 or none'."""
        return " or ".join(_words(member, self) for member in _members(self.type))

    def fault(self, value: object) -> str | None:
        """Say what is wrong with the value, or None."""
        if any(_fits(value, member) and self._in_range(value) for member in _members(self.type)):
            return None
        words = [choice for choice in self.choices if isinstance(choice, str)]
        hint = did_you_mean(value, words) if isinstance(value, str) else ""
        return f"{self.name} must be {self.legal}, got {value!r}{hint if 'did you mean' in hint else ''}"

    def _in_range(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        if self.at_least is not None and value < self.at_least:
            return False
        if self.at_most is not None and value > self.at_most:
            return False
        return not self.odd or value % 2 == 1


def param(
    default: T,
    *,
    help: str,
    at_least: float | None = None,
    at_most: float | None = None,
    odd: bool = False,
) -> T:
    """Declare a field of a `Params` dataclass; bounds are inclusive and hold for numbers only."""
    limits = {"help": help, "at_least": at_least, "at_most": at_most, "odd": odd}
    return dataclasses.field(default=default, metadata=limits)


def specs(params_type: type[Any]) -> list[ParamSpec]:
    """Describe every field of a `Params` dataclass, in order."""
    hints = get_type_hints(params_type)
    return [
        ParamSpec(
            name=item.name,
            type=hints[item.name],
            default=item.default if item.default is not dataclasses.MISSING else None,
            help=item.metadata.get("help", ""),
            at_least=item.metadata.get("at_least"),
            at_most=item.metadata.get("at_most"),
            odd=item.metadata.get("odd", False),
        )
        for item in dataclasses.fields(params_type)
    ]


def check_params(params: Any) -> None:
    """Raise a ValueError that names every illegal value of a `Params` instance and what would be legal."""
    faults = [spec.fault(getattr(params, spec.name)) for spec in specs(type(params))]
    if any(faults):
        raise ValueError("; ".join(filter(None, faults)))


def build(params_type: type[T], values: Mapping[str, ParamValue]) -> T:
    """Make a `Params` from plain values.

    Raises:
        ValueError: an unknown name or an illegal value; the message says what is legal.
    """
    known = {spec.name: spec for spec in specs(params_type)}
    for name in values:
        if name not in known:
            raise ValueError(f"unknown parameter {name!r}{did_you_mean(name, known)}")
    faults = [known[name].fault(value) for name, value in values.items()]
    if any(faults):
        raise ValueError("; ".join(filter(None, faults)))
    return params_type(**values)


def resolved(params: Any) -> dict[str, ParamValue]:
    """Return every parameter with its value, defaults included."""
    return {item.name: getattr(params, item.name) for item in dataclasses.fields(params)}


def _members(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(member for part in get_args(annotation) for member in _members(part))
    return (annotation,)


def _literals(member: Any) -> tuple[Any, ...]:
    return get_args(member) if get_origin(member) is Literal else ()


def _fits(value: object, member: Any) -> bool:
    if get_origin(member) is Literal:
        return any(value == legal and type(value) is type(legal) for legal in get_args(member))
    if member is None or member is type(None):
        return value is None
    if member is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if member is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, member) if isinstance(member, type) else True


def _words(member: Any, spec: ParamSpec) -> str:
    if get_origin(member) is Literal:
        return " or ".join(repr(value) for value in get_args(member))
    if member is type(None):
        return "none"
    if member is bool:
        return "true or false"
    if member not in (int, float):
        return "text" if member is str else getattr(member, "__name__", str(member))
    words = ("odd " if spec.odd else "") + ("integer" if member is int else "number")
    if spec.at_least is not None and spec.at_most is not None:
        return f"{words} from {spec.at_least:g} to {spec.at_most:g}"
    if spec.at_least is not None:
        return f"{words} ≥ {spec.at_least:g}"
    return f"{words} ≤ {spec.at_most:g}" if spec.at_most is not None else words
