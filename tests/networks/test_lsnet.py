"""LSNet: where its slots are, its attention's biases, and that its two forms are one network."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from opbench.networks.lsnet import Attention, LSNet
from opbench.networks.merging import merge
from opbench.networks.slot import slots
from tests.networks.building import built, parameters, steps, trained
from tests.networks.settling import settled

SMALL: dict[str, Any] = {"widths": [32, 32, 64, 64], "blocks": [1, 2, 2, 2], "side": 2, "classes": 10}


@pytest.mark.parametrize(
    ("name", "expected", "unfused", "fused"),
    [
        ("lsnet-t", 1 + 4, 11_409_832, 11_370_488),
        ("lsnet-s", 1 + 4, 16_146_304, 16_098_232),
        ("lsnet-b", 2 + 3 + 4, 23_313_608, 23_249_320),
    ],
)
def test_every_second_block_but_the_last_stages_is_a_slot(name: str, expected: int, unfused: int, fused: int) -> None:
    with torch.device("meta"):
        network = built(name)
        assert len(slots(network)) == expected
        assert parameters(network) == unfused
        assert parameters(built(f"{name}-fused")) == fused


def test_the_aggregation_counts_nine_for_every_value_of_its_input() -> None:
    cores = [step for step in steps("lsnet-t") if step.kind == "core"]
    assert [step.work.forward.dense for step in cores] == [9 * 128 * 14 * 14] + [9 * 256 * 7 * 7] * 4


def test_both_forms_compute_the_same() -> None:
    network = settled(built("lsnet-t", **SMALL))
    assert isinstance(network, LSNet)
    x = torch.randn(2, 3, 128, 128, dtype=torch.float64)
    expected = network(x)
    merge(network)
    network.merge_classifier()
    torch.testing.assert_close(network(x), expected)
    assert network.state_dict().keys() == built("lsnet-t-fused", **SMALL).state_dict().keys()


def test_only_the_norms_behind_the_slots_are_left_when_fused() -> None:
    with torch.device("meta"):
        network = built("lsnet-b-fused")
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert len(norms) == len(slots(network))


@pytest.mark.parametrize("operator", [None, "involution"])
def test_trains_at_an_odd_size(operator: str | None) -> None:
    output, idle = trained(built("lsnet-t", operator, **SMALL), 2, 3, 97, 150)
    assert output.shape == (2, 10)
    assert not idle


def test_distances_are_numbered_as_they_first_appear() -> None:
    pixels = list(itertools.product(range(4), range(4)))
    seen: dict[tuple[int, int], int] = {}
    for (y, x), (v, u) in itertools.product(pixels, pixels):
        seen.setdefault((abs(y - v), abs(x - u)), len(seen))
    expected = [[seen[abs(y - v), abs(x - u)] for v, u in pixels] for y, x in pixels]
    assert Attention(64, 4).index.tolist() == expected


def test_a_bias_that_forbids_all_other_distances_leaves_each_pixel_to_itself() -> None:
    torch.manual_seed(0)
    attention = Attention(64, 4).eval()
    with torch.no_grad():
        attention.biases.fill_(-1e9)
        attention.biases[:, 0] = 0
        for size in ((4, 4), (6, 3)):
            x = torch.randn(1, 64, *size)
            value = attention.qkv(x)[:, 128:]
            torch.testing.assert_close(attention(x), x + attention.project(value))
