"""What the tests of network families share: building a named network, changed where a test wants it small."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from torch import nn

from opbench.api import Operator
from opbench.networks import catalogue
from opbench.networks.network import Network
from opbench.networks.slot import Filling
from opbench.networks.walk import Step, counted_core, walk
from opbench.registry import Registry


def built(name: str, operator: str | None = None, **options: Any) -> nn.Module:
    """The named network on the CPU, run by the operators' references, with another operator or other options."""
    network = catalogue.find(name)
    loaded = load(operator or network.operator)
    torch.manual_seed(0)
    return _build(network, operator, loaded.reference, options)


def steps(name: str, operator: str | None = None, shape: tuple[int, ...] | None = None, **options: Any) -> list[Step]:
    """What a walk through the named network notes."""
    network = catalogue.find(name)
    with torch.device("meta"):
        module = _build(network, operator, counted_core, options)
        return list(walk(module, torch.empty(shape or network.input)))


@functools.cache
def load(operator: str) -> Operator:
    """An operator of this repository."""
    return Registry.discover().load(operator)


def trained(module: nn.Module, *shape: int) -> tuple[torch.Tensor, set[str]]:
    """Run forward and backward over noise: the output, and the names of parameters that got no gradient."""
    output = module.train()(torch.randn(*shape))
    output.square().mean().backward()
    return output, {name for name, parameter in module.named_parameters() if parameter.grad is None}


def parameters(module: nn.Module) -> int:
    """How many numbers a module learns."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _build(network: Network, operator: str | None, core: Any, options: dict[str, Any]) -> nn.Module:
    name = operator or network.operator
    fill = Filling(
        name=name,
        operator=load(name),
        params=network.params_for(name, {}),
        core=core,
        own=name == network.operator,
    )
    return dataclasses.replace(network, options={**network.options, **options}).build(fill)
