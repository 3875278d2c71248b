"""Three counters and how they are reconciled: exact where they can be, else by name what they do not know."""

import dataclasses
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from opbench.api import Core, Cost, Macs, Maker, Nchw, NoParams, Operator, Sample, Unsupported, Work
from opbench.cases import Case, Dtype, Pass, Scope
from opbench.measure import traced
from opbench.measure.counters import count
from opbench.registry import Registry
from opbench.results import Counted, Counts
from opbench.subject import META, Subject

SHAPE = Nchw(2, 4, 8, 6)
REGISTRY = Registry.discover()


def counts(
    operator: Operator,
    *,
    scope: Scope = "core",
    pass_: Pass = "forward",
    shape: Nchw = SHAPE,
    params: Any = None,
    dtype: Dtype = "float32",
) -> Counts:
    case = Case(operator="made_up", shape=shape, scope=scope, pass_=pass_, dtype=dtype)
    return count(Subject(case=case, operator=operator, params=params or operator.params(), core=operator.reference))


def answer(found: Counts, source: str) -> Counted:
    (counted,) = [counted for counted in found.counters if counted.source == source]
    return counted


# The shipped operators


def samples() -> list[Any]:
    return [
        pytest.param(operator, sample, id=f"{name}-{index}")
        for name in REGISTRY.names
        for operator in [REGISTRY.load(name)]
        for index, sample in enumerate(operator.samples)
    ]


@pytest.mark.parametrize("pass_", ["forward", "training"])
@pytest.mark.parametrize("scope", ["core", "layer"])
@pytest.mark.parametrize(("operator", "sample"), samples())
def test_formula_torch_and_fvcore_agree_on_every_shipped_operator(
    operator: Operator, sample: Sample, scope: Scope, pass_: Pass
) -> None:
    found = counts(operator, scope=scope, pass_=pass_, shape=Nchw(2, sample.channels, 9, 6), params=sample.params)
    assert found.agreement == "agree"
    assert not found.at_least
    exact = [counted.source for counted in found.counters if counted.macs == found.macs_dense and not counted.unknown]
    assert exact == (["formula", "torch", "fvcore"] if pass_ == "forward" else ["formula", "torch"])


@pytest.mark.parametrize("name", ["sasa", "drconv"])
def test_an_empty_batch_costs_nothing(name: str) -> None:
    found = counts(REGISTRY.load(name), scope="layer", shape=Nchw(0, 16, 8, 8))
    assert (found.macs_dense, found.agreement) == (0, "agree")


# A formula, right and wrong


def pixelwise(p: NoParams, x: Tensor, weight: Tensor) -> Tensor:
    """[N, C, H, W], [C, C] -> [N, C, H, W]."""
    return weight @ x.flatten(2)


def matrices(p: NoParams, shape: Nchw, make: Maker) -> dict[str, Tensor]:
    return {"x": make.normal(*shape), "weight": make.normal(shape.channels, shape.channels)}


class Pixelwise(nn.Module):
    """A 1x1 convolution as the core, and another in front of it."""

    def __init__(self, channels: int, params: NoParams, core: Core) -> None:
        super().__init__()
        self.params, self.core = params, core
        self.before = nn.Conv2d(channels, channels, 1)
        self.weight = nn.Parameter(torch.zeros(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.core(self.params, self.before(x), self.weight)


MACS = SHAPE.numel * SHAPE.channels


def priced(core: int = MACS, around: int = MACS, parameters: int = 36) -> Operator:
    """A plugin that says what its core, what is around it, and its layer's parameters come to."""
    work = Work.bilinear(Macs.exact(core))
    cost = Cost(parameters=parameters, core=work, layer=work + Work.bilinear(Macs.exact(around)))
    return Operator(reference=pixelwise, inputs=matrices, layer=Pixelwise, cost=lambda params, shape: cost)


def test_a_right_formula_agrees_in_every_scope_and_pass() -> None:
    for scope, pass_, times in (
        ("core", "forward", 1),
        ("core", "training", 3),
        ("layer", "forward", 2),
        ("layer", "training", 6),
    ):
        found = counts(priced(), scope=scope, pass_=pass_)  # type: ignore[arg-type]
        assert (found.macs_dense, found.agreement) == (times * MACS, "agree")


def test_a_formula_that_disagrees_with_the_counters_is_reported_with_all_numbers() -> None:
    found = counts(priced(around=MACS + 1), scope="layer")
    assert found.agreement == f"differ: formula {2 * MACS + 1}, torch {2 * MACS}, fvcore {2 * MACS}"
    assert found.macs_dense == 2 * MACS + 1


def test_a_formula_below_what_a_blind_counter_has_seen_already_is_reported() -> None:
    def gated(p: NoParams, x: Tensor) -> Tensor:
        return x

    class Gated(nn.Conv2d):
        def __init__(self, channels: int, params: NoParams, core: Core) -> None:
            super().__init__(channels, channels, 1, bias=False)
            self.core, self.params = core, params

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.core(self.params, x * super().forward(x))
            return output

    def operator(macs: int) -> Operator:
        nothing, work = Work.bilinear(Macs.exact(0)), Work.bilinear(Macs.exact(macs))
        return Operator(
            reference=gated, layer=Gated, cost=lambda p, shape: Cost(parameters=16, core=nothing, layer=work)
        )

    too_low = counts(operator(MACS - 1), scope="layer")
    assert too_low.agreement == f"differ: formula {MACS - 1}, torch at least {MACS}, fvcore at least {MACS}"
    possible = counts(operator(MACS + SHAPE.numel), scope="layer")
    assert possible.agreement == "torch cannot count aten::mul; fvcore cannot count aten::mul"
    assert (possible.macs_dense, possible.at_least) == (MACS + SHAPE.numel, False)


def test_a_parameter_formula_that_disagrees_is_reported_and_the_layer_believed() -> None:
    found = counts(priced(parameters=35), scope="layer")
    assert found.parameters == 4 * 4 + 4 + 4 * 4
    assert found.agreement == "agree; the plugin's formula says 35 parameters, its layer has 36"


def test_a_core_has_no_parameters() -> None:
    assert counts(priced(), scope="core").parameters is None


def test_a_layer_is_not_counted_where_there_is_none() -> None:
    with pytest.raises(Unsupported, match="made_up has no layer, only a core"):
        counts(Operator(reference=pixelwise, inputs=matrices), scope="layer")


# No formula: the counters look inside


def looked_into(reference: Core, **more: Any) -> Counts:
    return counts(Operator(reference=reference), **more)


def test_windows_times_weights_summed_are_at_least_nothing_and_the_product_is_named() -> None:
    def blur(p: NoParams, x: Tensor) -> Tensor:
        blurred: Tensor = (F.unfold(x, 3, padding=1).unflatten(1, (4, 9)) * torch.full((9, 1), 1 / 9)).sum(2).view_as(x)
        return blurred

    found = looked_into(blur)
    assert (found.macs_dense, found.macs_in_bounds, found.at_least) == (0, None, True)
    assert found.agreement == "torch cannot count aten::mul; fvcore cannot count aten::mul"
    assert answer(found, "formula") == Counted(source="formula", note="the plugin gives no cost")
    assert answer(found, "torch").note == "looked inside the reference"


def test_what_one_counter_knows_the_other_need_not() -> None:
    def resize(p: NoParams, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear")

    found = looked_into(resize)
    assert (found.macs_dense, found.at_least) == (4 * 4 * SHAPE.numel, False)  # four neighbours of each new pixel
    assert found.agreement == "torch cannot count aten::upsample_bilinear2d"


def test_attention_is_counted_by_its_two_products() -> None:
    def attend(p: NoParams, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x)

    found = looked_into(attend)
    assert (found.macs_dense, found.at_least) == (2 * 2 * 4 * 8 * 8 * 6, False)
    assert found.agreement == "fvcore cannot count aten::scaled_dot_product_attention"
    assert looked_into(attend, pass_="training").macs_dense == 3 * (2 * 2 * 4 * 8 * 8 * 6)


def test_multi_head_attention_is_counted_around_its_fast_path() -> None:
    def attend(p: NoParams, x: Tensor) -> Tensor:
        attention = nn.MultiheadAttention(6, 2, batch_first=True, device=x.device).eval().requires_grad_(False)
        rows = x.flatten(0, 1)
        output: Tensor = attention(rows, rows, rows, need_weights=False)[0]
        return output

    found = looked_into(attend)
    rows = 2 * 4 * 8
    assert (found.macs_dense, found.at_least) == (rows * 6 * (3 * 6 + 6) + 2 * rows * 8 * 6, False)


@pytest.mark.parametrize(
    ("reference", "named"),
    [
        (lambda p, x: torch.fft.irfft2(torch.fft.rfft2(x)), {"aten::_fft_r2c", "aten::fft_rfft2"}),
        (lambda p, x: F.grid_sample(x, x.new_zeros(2, 8, 6, 2), "bicubic"), {"aten::grid_sampler"}),
        (lambda p, x: nn.LSTM(6, 6, device=x.device)(x[0])[0].detach(), {"aten::mul", "aten::lstm"}),
    ],
    ids=["fft", "bicubic sampling", "lstm"],
)
@pytest.mark.filterwarnings("ignore:Default grid_sample")
def test_what_no_counter_knows_is_named_and_the_total_at_least(reference: Core, named: set[str]) -> None:
    found = looked_into(reference)
    assert found.at_least
    assert named <= {name for counted in found.counters for name in counted.unknown}


@pytest.mark.filterwarnings("ignore:Default grid_sample")
def test_bilinear_sampling_is_four_products_a_value() -> None:
    found = looked_into(lambda p, x: F.grid_sample(x, x.new_zeros(2, 5, 7, 2)))
    assert answer(found, "fvcore").macs == 4 * (2 * 4 * 5 * 7)
    assert answer(found, "torch").unknown == ("aten::grid_sampler_2d",)


@pytest.mark.parametrize("pass_", ["forward", "training"])
def test_activations_and_norms_count_nothing_and_all_agree(pass_: Pass) -> None:
    def soft(p: NoParams, x: Tensor) -> Tensor:
        smooth = F.layer_norm(F.group_norm(F.gelu(x), 2), (6,)).softmax(1)
        return F.interpolate(F.max_pool2d(F.adaptive_avg_pool2d(smooth, 4), 2), scale_factor=2) + 3 * x.mean()

    found = looked_into(soft, pass_=pass_)
    assert (found.macs_dense, found.at_least) == (0, False)
    assert found.agreement == ("agree" if pass_ == "forward" else "")


def test_a_core_that_cannot_run_says_so_in_each_column() -> None:
    def broken(p: NoParams, x: Tensor) -> Tensor:
        raise ZeroDivisionError("no luck")

    found = looked_into(broken)
    assert (found.macs_dense, found.compulsory_bytes) == (None, None)
    assert answer(found, "torch").note == "cannot run it: no luck"
    assert answer(found, "fvcore").note == "cannot trace it: no luck"


# What a count costs


def test_a_core_with_a_formula_is_never_computed() -> None:
    devices: list[torch.device] = []

    def watched(p: NoParams, x: Tensor, weight: Tensor) -> Tensor:
        devices.append(x.device)
        return pixelwise(p, x, weight)

    for scope in ("core", "layer"):
        assert counts(dataclasses.replace(priced(), reference=watched), scope=scope).agreement == "agree"
    assert set(devices) == {META}


def test_a_core_that_needs_values_is_counted_all_the_same() -> None:
    def picky(p: NoParams, x: Tensor, weight: Tensor) -> Tensor:
        return pixelwise(p, x * float(x.max()), weight)

    for scope in ("core", "layer"):
        found = counts(dataclasses.replace(priced(), reference=picky), scope=scope)
        assert found.agreement == "agree"


def test_a_layer_that_cannot_be_built_on_the_meta_device_is_counted_all_the_same() -> None:
    class Peeking(Pixelwise):
        def __init__(self, channels: int, params: NoParams, core: Core) -> None:
            super().__init__(channels, params, core)
            self.peek = float(self.before.weight.sum())

    found = counts(dataclasses.replace(priced(), layer=Peeking), scope="layer")
    assert (found.parameters, found.agreement) == (36, "agree")


# fvcore


@pytest.mark.parametrize("scope", ["core", "layer"])
def test_without_fvcore_its_column_says_so_and_nothing_else_changes(
    scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_it = counts(priced(), scope=scope)
    for name in ("fvcore", "fvcore.nn"):
        monkeypatch.setitem(sys.modules, name, None)
    without = counts(priced(), scope=scope)
    assert answer(without, "fvcore") == Counted(source="fvcore", note="not installed")
    assert dataclasses.replace(without, counters=()) == dataclasses.replace(with_it, counters=())
    assert without.counters[:2] == with_it.counters[:2]


def trace(call: Any, *tensors: Tensor) -> tuple[int, tuple[str, ...]]:
    seen = traced.count(lambda: call(*tensors), tensors, {})
    return seen.macs, seen.unknown


def test_a_matrix_product_that_broadcasts_is_counted_for_each_of_its_results() -> None:
    weight, images, vector = torch.ones(3, 4), torch.ones(2, 4, 5), torch.ones(5)
    assert trace(torch.matmul, weight, images) == (2 * 3 * 4 * 5, ())
    assert trace(torch.matmul, images, vector) == (2 * 4 * 5, ())
    assert trace(torch.matmul, vector, vector) == (5, ())


@pytest.mark.parametrize(
    ("equation", "shapes", "macs"),
    [
        ("nchw,oc->nohw", [(2, 5, 7, 9), (3, 5)], 2 * 3 * 5 * 7 * 9),
        ("n c h w, o c -> n o h w", [(11, 13, 17, 19), (23, 13)], 11 * 23 * 13 * 17 * 19),  # 1 062 347: seven digits
        ("nmt,t...->nm...", [(2, 3, 4), (4, 5, 6)], 2 * 3 * 4 * 5 * 6),
        ("...i,...i", [(2, 1, 5), (1, 3, 5)], 2 * 3 * 5),
        ("ij,jk", [(2, 3), (3, 4)], 24),
        ("nchw->nhwc", [(2, 3, 4, 5)], 0),
        ("nc,nc->n", [(0, 3), (0, 3)], 0),
    ],
)
def test_an_einsum_of_two_is_one_product_for_each_combination_of_its_labels(
    equation: str, shapes: list[tuple[int, ...]], macs: int
) -> None:
    assert trace(lambda *tensors: torch.einsum(equation, *tensors), *map(torch.ones, shapes)) == (macs, ())


def test_an_einsum_of_three_has_no_one_count_and_leaves_the_answer_to_torch() -> None:
    found = looked_into(lambda p, x: torch.einsum("nchw,nchv,nchu->nwvu", x, x, x))
    assert answer(found, "fvcore").note == "cannot trace it: an einsum of more than two operands has no one count"


@pytest.mark.parametrize("groups", [1, 4])
def test_a_convolution_padded_by_name_is_counted_as_any_other(groups: int) -> None:
    weight = torch.ones(8, 4 // groups, 3, 3)
    by_name = trace(lambda x: F.conv2d(x, weight, padding="same", groups=groups), torch.ones(SHAPE))
    assert by_name == trace(lambda x: F.conv2d(x, weight, padding=1, groups=groups), torch.ones(SHAPE))
    assert by_name == (2 * 8 * 6 * 8 * (4 // groups) * 9, ())


def test_an_operation_of_a_plugins_own_is_named() -> None:
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: Tensor) -> Tensor:
            return x @ x.mT

        @staticmethod
        def backward(context: Any, *gradients: Tensor) -> Any:
            return gradients[0]

    assert trace(Own.apply, torch.ones(2, 3, 4)) == (0, ("prim::PythonOp.Own",))
    assert looked_into(lambda p, x: Own.apply(x)).macs_dense == 2 * 4 * 8 * 8 * 6  # type: ignore[no-untyped-call]


# Bytes


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("float64", 8), ("bfloat16", 2)])
def test_compulsory_bytes_are_each_tensor_once(dtype: Dtype, size: int) -> None:
    x, weight = SHAPE.numel, 16
    core = counts(priced(), dtype=dtype).compulsory_bytes
    assert core == size * (x + weight + x)
    layer = counts(priced(), scope="layer", dtype=dtype).compulsory_bytes
    assert layer == size * (x + 36 + x)


def test_training_reads_again_and_writes_a_gradient_for_each_input_and_parameter() -> None:
    x, parameters = SHAPE.numel, 36
    training = counts(priced(), scope="layer", pass_="training").compulsory_bytes
    assert training == 4 * ((x + parameters + x) + (x + parameters + x) + (x + parameters))
