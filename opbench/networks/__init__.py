"""Published backbones with spatial slots that any operator can fill, and the rules by which papers count them.

    from opbench import networks

    network = networks.build("rednet-50")
    networks.load_checkpoint(network, "rednet50.pth")
    rival = networks.build("resnet-50", operator="sasa", kernel_size=5)

Nothing of torch is imported before one of these is called.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from opbench.cases import ParamValue

if TYPE_CHECKING:
    from torch import nn

    from opbench.networks.checkpoints import Report

__all__ = ["build", "load_checkpoint"]


def build(
    name: str,
    operator: str | None = None,
    implementation: str = "reference",
    *,
    operators: Iterable[Path] = (),
    **params: ParamValue,
) -> nn.Module:
    """Build a network by name: [N, 3, H, W] -> logits.

    Args:
        name: of the network; `opbench networks` lists them.
        operator: fills its slots; None for the network's own.
        implementation: of that operator.
        operators: folders of further operators.
        params: of the operator.

    Raises:
        OpbenchError: there is no such network or operator.
        Unsupported: the operator cannot do what a slot asks of it.
        ValueError: a parameter is not legal.
    """
    from opbench.check import usable_core
    from opbench.networks.catalogue import find
    from opbench.networks.slot import Filling
    from opbench.registry import Registry

    network = find(name)
    chosen = operator or network.operator
    loaded = Registry.discover(operators).load(chosen)
    return network.build(
        Filling(
            name=chosen,
            operator=loaded,
            params=network.params_for(chosen, params),
            core=usable_core(loaded, implementation),
            own=chosen == network.operator,
            chosen=frozenset(params),
        )
    )


def load_checkpoint(network: nn.Module, path: Path | str) -> Report:
    """Load a file of published weights into a network, all of it or nothing; see `checkpoints.load_checkpoint`."""
    from opbench.networks.checkpoints import load_checkpoint

    return load_checkpoint(network, path)
