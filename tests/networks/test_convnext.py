"""ConvNeXt: its slots, and the two spellings of a layer norm."""

from __future__ import annotations

import pytest
import torch

from opbench.networks.channel_norm import CalledNorm, WrittenNorm
from opbench.networks.slot import slots
from tests.networks.building import built, steps, trained

SMALL = {"widths": [16, 16, 32, 32], "blocks": [1, 1, 2, 1], "classes": 10}


@pytest.mark.parametrize(("name", "expected"), [("convnext-t", 18), ("convnext-s", 36), ("convnext-xl", 36)])
def test_every_block_has_a_7x7_slot(name: str, expected: int) -> None:
    with torch.device("meta"):
        found = slots(built(name))
    assert [slot.params.kernel_size for slot in found.values()] == [7] * expected


def test_all_of_its_norms_are_seen() -> None:
    kinds = [step.kind for step in steps("convnext-t")]
    # One in each block, four around the downsamplings and the last.
    assert kinds.count("layer_norm") == 18 + 4 + 1


@pytest.mark.parametrize("operator", [None, "involution"])
def test_trains_at_an_odd_size(operator: str | None) -> None:
    output, idle = trained(built("convnext-t", operator, **SMALL), 2, 3, 45, 37)
    assert output.shape == (2, 10)
    assert not idle


def test_both_spellings_of_a_norm_are_one() -> None:
    torch.manual_seed(0)
    called, written = CalledNorm(6), WrittenNorm(6)
    torch.nn.init.normal_(called.weight)
    torch.nn.init.normal_(called.bias)
    written.load_state_dict(called.state_dict())
    x = 3 + torch.randn(2, 6, 5, 3)
    torch.testing.assert_close(called(x), written(x))
    normed = CalledNorm(6)(x)
    torch.testing.assert_close(normed.mean(1), torch.zeros(2, 5, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normed.var(1, unbiased=False), torch.ones(2, 5, 3), atol=1e-3, rtol=0)
