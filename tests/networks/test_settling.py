"""An untrained network in evaluation mode computes what it would in training, on the images it was settled on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from opbench.cases import Case, Nchw
from opbench.networks.settling import settle
from opbench.registry import Registry
from opbench.subject import Subject
from tests.networks.building import built

TINY: dict[str, Any] = {"blocks": (1, 1, 1, 1), "classes": 7}


@pytest.mark.parametrize("batch", [1, 3])
def test_evaluation_is_training_on_the_same_images(batch: int) -> None:
    network = built("rednet-26", **TINY).double().eval()
    momenta = [module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    x = torch.randn(batch, 3, 40, 56, dtype=torch.float64)
    settle(network, x)
    assert not network.training
    assert [module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)] == momenta
    evaluated = network(x)
    assert torch.allclose(evaluated, network.train()(x), rtol=1e-9)


def test_without_batch_norms_nothing_is_run() -> None:
    class Refuses(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError

    settle(Refuses(), torch.zeros(1))


@pytest.mark.parametrize("operator", ["drconv", "xvolution"])
def test_operators_that_multiply_their_inputs_stay_within_float16(operator: str) -> None:
    case = Case(operator=operator, network="resnet-26", scope="network", shape=Nchw(2, 3, 64, 64))
    subject = Subject.load(Registry.discover(), case)
    module, x = subject.module(), subject.feature_map()
    largest = []
    for layer in module.modules():
        layer.register_forward_hook(lambda *call: largest.append(float(call[-1].abs().max())))
    with torch.no_grad():
        module(x)
    assert largest[-1] > 0.01
    assert max(largest) < torch.finfo(torch.float16).max / 8
