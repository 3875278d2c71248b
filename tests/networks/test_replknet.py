"""RepLKNet: where its kernels are, and that its two forms are one network."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from opbench.networks.merging import merge
from opbench.networks.slot import slots
from tests.networks.building import built, parameters, trained
from tests.networks.settling import settled

SMALL: dict[str, Any] = {"widths": [16, 16, 32, 32], "kernels": [9, 7, 5, 5], "blocks": [1, 1, 2, 1], "classes": 10}


def test_each_stage_has_its_kernel_size() -> None:
    with torch.device("meta"):
        network = built("replknet-31b")
    sizes = [slot.params.kernel_size for slot in slots(network).values()]
    assert sizes == [31] * 2 + [29] * 2 + [27] * 18 + [13] * 2


def test_the_fused_form_has_one_kernel_a_slot_and_fewer_parameters() -> None:
    with torch.device("meta"):
        trainable, fused = built("replknet-31b"), built("replknet-31b-fused")
    assert all(slot.params.branches == "none" and slot.params.bias for slot in slots(fused).values())
    # Each batch norm that goes leaves one offset of its two numbers a channel; a 5x5 goes with its norm.
    small = sum(slot.in_channels for slot in slots(trainable).values())
    assert parameters(trainable) - parameters(fused) == _normed(trainable) - _normed(fused) + (1 + 25) * small
    assert parameters(fused) == 79_438_952


def test_the_largest_trains_no_small_kernels_and_widens_its_slots() -> None:
    with torch.device("meta"):
        network = built("replknet-xl")
    assert [slot.in_channels for slot in slots(network).values()][:3] == [384, 384, 768]
    assert not any("branches" in name for name in network.state_dict())


def test_both_forms_compute_the_same() -> None:
    network = settled(built("replknet-31b", **SMALL))
    x = torch.randn(2, 3, 45, 70, dtype=torch.float64)
    expected = network(x)
    merge(network)
    torch.testing.assert_close(network(x), expected)
    assert network.state_dict().keys() == built("replknet-31b-fused", **SMALL).state_dict().keys()


def test_trains_at_an_odd_size() -> None:
    output, idle = trained(built("replknet-31b", **SMALL), 2, 3, 45, 31)
    assert output.shape == (2, 10)
    assert not idle


def test_another_operator_gets_the_norm_that_the_large_kernel_brings() -> None:
    network = built("replknet-31b", "involution", **SMALL)
    blocks = [module for module in network.modules() if type(module).__name__ == "Spatial"]
    assert len(blocks) == len(slots(network)) == 5
    assert all(isinstance(block.spatial.norm, nn.BatchNorm2d) for block in blocks)
    output, idle = trained(network, 2, 3, 33, 47)
    assert output.shape == (2, 10)
    assert not idle


def test_another_operator_is_fused_around() -> None:
    network = settled(built("replknet-31b", "involution", **SMALL))
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    expected = network(x)
    merge(network)
    torch.testing.assert_close(network(x), expected)


def _normed(network: nn.Module) -> int:
    return sum(module.num_features for module in network.modules() if isinstance(module, nn.BatchNorm2d))
