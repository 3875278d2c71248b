"""What a pass launches: every operation that moves bytes and no other, with its work, in the order run."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from opbench import worker
from opbench.api import Core, Implementation, NoParams, Operator
from opbench.cases import Case, Nchw, Pass, Scope
from opbench.measure import counters, launches
from opbench.registry import Registry
from opbench.results import Launch, Launches
from opbench.subject import Subject

REGISTRY = Registry.discover()
SHAPE = Nchw(2, 4, 5, 7)
IMAGE = 4 * SHAPE.numel
"""Bytes of one feature map."""
BOTH_PASSES = pytest.mark.parametrize("pass_", ["forward", "training"])


def listed(name: str, implementation: str, shape: Nchw, device: str = "cpu", **case: Any) -> tuple[Launch, ...]:
    found = worker.list_launches(REGISTRY, Case(operator=name, shape=shape, **case), implementation, device)
    assert found is not None
    assert found.left_out == 0
    return found.in_order


def made_up(core: Core, pass_: Pass = "forward", scope: Scope = "core", **parts: Any) -> Launches | None:
    operator = Operator(reference=core, **parts)
    case = Case(operator="made_up", shape=SHAPE, scope=scope, pass_=pass_)
    return launches.of(Subject(case=case, operator=operator, params=NoParams(), core=core))


def of_core(core: Any, pass_: Pass = "forward") -> list[tuple[str, int, int]]:
    """Name, multiply-accumulates and bytes of each launch of a core that gets one feature map."""
    found = made_up(lambda p, x: core(x), pass_)
    assert found is not None
    return [(launch.name, launch.macs, launch.bytes) for launch in found.in_order]


# Counted by hand


def test_a_convolution_layer_is_one_operation_and_its_backward_another() -> None:
    """Of 3 taps an axis of 5 pixels has 13 within the image, one of 7 has 19; two images, four channels to four."""
    weight = 4 * (4 * 4 * 9)
    dense, within = 2 * 16 * (5 * 3) * (7 * 3), 2 * 16 * 13 * 19
    forward = Launch(name="aten::convolution", macs=dense, macs_in_bounds=within, bytes=IMAGE + weight + IMAGE)
    assert listed("convolution", "native", SHAPE, scope="layer") == (forward,)
    backward = Launch(
        name="aten::convolution_backward",
        macs=2 * dense,
        macs_in_bounds=2 * within,
        bytes=(IMAGE + IMAGE + weight) + (IMAGE + weight),
    )
    assert listed("convolution", "native", SHAPE, scope="layer", pass_="training") == (forward, backward)


def test_the_reference_of_involution_pads_and_then_adds_tap_by_tap() -> None:
    """One group of 16 channels on 5 x 7 pixels with 3 x 3 taps, which read the sum, a kernel's plane and the image."""
    pixels, channels = 5 * 7, 16
    image, padded = 4 * channels * pixels, 4 * channels * (5 + 2) * (7 + 2)
    zeros, padding, *taps = listed(
        "involution", "reference", Nchw(1, 16, 5, 7), scope="core", params={"kernel_size": 3}
    )
    assert zeros == Launch(name="aten::new_zeros", macs=0, macs_in_bounds=0, bytes=image)
    assert padding == Launch(name="aten::constant_pad_nd", macs=0, macs_in_bounds=0, bytes=image + padded)
    work = channels * pixels
    tap = Launch(name="aten::addcmul_", macs=work, macs_in_bounds=work, bytes=image + 4 * pixels + image + image)
    assert taps == [tap] * 9


def test_a_layer_is_listed_around_its_core() -> None:
    names = [launch.name for launch in listed("involution", "cuda", Nchw(1, 16, 5, 7), device="cuda")]
    assert names == [
        "aten::convolution",
        "aten::native_batch_norm",
        "aten::relu",
        "aten::convolution",
        "opbench_operators::involution",
    ]


def test_copies_to_another_layout_are_launched() -> None:
    weight = 4 * (4 * 4 * 9)
    found = listed("convolution", "channels_last", SHAPE, scope="core")
    assert [(launch.name, launch.bytes) for launch in found] == [
        ("aten::clone", 2 * IMAGE),
        ("aten::clone", 2 * weight),
        ("aten::convolution", IMAGE + weight + IMAGE),
    ]


# What is a launch, and what it moves


def test_views_and_making_room_are_no_launches() -> None:
    def viewed(x: Tensor) -> Any:
        torch.empty(7, device=x.device)
        return x.flatten(2).mT[:, 1:].unflatten(1, (2, -1)).expand(2, -1, -1, -1).detach()

    assert of_core(viewed) == []
    assert of_core(lambda x: torch.ops.aten._unsafe_view(x, [280])) == []


@pytest.mark.parametrize(
    ("core", "bytes_"),
    [
        (lambda x: x + x, 2 * IMAGE),
        (lambda x: x + x[:, :1].expand(-1, 4, -1, -1), 2 * IMAGE),
        (lambda x: x + x[:1], 2 * IMAGE),
        (lambda x: x.neg_(), 2 * IMAGE),
        (lambda x: x.copy_(x[0, 0, 0, 0]), 4 + IMAGE),
        (lambda x: x.zero_(), IMAGE),
        (lambda x: torch.zeros_like(x), IMAGE),
        (lambda x: torch.neg(x, out=torch.empty_like(x)), 2 * IMAGE),
        (lambda x: x.unfold(2, 3, 1).clone(), IMAGE + 3 * IMAGE * 3 // 5),
        (lambda x: torch.cat([x[:, 1:], x[:, :3]]), IMAGE + 2 * IMAGE * 3 // 4),
        (lambda x: x.to(torch.float64), 3 * IMAGE),
    ],
    ids=[
        "twice the same",
        "a part of the same",
        "an image of the same",
        "in place",
        "copied over",
        "zeroed",
        "zeros of its shape",
        "into another",
        "overlapping windows",
        "overlapping parts",
        "wider",
    ],
)
def test_bytes_are_each_tensor_once_and_no_more_than_there_is(core: Any, bytes_: int) -> None:
    assert [moved for _, _, moved in of_core(core)] == [bytes_]


def test_a_number_that_is_read_is_no_launch_of_its_own() -> None:
    """A core that needs values runs on real tensors."""
    assert [name for name, _, _ in of_core(lambda x: x * float(x.max()))] == ["aten::max", "aten::mul"]


def test_what_is_made_once_and_kept_is_no_part_of_a_call() -> None:
    @functools.cache
    def ramp(device: torch.device) -> Tensor:
        return torch.arange(7.0, device=device)

    assert [name for name, _, _ in of_core(lambda x: x + ramp(x.device))] == ["aten::add"]


def test_elementwise_work_moves_bytes_and_a_product_that_may_be_summed_later_is_said_to_be_unknown() -> None:
    found = made_up(lambda p, x: F.relu(x) * x)
    assert found is not None
    relu, product = found.in_order
    assert (relu.name, relu.macs, relu.unknown, relu.bytes) == ("aten::relu", 0, False, 2 * IMAGE)
    assert (product.name, product.macs, product.unknown, product.bytes) == ("aten::mul", 0, True, 3 * IMAGE)


def test_what_is_launched_again_is_stored_once() -> None:
    found = made_up(lambda p, x: x.add(1).neg().add(1).add(1))
    assert found is not None
    assert [kind.name for kind in found.kinds] == ["aten::add", "aten::neg"]
    assert found.order == (0, 1, 0, 0)


def test_too_many_are_cut_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launches, "MOST", 2)
    found = made_up(lambda p, x: x.add(1).add(1).neg().exp().neg())
    assert found is not None
    assert ([launch.name for launch in found.in_order], found.left_out) == (["aten::add", "aten::add"], 3)
    assert [kind.name for kind in found.kinds] == ["aten::add"]


# The backward


def test_training_holds_the_backward_after_the_forward() -> None:
    names = [name for name, _, _ in of_core(lambda x: F.relu(x).exp(), "training")]
    assert names == ["aten::relu", "aten::exp", "aten::mul", "aten::threshold_backward"]


def test_gradients_that_meet_are_added() -> None:
    names = [name for name, _, _ in of_core(lambda x: x.exp() + x.neg(), "training")]
    assert names.count("aten::add") == 2


# Against the counters


def samples() -> list[Any]:
    return [
        pytest.param(name, index, id=f"{name}-{index}")
        for name in REGISTRY.names
        for index, _ in enumerate(REGISTRY.load(name).samples)
    ]


@BOTH_PASSES
@pytest.mark.parametrize(("name", "index"), samples())
def test_the_launches_of_a_layer_around_kernels_add_up_to_its_count(name: str, index: int, pass_: Pass) -> None:
    sample = REGISTRY.load(name).samples[index]
    case = Case(
        operator=name,
        shape=Nchw(2, sample.channels, 9, 6),
        params=dataclasses.asdict(sample.params),
        scope="layer",
        pass_=pass_,
    )
    found = worker.list_launches(REGISTRY, case, "cuda", "cuda")
    assert found is not None
    counted = counters.count(Subject.load(REGISTRY, case))
    assert not any(launch.unknown for launch in found.in_order)
    assert sum(launch.macs for launch in found.in_order) == counted.macs_dense
    assert sum(launch.macs_in_bounds for launch in found.in_order) == counted.macs_in_bounds


@pytest.mark.parametrize("name", ["convolution", "dynamic_convolution", "involution"])
def test_the_launches_of_a_reference_without_unknowns_add_up_to_its_count(name: str) -> None:
    case = Case(operator=name, shape=Nchw(2, 16, 9, 6), scope="layer")
    found = worker.list_launches(REGISTRY, case, "reference")
    assert found is not None
    assert not any(launch.unknown for launch in found.in_order)
    assert sum(launch.macs for launch in found.in_order) == counters.count(Subject.load(REGISTRY, case)).macs_dense


@pytest.mark.parametrize("name", ["convolution", "involution", "ls_convolution", "xvolution"])
def test_a_core_made_of_kernels_is_one_operation_and_moves_what_it_must(name: str) -> None:
    case = Case(operator=name, shape=Nchw(2, 16, 9, 6), scope="core")
    found = worker.list_launches(REGISTRY, case, "cuda", "cuda")
    counted = counters.count(Subject.load(REGISTRY, case))
    assert found is not None
    (launch,) = found.in_order
    assert launch.name == f"opbench_operators::{name}"
    assert (launch.macs, launch.macs_in_bounds) == (counted.macs_dense, counted.macs_in_bounds)
    assert launch.bytes == counted.compulsory_bytes


# What cannot be known


def test_of_compiled_code_and_of_networks_nothing_is_said() -> None:
    layer = Case(operator="convolution", shape=SHAPE)
    assert worker.list_launches(REGISTRY, layer, "compile") is None
    network = Case(operator="involution", network="rednet-26", scope="network", shape=Nchw(1, 3, 32, 32))
    assert worker.list_launches(REGISTRY, network, "reference") is None


def filled_unseen(x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    np.negative(x.numpy(), out=y.numpy())
    return y


@pytest.mark.parametrize("core", [filled_unseen, lambda x: filled_unseen(x) + 1], ids=["result", "within"])
def test_what_is_computed_out_of_sight_makes_the_list_worthless(core: Any) -> None:
    assert made_up(lambda p, x: core(x)) is None


def test_what_is_written_to_room_is_seen() -> None:
    def filled(x: Tensor) -> Tensor:
        y = torch.empty_like(x)
        y[:, 0] = x[:, 0]
        return y + 1

    assert [name for name, _, _ in of_core(filled)] == ["aten::copy_", "aten::add"]


def test_a_core_that_cannot_run_has_none() -> None:
    def broken(p: NoParams, x: Tensor) -> Tensor:
        raise ZeroDivisionError("no luck")

    assert made_up(broken) is None


def test_what_runs_on_a_gpu_alone_is_not_run_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """There it may be something else altogether."""
    ran = []

    def elsewhere(p: Any, x: Tensor, weight: Tensor) -> Tensor:
        ran.append(x.device.type)
        raise RuntimeError("no kernel for this device")

    operator = REGISTRY.load("convolution")
    offered = {"elsewhere": Implementation(core=elsewhere, devices=("cuda",))}
    monkeypatch.setitem(operator.__dict__, "implementations", offered)
    case = Case(operator="convolution", shape=SHAPE, scope="core")
    assert worker.list_launches(REGISTRY, case, "elsewhere", "cuda") is None
    assert ran == ["meta"]


def test_a_layer_is_listed_in_the_mode_of_its_pass() -> None:
    class Normed(nn.Module):
        def __init__(self, channels: int, params: NoParams, core: Core) -> None:
            super().__init__()
            self.norm, self.params, self.core = nn.BatchNorm2d(channels), params, core

        def forward(self, x: Tensor) -> Tensor:
            return self.core(self.params, self.norm(x))

    def names(pass_: Pass) -> list[str]:
        found = made_up(lambda p, x: x.neg(), pass_, "layer", layer=Normed)
        assert found is not None
        return [launch.name for launch in found.in_order]

    evaluated = ["aten::native_batch_norm", "aten::neg"]
    assert names("forward") == evaluated
    assert names("training") == ["aten::add_", *evaluated, "aten::neg", "aten::native_batch_norm_backward"]
