"""Segmenters: the extents of their logits, and what of them has parameters and does not run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from opbench.networks.slot import slots
from tests.networks.building import built, parameters, steps, trained

TINY: dict[str, Any] = {"blocks": (1, 1, 1, 1)}


@pytest.mark.parametrize(
    "name", ["semantic-fpn-resnet-50-c", "semantic-fpn-rednet-50-slot-neck", "upernet-resnet-50-c", "upernet-rednet-50"]
)
def test_a_logit_for_every_class_at_a_quarter_of_an_odd_size(name: str) -> None:
    output, idle = trained(built(name, classes=5, **TINY), 2, 3, 65, 97)
    assert output.shape == (2, 5, 17, 25)
    assert all(path.startswith("auxiliary.") for path in idle)
    assert bool(idle) == name.startswith("upernet")


def test_the_auxiliary_head_has_parameters_and_does_not_run() -> None:
    with torch.device("meta"):
        network = built("upernet-resnet-50-c")
    assert isinstance(network.auxiliary, nn.Module)
    assert parameters(network.auxiliary) == 1024 * 256 * 9 + 2 * 256 + 256 * 19 + 19
    assert not any(step.path.startswith("auxiliary") for step in steps("upernet-resnet-50-c"))


def test_the_levels_of_semantic_fpn_are_enlarged_to_the_finest() -> None:
    enlarged = [step.outputs for step in steps("semantic-fpn-resnet-50-c") if step.module == "Upsample"]
    quarter, eighth, sixteenth = (128 * (1024 // by) * (2048 // by) for by in (4, 8, 16))
    assert enlarged == [quarter, eighth, quarter, sixteenth, eighth, quarter]


def test_slots_in_the_neck_come_on_top_of_the_backbone_and_its_stem() -> None:
    with torch.device("meta"):
        assert len(slots(built("semantic-fpn-rednet-50"))) == 16 + 1
        assert len(slots(built("semantic-fpn-rednet-50-slot-neck"))) == 16 + 1 + 4


def test_another_operator_fills_backbone_and_neck() -> None:
    network = built("semantic-fpn-rednet-50-slot-neck", "large_kernel_depthwise", classes=5, **TINY)
    assert network.eval()(torch.randn(1, 3, 33, 41)).shape == (1, 5, 9, 11)
