"""InceptionNeXt: its mixers, and what takes their place."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from opbench.networks.slot import slots
from tests.networks.building import built, trained

SMALL: dict[str, Any] = {"widths": [16, 16, 32, 32], "blocks": [1, 1, 2, 1], "classes": 10}


def test_an_eighth_of_the_channels_goes_through_each_square_kernel() -> None:
    with torch.device("meta"):
        network = built("inceptionnext-t")
    channels = [slot.in_channels for slot in slots(network).values()]
    assert channels == [12] * 3 + [24] * 3 + [48] * 9 + [96] * 3


def test_another_operator_takes_the_place_of_the_whole_mixer() -> None:
    with torch.device("meta"):
        network = built("inceptionnext-t", "involution")
    channels = [slot.in_channels for slot in slots(network).values()]
    assert channels == [96] * 3 + [192] * 3 + [384] * 9 + [768] * 3


@pytest.mark.parametrize("operator", [None, "involution"])
def test_trains_at_an_odd_size(operator: str | None) -> None:
    output, idle = trained(built("inceptionnext-t", operator, **SMALL), 2, 3, 45, 37)
    assert output.shape == (2, 10)
    assert not idle


def test_most_channels_pass_a_mixer_untouched() -> None:
    torch.manual_seed(0)
    network: Any = built("inceptionnext-t", **SMALL)
    mixer = network.stages[0][0].mixer
    x = torch.randn(1, 16, 5, 7)
    y = mixer(x)
    assert torch.equal(y[:, :10], x[:, :10])
    assert all(not torch.equal(y[:, channel], x[:, channel]) for channel in range(10, 16))
