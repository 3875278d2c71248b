"""A published network as data: which family builds it, how, and which operator fills its slots. No torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opbench.cases import Nchw, ParamValue
from opbench.errors import Unsupported

if TYPE_CHECKING:
    from torch import nn

    from opbench.networks.slot import Filling


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network by name. Building it imports torch; nothing else does."""

    name: str
    summary: str
    family: str
    """Module of this package that builds it with `build(fill, **options)`."""
    operator: str
    """Fills the slots unless another operator is asked for."""
    params: Mapping[str, ParamValue] = field(default_factory=dict)
    """Of that operator, where they are not its defaults."""
    options: Mapping[str, Any] = field(default_factory=dict)
    input: Nchw = field(default_factory=lambda: Nchw(1, 3, 224, 224))
    """What its paper counts it at."""
    source: str = ""
    """Paper and, where the facts are the code's, the repository."""
    count_only: str = ""
    """Why it can be counted and not run; '' for a network that can be measured."""

    def build(self, fill: Filling) -> nn.Module:
        """[N, 3, H, W] -> logits: the network with its slots filled.

        Raises:
            Unsupported: the operator cannot do what a slot asks of it.
        """
        family = importlib.import_module(f"opbench.networks.{self.family}")
        network: nn.Module = family.build(fill, **self.options)
        return network

    def params_for(self, operator: str, given: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
        """The parameters of an operator in the slots: the given, and the network's where it is its own operator."""
        return {**(self.params if operator == self.operator else {}), **given}

    def require_measurable(self) -> None:
        """Raise Unsupported where it can only be counted."""
        if self.count_only:
            raise Unsupported(f"{self.name} is counted and not run: {self.count_only}")
