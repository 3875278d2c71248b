"""ShuffleNetV2: its totals, its halves, and the slots in one of them."""

from __future__ import annotations

import pytest
import torch

from opbench.networks.shufflenet_v2 import Block, Down
from opbench.networks.slot import slots
from tests.networks.building import built, parameters, trained


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("shufflenet-v2-0.5", 1_367_840),
        ("shufflenet-v2-1.0", 2_280_808),
        ("shufflenet-v2-1.5", 3_508_768),
        ("shufflenet-v2-2.0", 7_405_672),
    ],
)
def test_each_width_has_the_parameters_of_the_released_code(name: str, expected: int) -> None:
    with torch.device("meta"):
        assert parameters(built(name)) == expected


def test_a_block_leaves_the_even_channels_as_they_are() -> None:
    block = next(module for module in built("shufflenet-v2-0.5").modules() if isinstance(module, Block))
    x = torch.randn(1, 48, 5, 7)
    y = block(x)
    assert torch.equal(y[:, :24], x[:, 0::2])
    x[:, 0::2] = 0
    assert torch.equal(block(x)[:, 24:], y[:, 24:])


def test_the_first_of_a_stage_keeps_its_channels_and_adds_those_that_are_missing() -> None:
    first = next(module for module in built("shufflenet-v2-1.0").modules() if isinstance(module, Down))
    x = torch.randn(2, 24, 7, 9)
    assert first.shrink(x).shape == (2, 24, 4, 5)
    assert first.mix(x).shape == (2, 92, 4, 5)


@pytest.mark.parametrize(("kind", "expected"), [("depthwise", 16), ("pointwise", 32), ("all", 48)])
def test_sixteen_blocks_have_slots_in_the_half_that_is_mixed(kind: str, expected: int) -> None:
    with torch.device("meta"):
        assert len(slots(built("shufflenet-v2-0.5", slots=kind))) == expected


@pytest.mark.parametrize("name", ["shufflenet-v2-0.5", "drconv-shufflenet-v2-0.5"])
def test_trains_at_an_odd_size(name: str) -> None:
    output, idle = trained(built(name, classes=10), 2, 3, 45, 61)
    assert output.shape == (2, 10)
    assert not idle


def test_xvolution_fills_the_3x3_slots() -> None:
    output, idle = trained(built("shufflenet-v2-0.5", "xvolution", classes=10), 2, 3, 33, 47)
    assert output.shape == (2, 10)
    assert not idle
