"""MobileNetV2: its totals, and which of its convolutions are slots."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from opbench.errors import Unsupported
from opbench.networks.slot import slots
from tests.networks.building import built, parameters, steps, trained


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mobilenet-v2-1.0", 3_504_872),
        ("mobilenet-v2-0.75", 2_636_424),
        ("mobilenet-v2-0.5", 1_968_680),
        ("mobilenet-v2-0.35", 1_677_128),
    ],
)
def test_each_width_has_the_parameters_that_everybody_counts(name: str, expected: int) -> None:
    with torch.device("meta"):
        assert parameters(built(name)) == expected


@pytest.mark.parametrize(("kind", "expected"), [("depthwise", 17), ("pointwise", 34), ("all", 51)])
def test_seventeen_blocks_and_the_last_layer_have_their_slots(kind: str, expected: int) -> None:
    # The first block does not widen, so that it has one 1x1 convolution; the last layer is one more.
    with torch.device("meta"):
        assert len(slots(built("mobilenet-v2-1.0", slots=kind))) == expected


def test_a_dynamic_1x1_convolution_adds_three_filter_sets_and_its_attention() -> None:
    with torch.device("meta"):
        static, dynamic = built("mobilenet-v2-1.0"), built("dy-mobilenet-v2-1.0")
    pointwise = [
        module for module in static.modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
    ]
    assert len(pointwise) == 34
    added = 0
    for module in pointwise:
        channels, hidden = module.in_channels, module.in_channels // 4
        attention = channels * hidden + hidden + hidden * 4 + 4
        added += 3 * channels * module.out_channels + attention
    assert parameters(dynamic) == parameters(static) + added == 11_074_816


@pytest.mark.parametrize("name", ["mobilenet-v2-0.35", "dy-mobilenet-v2-0.35"])
def test_trains_at_an_odd_size(name: str) -> None:
    output, idle = trained(built(name, classes=10), 2, 3, 45, 31)
    assert output.shape == (2, 10)
    assert not idle


def test_involution_fills_the_3x3_slots() -> None:
    output, idle = trained(built("mobilenet-v2-1.0", "involution", classes=10), 2, 3, 33, 47)
    assert output.shape == (2, 10)
    assert not idle


def test_an_operator_that_keeps_the_channels_fills_no_1x1_slot() -> None:
    with torch.device("meta"), pytest.raises(Unsupported, match="keeps the number of channels"):
        built("dy-mobilenet-v2-1.0", "involution")


def test_multiply_accumulates_are_those_of_the_convolutions_and_the_classifier() -> None:
    found = steps("mobilenet-v2-1.0")
    assert sum(step.work.forward.dense for step in found) == 300_774_272
    assert sum(step.kind == "core" for step in found) == 17
