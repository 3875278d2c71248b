"""One walk through a network: its steps against hand counts, other counters, and the operators' own formulas."""

from __future__ import annotations

import copy
import dataclasses
import logging
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from opbench.cases import Case, Nchw
from opbench.errors import Unsupported
from opbench.measure import counters
from opbench.measure import steps as of_cases
from opbench.networks import catalogue
from opbench.networks.conventions import CONVENTIONS, totals
from opbench.networks.slot import Filling, slots
from opbench.networks.walk import Step, counted_core, walk
from opbench.registry import Registry
from opbench.subject import Subject
from opbench.work import Macs
from tests.networks.building import built, load

REGISTRY = Registry.discover()


class Small(nn.Module):
    """[1, 2, 5, 7] -> [1, 4, 4]: one step of each kind, as a module or as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, 2, 1)
        self.norm = nn.BatchNorm2d(4)
        self.activation = nn.ReLU()
        self.grouped = nn.Conv2d(4, 4, (1, 3), padding="same", groups=2, bias=False)
        self.head = nn.Linear(3, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activation(self.norm(self.first(x)))
        x = F.relu(self.grouped(x))
        x = F.interpolate(F.max_pool2d(x, 3, 1, 1), scale_factor=2.0, mode="bilinear")
        x = F.adaptive_avg_pool2d(x, (1, 3)).squeeze(2)
        return torch.einsum("ncw,ndw->ncd", x, self.head(x)[..., :3])


def small() -> tuple[Step, ...]:
    with torch.device("meta"):
        return walk(Small(), torch.empty(1, 2, 5, 7))


def test_a_walk_notes_what_can_be_counted_by_hand() -> None:
    noted = [(step.kind, step.path, step.module, step.work.forward.dense, step.offsets) for step in small()]
    pixels = 3 * 4  # of the output of the first convolution
    assert noted == [
        ("convolution", "first", "Conv2d", 4 * pixels * 2 * 9, 4 * pixels),
        ("batch_norm", "norm", "BatchNorm2d", 0, 0),
        ("relu", "activation", "ReLU", 0, 0),
        ("convolution", "grouped", "Conv2d", 4 * pixels * 2 * 3, 0),
        ("relu", "", "", 0, 0),
        ("pool", "", "", 0, 0),
        ("upsample_bilinear", "", "", 0, 0),
        ("global_pool", "", "", 0, 0),
        ("linear", "head", "Linear", 4 * 3 * 6, 4 * 6),
        ("product", "", "", 4 * 4 * 3, 0),
    ]


def test_taps_outside_the_image_are_known() -> None:
    first, grouped = (step.work.forward for step in small() if step.kind == "convolution")
    # Rows -1..5 in steps of two: windows see 2, 3, 2 of the five rows; columns of seven 2, 3, 3, 2.
    assert first == Macs(4 * 12 * 18, 4 * 2 * (2 + 3 + 2) * (2 + 3 + 3 + 2))
    assert grouped == Macs(4 * 12 * 6, 4 * 2 * 3 * (2 + 3 + 3 + 2))


def test_conventions_count_the_same_walk_differently() -> None:
    macs, pixels = 4 * 12 * 18 + 4 * 12 * 6 + 72 + 48, 3 * 4
    total = totals(small())
    assert total["MACs"] == total["C3"] == macs
    # Of mmcv: modules alone, the first convolution's bias, no classifier.
    assert total["C1"] == 4 * 12 * 24 + 4 * pixels + 2 * 4 * pixels + 4 * pixels
    assert total["C2"] == macs + 2 * 4 * pixels + 4 * (4 * 4 * pixels) + 4 * 4 * pixels
    assert total["C2-train"] - total["C2"] == 3 * 4 * pixels
    assert total["C4"] == macs - 72 + 5 * 4 * pixels + 4 * 4 * pixels
    assert total["C5"] == 2 * macs + 2 * 4 * pixels + 4 * pixels + 4 * 4 * pixels


def test_a_convention_sees_exactly_the_classes_it_names() -> None:
    class WrappedConv2d(nn.Conv2d):
        pass

    class OwnConv2d(nn.Conv2d):
        pass

    def counted(kind: type[nn.Module]) -> dict[str, int]:
        with torch.device("meta"):
            return totals(walk(nn.Sequential(kind(2, 4, 1)), torch.empty(1, 2, 3, 3)))

    plain, wrapped, own = counted(nn.Conv2d), counted(WrappedConv2d), counted(OwnConv2d)
    assert plain["C1"] == wrapped["C1"] == 9 * 4 * (2 + 1)
    assert (plain["C1-old"], wrapped["C1-old"], own["C1"], own["C1-old"]) == (9 * 4 * 3, 0, 0, 0)
    assert plain["MACs"] == wrapped["MACs"] == own["MACs"] == 9 * 4 * 2


@pytest.mark.parametrize("operator", REGISTRY.names)
def test_a_network_is_the_sum_of_its_layers_and_of_what_is_around_them(operator: str) -> None:
    case = Case(operator=operator, network="resnet-26", scope="network", shape=Nchw(2, 3, 64, 96))
    subject = Subject.load(REGISTRY, case)
    places = of_cases.places(subject)
    walked = of_cases.of(subject)
    paths = {path for path, *_ in places}
    around = [step for step in walked if not any(_within(step.path, path) for path in paths)]
    for pass_ in ("forward", "training"):
        layers = Macs.exact(0)
        for _, slot, x, _ in places:
            assert slot.operator.cost is not None
            layers += slot.operator.cost(slot.params, x).layer.of_pass(pass_)
        assert of_cases.macs(walked, pass_) == layers + of_cases.macs(around, pass_)


def _within(path: str, outer: str) -> bool:
    return path == outer or path.startswith(f"{outer}.")


@pytest.mark.parametrize("operator", REGISTRY.names)
@pytest.mark.parametrize("pass_", ["forward", "training"])
def test_agrees_with_the_counter_of_torch(operator: str, pass_: Any) -> None:
    case = Case(operator=operator, network="resnet-26", scope="network", shape=Nchw(1, 3, 64, 64), pass_=pass_)
    counts = counters.count(Subject.load(REGISTRY, case))
    assert counts.agreement == "agree"
    assert [counted.source for counted in counts.counters] == ["formula", "torch"]


@pytest.mark.parametrize(
    "name", ["resnet-50", "mobilenet-v2-0.5", "convnext-t", "inceptionnext-t", "shufflenet-v2-0.5"]
)
def test_the_rule_of_fvcore_is_what_fvcore_counts(name: str) -> None:
    fvcore = pytest.importorskip("fvcore.nn")
    network = catalogue.find(name)
    x = torch.randn(1, 3, 64, 64)
    module = built(name).eval().requires_grad_(False)
    # The operators in these slots are convolutions; their readable form is no single operation to fvcore.
    native = _filled(name, "native").eval().requires_grad_(False)
    native.load_state_dict(module.state_dict())
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("fvcore").setLevel(logging.ERROR)
        analysis = fvcore.FlopCountAnalysis(native, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        counted = analysis.total()
    with torch.device("meta"):
        walked = walk(_filled(name, counted_core), torch.empty(1, 3, 64, 64))
    assert network.operator in ("convolution", "large_kernel_depthwise")
    assert CONVENTIONS["C2"].total(walked) == counted


def _filled(name: str, core: Any) -> nn.Module:
    network = catalogue.find(name)
    operator = load(network.operator)
    chosen = operator.implementations[core].core if isinstance(core, str) else core
    return network.build(Filling(name=network.operator, operator=operator, params=network.params, core=chosen))


def test_what_gives_no_cost_cannot_be_walked_through() -> None:
    costless = dataclasses.replace(load("involution"), cost=None)
    fill = Filling(name="mine", operator=costless, params={}, core=counted_core)
    with torch.device("meta"):
        network = catalogue.find("resnet-26").build(fill)
        with pytest.raises(Unsupported, match="gives no cost"):
            walk(network, torch.empty(1, 3, 32, 32))
        # The hooks of the walk that broke off are gone: the next one finds nothing of it.
        assert walk(Small(), torch.empty(1, 2, 5, 7)) == small()


def test_the_copy_of_a_network_shares_its_operators() -> None:
    network = built("rednet-26", blocks=(1, 1, 1, 1), classes=3)
    twin = copy.deepcopy(network)
    assert all(
        one.operator is other.operator for one, other in zip(slots(network).values(), slots(twin).values(), strict=True)
    )
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(network.eval()(x), twin.eval()(x))
