"""A slot asks an operator for a stride and a width; what it cannot do is pooled, or refused with a reason."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from opbench import networks
from opbench.api import Operator
from opbench.errors import OpbenchError, Unsupported
from opbench.networks.slot import Filling, Slot, slots
from opbench.registry import Registry
from tests.networks.building import load

REGISTRY = Registry.discover()


def fill(name: str, **params: Any) -> Filling:
    return Filling(name=name, operator=load(name), params=params, core=load(name).reference)


@pytest.mark.parametrize("operator", REGISTRY.names)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 7), (5, 6)])
def test_every_operator_halves_the_map_and_rounds_up(operator: str, height: int, width: int) -> None:
    slot = fill(operator)(16, stride=2)
    assert slot(torch.randn(2, 16, height, width)).shape == (2, 16, -(-height // 2), -(-width // 2))


def test_an_operator_with_a_stride_gets_it_and_one_without_is_averaged_after() -> None:
    strided, pooled, quartered = (
        fill("involution")(16, stride=2),
        fill("ls_convolution")(16, stride=2),
        fill("sasa")(16, stride=4),
    )
    assert (strided.params.stride, strided.pool) == (2, None)
    assert pooled.pool is not None
    # Self-attention strides by two and no further: four is an average over all sixteen.
    assert (quartered.params.stride, quartered.pool.kernel_size) == (1, 4)  # type: ignore[union-attr]
    x = torch.randn(1, 16, 6, 6)
    pooled.eval()
    assert torch.allclose(pooled(x), torch.nn.functional.avg_pool2d(pooled.layer(x), 2))


def test_a_change_of_width_is_asked_for_or_refused() -> None:
    assert fill("convolution")(8, 24)(torch.randn(1, 8, 4, 4)).shape == (1, 24, 4, 4)
    with pytest.raises(
        Unsupported, match="involution keeps the number of channels, and a slot makes 16 channels into 32"
    ):
        fill("involution")(16, 32)


def test_channels_that_the_operator_cannot_have_are_refused_with_its_reason() -> None:
    with pytest.raises(Unsupported, match="20 channels are not a multiple of group_channels 16"):
        fill("involution")(20)


@pytest.mark.parametrize("name", ["stride", "out_channels"])
def test_what_the_slots_decide_cannot_be_set(name: str) -> None:
    with pytest.raises(ValueError, match=f"the slots of a network decide {name}"):
        fill("convolution", **{name: 2})


def test_a_stage_varies_the_networks_own_operator_and_nothing_a_user_chose() -> None:
    own = fill("large_kernel_depthwise", kernel_size=13)
    assert own.varied(kernel_size=31).params["kernel_size"] == 31
    assert (
        dataclasses.replace(own, chosen=frozenset({"kernel_size"})).varied(kernel_size=31).params["kernel_size"] == 13
    )
    assert dataclasses.replace(own, own=False).varied(kernel_size=31).params["kernel_size"] == 13


def test_a_core_alone_is_no_layer_for_a_slot() -> None:
    bare = Operator(reference=load("sasa").reference, inputs=load("sasa").inputs, params=load("sasa").params)
    with pytest.raises(Unsupported, match="mine has no layer"):
        Filling(name="mine", operator=bare, params={}, core=bare.reference)(16)


def test_build_fills_a_network_by_name() -> None:
    network = networks.build("resnet-26", operator="involution", kernel_size=3)
    assert {slot.params.kernel_size for slot in slots(network).values()} == {3}
    assert all(isinstance(slot, Slot) for slot in slots(network).values())
    with pytest.raises(OpbenchError, match="no network 'resnet-27'; did you mean 'resnet-26'"):
        networks.build("resnet-27")
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        networks.build("resnet-26", operator="involution", kernel_size=4)
