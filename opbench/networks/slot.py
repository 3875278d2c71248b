"""The place in a network that any operator fills, and what it asks of the operator."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from opbench import params as parameters
from opbench.api import Core, Operator
from opbench.cases import ParamValue
from opbench.errors import Unsupported

DECIDED = ("stride", "out_channels")
"""Parameters that the place decides, and not who fills it."""


@dataclass(frozen=True, kw_only=True)
class Filling:
    """An operator, its parameters and its core, to be put into every spatial slot of a network.

    Raises:
        ValueError: the parameters are not legal, or name what the slots decide.
    """

    name: str
    """The operator's."""
    operator: Operator
    params: Mapping[str, ParamValue]
    """Those that differ from the operator's defaults."""
    core: Core
    own: bool = True
    """Whether the network's paper has this operator there; then the network may say what varies from stage to stage."""
    chosen: frozenset[str] = frozenset()
    """Parameters that whoever asked for the network has set, which no stage varies."""

    def __post_init__(self) -> None:
        taken = [name for name in DECIDED if name in self.params]
        if taken:
            raise ValueError(f"the slots of a network decide {' and '.join(taken)}")
        parameters.build(self.operator.params, self.params)

    def varied(self, **params: ParamValue) -> Filling:
        """The same operator with parameters that a stage of the network has for itself; any other operator as it is."""
        if not self.own:
            return self
        free = {name: value for name, value in params.items() if name not in self.chosen}
        return dataclasses.replace(self, params={**self.params, **free})

    def __call__(self, in_channels: int, out_channels: int | None = None, stride: int = 1) -> Slot:
        """Fill one slot.

        An operator without a stride of its own is followed by an average over the pixels that a stride would skip.

        Args:
            in_channels: channels of the slot's input.
            out_channels: channels of its output; None for as many.
            stride: by which height and width are divided, rounded up.

        Raises:
            Unsupported: the operator cannot change the number of channels, or cannot have this many.
        """
        if self.operator.layer is None:
            raise Unsupported(f"{self.name} has no layer, only a core")
        known = {spec.name: spec for spec in parameters.specs(self.operator.params)}
        values = dict(self.params)
        if out_channels not in (None, in_channels):
            if "out_channels" not in known:
                change = f"{in_channels} channels into {out_channels}"
                raise Unsupported(f"{self.name} keeps the number of channels, and a slot makes {change}")
            values["out_channels"] = out_channels
        strides = stride > 1 and "stride" in known and not known["stride"].fault(stride)
        if strides:
            values["stride"] = stride
        try:
            params = parameters.build(self.operator.params, values)
            layer = self.operator.layer(in_channels, params, self.core)
        except ValueError as error:
            raise Unsupported(f"{self.name}: {error}") from error
        return Slot(self.operator, in_channels, params, layer, 1 if strides else stride)


class Slot(nn.Module):
    """[N, C, H, W] -> [N, O, ceil(H / stride), ceil(W / stride)]: an operator's layer where a network has a slot."""

    def __init__(self, operator: Operator, in_channels: int, params: Any, layer: nn.Module, pooled: int) -> None:
        super().__init__()
        self.operator, self.in_channels, self.params = operator, in_channels, params
        self.layer = layer
        # At an odd extent the last row or column is averaged over the pixels that exist.
        self.pool = nn.AvgPool2d(pooled, ceil_mode=True) if pooled > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, O, Ho, Wo]."""
        y: Tensor = self.layer(x)
        return y if self.pool is None else self.pool(y)


def slots(network: nn.Module) -> dict[str, Slot]:
    """Every slot of a network by its path."""
    return {name: module for name, module in network.named_modules() if isinstance(module, Slot)}
