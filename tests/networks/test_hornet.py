"""HorNet: its slots and its gates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from opbench.networks.hornet import GatedConvolution, GlobalFilter
from opbench.networks.slot import slots
from tests.networks.building import built, parameters, steps, trained

SMALL: dict[str, Any] = {"width": 32, "blocks": [1, 1, 1, 1], "classes": 10}


def test_each_stage_gates_with_ever_more_channels() -> None:
    with torch.device("meta"):
        network = built("hornet-t")
    channels = [slot.in_channels for slot in slots(network).values()]
    # 64 = 32 + 32 less what the first gate takes: half, a quarter, an eighth and a sixteenth of the channels.
    assert channels == [96] * 2 + [224] * 3 + [480] * 18 + [992] * 2


def test_filters_over_the_whole_map_take_the_place_of_the_last_slots() -> None:
    with torch.device("meta"):
        network = built("hornet-t-gf")
        assert len(slots(network)) == 2 + 3
        assert parameters(network) == 22_991_848


def test_only_the_norms_of_the_pointwise_layers_are_seen() -> None:
    assert [step.kind for step in steps("hornet-t")].count("layer_norm") == 25


@pytest.mark.parametrize("name", ["hornet-t", "hornet-t-gf"])
@pytest.mark.parametrize("operator", [None, "involution"])
def test_trains_at_an_odd_size(name: str, operator: str | None) -> None:
    output, idle = trained(built(name, operator, **SMALL), 2, 3, 70, 45)
    assert output.shape == (2, 10)
    assert not idle


def test_without_a_spatial_kernel_the_gates_are_a_polynomial_of_each_pixel() -> None:
    class Third(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 3 * x

    torch.manual_seed(0)
    fill: Any = lambda channels: Third()  # noqa: E731
    gated = GatedConvolution(fill, 8, 2, 0).eval()
    x = torch.randn(1, 8, 3, 5)
    projected = gated.project(x)
    first, small, large = projected[:, :4], projected[:, 4:8], projected[:, 8:]
    widen: Any = gated.widen[0]
    torch.testing.assert_close(gated(x), gated.mix(widen(first * small) * large))


def test_a_filter_of_ones_changes_nothing_but_the_order() -> None:
    filter = GlobalFilter(8, 6)
    with torch.no_grad():
        filter.weight.copy_(torch.tensor([1.0, 0.0]))
        filter.local.weight.zero_()
        filter.local.weight[..., 1, 1] = 1
    for size in ((6, 6), (9, 5)):
        x = torch.randn(2, 8, *size)
        near, far = filter.first(x).chunk(2, dim=1)
        expected = filter.last(torch.stack((near, far), dim=2).flatten(1, 2))
        torch.testing.assert_close(filter(x), expected, atol=1e-5, rtol=1e-4)
