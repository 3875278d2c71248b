"""UniRepLKNet: where its kernels are, and that its deployed form computes what the trained one does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from opbench.networks.slot import slots
from tests.networks.building import built, parameters, steps, trained
from tests.networks.settling import settled

SMALL: dict[str, Any] = {"widths": [16, 16, 32, 32], "blocks": [1, 1, 3, 1], "period": 2, "classes": 10}


@pytest.mark.parametrize(
    ("name", "third"),
    [
        ("unireplknet-a", [13] * 6),
        ("unireplknet-n", [13] * 8),
        ("unireplknet-t", [13, 3] * 9),
        ("unireplknet-s", [13, 3, 3] * 9),
    ],
)
def test_only_the_third_stage_mixes_kernel_sizes(name: str, third: list[int]) -> None:
    with torch.device("meta"):
        network = built(name)
    sizes = [slot.params.kernel_size for slot in slots(network).values()]
    ends = 2 if name in ("unireplknet-a", "unireplknet-n") else 3
    assert sizes == [3] * ends + [13] * ends + third + [13] * ends


def test_small_kernels_are_trained_alone_and_large_ones_beside_five_others() -> None:
    with torch.device("meta"):
        found = slots(built("unireplknet-s")).values()
    for slot in found:
        assert len(slot.params.branch_windows) == (5 if slot.params.kernel_size == 13 else 0)


def test_the_trainable_form_is_larger_than_the_published_one() -> None:
    with torch.device("meta"):
        assert parameters(built("unireplknet-s")) == 56_456_704
        assert parameters(built("unireplknet-s-deploy")) == 55_645_984
    assert sum(step.work.forward.dense for step in steps("unireplknet-s")) == 9_219_412_992


def test_trains_at_an_odd_size() -> None:
    output, idle = trained(built("unireplknet-a", **SMALL), 2, 3, 45, 31)
    assert output.shape == (2, 10)
    assert not idle


@pytest.mark.parametrize("name", ["unireplknet-a", "unireplknet-a-deploy"])
def test_involution_fills_the_slots_and_keeps_the_norm_behind_it(name: str) -> None:
    network = built(name, "involution", **SMALL)
    blocks = [module for module in network.modules() if type(module).__name__ == "Block"]
    assert all(isinstance(block.norm, nn.BatchNorm2d) for block in blocks)
    output, idle = trained(network, 2, 3, 33, 47)
    assert output.shape == (2, 10)
    assert not idle


@torch.no_grad()
def test_both_forms_compute_the_same() -> None:
    network = settled(built("unireplknet-a", **SMALL))
    deployed = built("unireplknet-a-deploy", **SMALL).double().eval()
    trained_parts = dict(network.named_modules())
    for name, part in deployed.named_modules():
        if type(part).__name__ == "Block":
            _merge(trained_parts[name], part)
        elif not list(part.children()) and list(part.parameters()) and "slot" not in name and _kept(name):
            part.load_state_dict(trained_parts[name].state_dict())
    x = torch.randn(2, 3, 45, 70, dtype=torch.float64)
    torch.testing.assert_close(deployed(x), network(x))


def _kept(name: str) -> bool:
    """Whether a part is the same in both forms."""
    return "gate" in name or not name.endswith(("reduce", "response"))


def _merge(trained: Any, deployed: Any) -> None:
    """Write into one deployed block what one trained block computes."""
    layer = trained.slot.layer.merge()
    gain = trained.norm.weight / (trained.norm.running_var + trained.norm.eps).sqrt()
    offset = 0 if layer.bias is None else layer.bias
    deployed.slot.layer.weight.copy_(layer.weight * gain[:, None, None, None])
    deployed.slot.layer.bias.copy_(trained.norm.bias + gain * (offset - trained.norm.running_mean))
    gain = trained.last.weight / (trained.last.running_var + trained.last.eps).sqrt()
    scale = trained.scale.flatten()
    projected = trained.reduce.weight @ trained.response.offset
    deployed.response.gain.copy_(trained.response.gain)
    deployed.reduce.weight.copy_((scale * gain)[:, None] * trained.reduce.weight)
    deployed.reduce.bias.copy_(scale * (trained.last.bias + gain * (projected - trained.last.running_mean)))
