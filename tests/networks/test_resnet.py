"""ResNet: its blocks' slots, its stems, and its use as a backbone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from opbench.networks.slot import slots
from opbench.registry import Registry
from tests.networks.building import built, parameters, steps, trained

TINY: dict[str, Any] = {"blocks": (1, 1, 1, 1), "classes": 10}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("resnet-18", 11_689_512), ("resnet-34", 21_797_672), ("resnet-50", 25_557_032), ("resnet-101", 44_549_160)],
)
def test_has_the_parameters_that_everybody_counts(name: str, expected: int) -> None:
    with torch.device("meta"):
        assert parameters(built(name)) == expected


@pytest.mark.parametrize("operator", Registry.discover().names)
def test_any_operator_fills_the_slots_and_trains_at_an_odd_size(operator: str) -> None:
    output, idle = trained(built("resnet-50", operator, **TINY), 2, 3, 45, 67)
    assert output.shape == (2, 10)
    assert not idle


@pytest.mark.parametrize(
    ("name", "expected"), [("resnet-18", 16), ("resnet-50", 16), ("rednet-50", 17), ("sasa-resnet-26", 8)]
)
def test_a_bottleneck_has_one_slot_and_a_basic_block_two(name: str, expected: int) -> None:
    with torch.device("meta"):
        assert len(slots(built(name))) == expected


@pytest.mark.parametrize("stem", ["7x7", "3x3", "slot"])
def test_stages_halve_the_map_and_round_up(stem: str) -> None:
    with torch.device("meta"):
        network = built("rednet-50", stem=stem)
        maps = network.features(torch.empty(1, 3, 225, 161))  # type: ignore[operator]
    assert [tuple(x.shape[1:]) for x in maps] == [(256, 57, 41), (512, 29, 21), (1024, 15, 11), (2048, 8, 6)]


def test_without_a_classifier_it_gives_pooled_features() -> None:
    with torch.device("meta"):
        network = built("resnet-50", classes=None)
        assert network(torch.empty(3, 3, 64, 64)).shape == (3, 2048)
        assert parameters(built("resnet-50")) - parameters(network) == 2048 * 1000 + 1000


def test_the_norm_after_the_slot_of_a_stem_stays_a_plain_one() -> None:
    with torch.device("meta"):
        network = built("rednet-50", norm="synchronised")
    plain = {path for path, module in network.named_modules() if type(module) is nn.BatchNorm2d}
    # Those inside the involutions are the operator's own.
    assert {path for path in plain if ".slot." not in path} == {"stem.spatial.norm"}


def test_self_attention_sees_the_map_before_it_is_pooled() -> None:
    # Three products of 49 neighbours for each channel and pixel, in stages of 56, 28, 14 and 7 pixels a side; the first
    # block of each but the first stage still attends at twice the side.
    sides_and_widths = [(56, 64), (56, 128), (28, 128), (28, 256), *[(14, 256)] * 3, (14, 512)]
    expected = [3 * 49 * width * side * side for side, width in sides_and_widths]
    assert [step.work.forward.dense for step in steps("sasa-resnet-26") if step.kind == "core"] == expected
