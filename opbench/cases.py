"""What is measured: one point in the space a suite spans. Pure data, no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from opbench.errors import OpbenchError

ParamValue = int | float | str | bool | None
Dtype = Literal["float64", "float32", "float16", "bfloat16"]
MemoryFormat = Literal["contiguous", "channels_last"]
Pass = Literal["forward", "training"]
Scope = Literal["core", "layer", "network"]

DTYPES: tuple[Dtype, ...] = get_args(Dtype)
ITEM_BYTES: Mapping[Dtype, int] = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}

_PLAIN_TEXT = re.compile(r"(?!(?:True|False|None)$)[A-Za-z]\w*|\d+x\d+")


class Nchw(NamedTuple):
    """Extent of a feature map, in elements."""

    batch: int
    channels: int
    height: int
    width: int

    @classmethod
    def parse(cls, text: str) -> Nchw:
        """Read '32x64x56x56'.

        Raises:
            OpbenchError: the text is not four whole numbers joined by 'x', or an extent is out of range.
        """
        parts = text.lower().replace("×", "x").split("x")
        if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts):
            raise OpbenchError(f"{text!r} is not a shape; write batch x channels x height x width, as in 32x64x56x56")
        shape = cls(*(int(part) for part in parts))
        if min(shape[1:]) < 1:
            raise OpbenchError(f"{text!r}: channels, height and width must be at least 1")
        return shape

    @property
    def numel(self) -> int:
        """Elements of the whole batch."""
        return self.batch * self.channels * self.height * self.width

    def __str__(self) -> str:
        return "x".join(map(str, self))


@dataclass(frozen=True, kw_only=True)
class Case:
    """An operator with its parameters, on an input, in a pass, at a scope.

    Raises:
        ValueError: a network and another scope, or that scope and no network.
    """

    operator: str
    """At the scope of a network, the one in its slots."""
    shape: Nchw
    params: Mapping[str, ParamValue] = field(default_factory=dict)
    """What the suite set; everything else is the operator's default."""
    dtype: Dtype = "float32"
    memory_format: MemoryFormat = "contiguous"
    pass_: Pass = "forward"
    scope: Scope = "layer"
    network: str | None = None
    """Whose slots the operator fills; None at the other scopes."""

    def __post_init__(self) -> None:
        if (self.network is None) == (self.scope == "network"):
            raise ValueError(f"scope {self.scope!r} with the network {self.network!r}")

    @property
    def name(self) -> str:
        """What is measured: 'involution', or 'resnet-50:involution' for a network with it in its slots."""
        return self.operator if self.network is None else f"{self.network}:{self.operator}"

    @property
    def id(self) -> str:
        """Stable, readable name: two cases are the same case exactly when their ids are equal."""
        parts = [self.name, str(self.shape), self.dtype, self.scope, self.pass_]
        if self.memory_format != "contiguous":
            parts.append(self.memory_format)
        return "/".join(parts) + (f"[{self.params_text}]" if self.params else "")

    @property
    def params_text(self) -> str:
        """'kernel_size=7,stride=2', sorted by name; text is quoted where it would read as another value."""
        return ",".join(f"{name}={_text(value)}" for name, value in sorted(self.params.items()))


def _text(value: ParamValue) -> str:
    return repr(value) if isinstance(value, str) and not _PLAIN_TEXT.fullmatch(value) else str(value)
