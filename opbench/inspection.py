"""What is known of an operator once it is imported, as plain data that another process can send. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from opbench.cases import DTYPES, Case, Dtype, ParamValue
from opbench.params import ParamSpec, specs

if TYPE_CHECKING:
    from opbench.api import Operator

REFERENCE = "reference"
COMPILE = "compile"


@dataclass(frozen=True, kw_only=True)
class ImplementationInfo:
    """One way to compute an operator's core, and what it covers."""

    name: str
    dtypes: tuple[Dtype, ...] = DTYPES
    devices: tuple[str, ...] = ("cpu", "cuda")
    summary: str = ""


@dataclass(frozen=True, kw_only=True)
class Description:
    """An operator's parameters and implementations: `reference` first, `compile` last."""

    params: tuple[ParamSpec, ...]
    implementations: tuple[ImplementationInfo, ...]
    source: str = ""
    """The paper."""


@dataclass(frozen=True, kw_only=True)
class SlotInfo:
    """One slot of a network, filled as its paper fills it."""

    path: str
    input: str
    """What goes in at the paper's input, as '1x64x56x56'."""
    output: str
    params: Mapping[str, ParamValue]
    """Of the operator there, where they are not its defaults."""


class Inspector(Protocol):
    """Asks operators about themselves without the asker importing them, and torch with them."""

    def describe(self, operator: str) -> Description:
        """Describe one operator.

        Raises:
            PluginError: the plugin is broken.
        """
        ...

    def refusals(self, cases: Sequence[Case]) -> Mapping[str, str]:
        """Return, by case id, why an operator's `Params` refuse a case's combination of parameters."""
        ...


def describe_operator(operator: Operator) -> Description:
    """Describe an imported operator; `reference` and `compile` exist for every one."""
    offered = [
        ImplementationInfo(name=name, dtypes=item.dtypes, devices=item.devices, summary=item.summary)
        for name, item in operator.implementations.items()
    ]
    return Description(
        params=tuple(specs(operator.params)),
        implementations=(
            ImplementationInfo(name=REFERENCE, summary="the definition, in plain PyTorch"),
            *offered,
            ImplementationInfo(name=COMPILE, summary="torch.compile of the reference"),
        ),
        source=operator.source,
    )
