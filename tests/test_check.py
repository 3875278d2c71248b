"""One comparison of the gate, its budget and its ceiling, and the parts a check is made of."""

import functools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from opbench import check as gate
from opbench.api import Core, Implementation, Operator, Unsupported

SIXTEEN_BITS = (torch.float16, torch.bfloat16)
DTYPES = (torch.float64, torch.float32, *SIXTEEN_BITS)

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4)
seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from(DTYPES)
properties = settings(derandomize=True, deadline=None, max_examples=60)


def normal(shape: list[int], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def held(actual: Tensor, truth: Tensor, dtype: torch.dtype) -> gate.Comparison:
    """Compare where the reference loses nothing but one rounding."""
    return gate.compare("forward", actual, truth, truth.to(dtype), truth.abs(), dtype)


@given(shapes, seeds, dtypes)
@properties
def test_the_truth_rounded_once_is_accepted(shape: list[int], seed: int, dtype: torch.dtype) -> None:
    truth = normal(shape, seed)
    assert held(truth.to(dtype), truth, dtype).passed


@given(shapes, seeds, dtypes, st.floats(1.01, 1e6))
@properties
def test_a_common_factor_beyond_the_ceiling_is_refused(
    shape: list[int], seed: int, dtype: torch.dtype, times: float
) -> None:
    truth = normal(shape, seed)
    # The factor's own rounding in the dtype comes on top.
    error = times * gate.rounding(dtype)[1] + torch.finfo(dtype).eps
    for actual in (truth * (1 + error), truth * (1 - error)):
        assert not held(actual.to(dtype), truth, dtype).passed


@given(shapes, seeds, st.data())
@properties
def test_one_value_that_is_not_finite_is_refused_and_named(shape: list[int], seed: int, data: st.DataObject) -> None:
    truth = normal(shape, seed)
    index = tuple(data.draw(st.integers(0, extent - 1)) for extent in shape)
    actual = truth.clone()
    actual[index] = data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    row = held(actual, truth, torch.float64)
    assert not row.passed
    assert row.where == f"{list(index)} is not finite"


@given(shapes, seeds, st.data())
@properties
def test_the_worst_value_is_named(shape: list[int], seed: int, data: st.DataObject) -> None:
    truth = normal(shape, seed)
    index = tuple(data.draw(st.integers(0, extent - 1)) for extent in shape)
    actual = truth.clone()
    actual[index] += 10 * truth.abs().max()
    row = held(actual, truth, torch.float64)
    assert not row.passed
    assert row.where == str(list(index))


@given(shapes, seeds, st.integers(-60, 60))
@properties
def test_the_unit_of_a_quantity_does_not_matter(shape: list[int], seed: int, exponent: int) -> None:
    truth, noise = normal(shape, seed), normal(shape, seed + 1)
    own, actual = truth * (1 + 1e-7 * noise), truth * (1 - 1e-7 * noise)
    one, other = (
        gate.compare(
            "forward", (unit * actual).float(), unit * truth, (unit * own).float(), unit * truth.abs(), torch.float32
        )
        for unit in (1.0, 2.0**exponent)
    )
    assert one == other


def test_one_wrong_value_in_half_a_million_is_refused_though_the_norm_hardly_knows() -> None:
    truth = normal([512, 1024], seed=0)
    actual = truth.float()
    actual[300, 700] += 5e-4
    assert float((actual - truth).norm() / truth.norm()) < gate.rounding(torch.float32)[0]
    row = held(actual, truth, torch.float32)
    assert not row.passed
    assert row.where == "[300, 700]"
    # Unless that value is what remains of terms a thousand times as large.
    terms = truth.abs()
    terms[300, 700] = 1000
    assert gate.compare("forward", actual, truth, truth.float(), terms, torch.float32).passed


def summed(products: Tensor, dtype: torch.dtype) -> gate.Comparison:
    """Add up rows one after another in a dtype; the reference is exact but for one rounding."""
    truth = products.double().sum(0)
    total = functools.reduce(torch.add, products.to(dtype).unbind(0))
    return gate.compare("forward", total, truth, truth.to(dtype), products.double().abs().sum(0), dtype)


def test_a_plain_loop_over_many_terms_is_accepted_in_float32() -> None:
    """It loses about a fifth of √n roundings: as much as a weight's gradient does in a library's convolution."""
    row = summed(normal([20_000, 64], seed=0).float(), torch.float32)
    assert row.passed
    assert 0.1 < row.error / torch.finfo(torch.float32).eps / math.sqrt(20_000) < 0.4
    assert row.error > gate.rounding(torch.float32)[0]


@pytest.mark.parametrize("dtype", SIXTEEN_BITS, ids=str)
def test_a_total_in_16_bits_is_refused(dtype: torch.dtype) -> None:
    assert not summed(normal([1000, 64], seed=0).to(dtype), dtype).passed


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_two_runs_agree_when_each_lost_its_share_and_not_when_one_is_broken(dtype: torch.dtype) -> None:
    one, other = (normal([8, 64], seed=0) * (1 + sign * torch.finfo(dtype).eps) for sign in (1, -1))
    assert gate.agree("forward", one.to(dtype), other.to(dtype)).passed
    for broken in (torch.zeros_like(one), one.roll(1, -1), one * math.nan, -one):
        assert not gate.agree("forward", broken.to(dtype), other.to(dtype)).passed
    assert not gate.agree("forward", one.to(dtype)[1:], other.to(dtype)).passed


def test_where_the_truth_is_zero_nothing_else_will_do() -> None:
    truth = torch.zeros(2, 3, dtype=torch.float64)
    tiny = torch.zeros(2, 3)
    tiny[1, 2] = 1e-30
    assert held(torch.zeros(2, 3), truth, torch.float32).passed
    assert not held(tiny, truth, torch.float32).passed
    assert held(tiny, truth, torch.float32).where == "[1, 2]"


def test_an_empty_quantity_must_still_have_its_shape_and_dtype() -> None:
    truth = torch.empty(0, 3, dtype=torch.float64)
    assert held(torch.empty(0, 3), truth, torch.float32).passed
    assert not held(torch.empty(0, 2), truth, torch.float32).passed
    assert not held(torch.empty(0, 3), truth, torch.float16).passed


def doubled(_: Any, x: Tensor) -> Tensor:
    return 2 * x


DOUBLED = Operator(reference=doubled)


def loses(error: float) -> Core:
    """Twice the input in float32 and wider, and in 16 bits too large by a relative error."""

    def core(_: Any, x: Tensor) -> Tensor:
        return (x.double() * (2 * (1 + error))).to(x.dtype) if x.dtype in SIXTEEN_BITS else 2 * x

    return core


def passes(reference: Core, core: Core, dtype: torch.dtype) -> bool:
    x = torch.rand(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)).add(1).to(dtype)
    rows = gate.check(Operator(reference=reference), core, None, {"x": x})
    return all(row.passed for row in rows)


@pytest.mark.parametrize("dtype", SIXTEEN_BITS, ids=str)
def test_a_poor_reference_widens_the_budget_but_does_not_open_the_gate(dtype: torch.dtype) -> None:
    slack, ceiling = gate.rounding(dtype)
    assert passes(loses(0), loses(0), dtype)
    assert not passes(loses(0), loses(0.6 * ceiling), dtype)
    assert passes(loses(0.5 * ceiling), loses(0.6 * ceiling), dtype)
    # Twice 0.9 of the ceiling would allow 1.5 of it, and twice 50 % would allow zeros.
    assert not passes(loses(0.9 * ceiling), loses(1.5 * ceiling), dtype)
    assert not passes(loses(0.5), lambda _, x: 0 * x, dtype)
    assert not passes(loses(0.5), loses(0.5), dtype)
    assert passes(loses(0.5), loses(0), dtype)
    assert slack < 0.5 * ceiling


@pytest.mark.parametrize("dtype", SIXTEEN_BITS, ids=str)
def test_a_reference_that_overflows_accepts_only_what_does_not(dtype: torch.dtype) -> None:
    assert not passes(loses(math.inf), loses(math.inf), dtype)
    assert passes(loses(math.inf), loses(0), dtype)


def peaks(_: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention without a scale: logits of some hundred, of which the softmax takes differences."""
    return torch.softmax(q @ k.mT, -1) @ v


def in_tf32(core: Core) -> Core:
    """The same with every operand cut to the ten bits of mantissa that TF32 has."""

    def cut(tensor: Tensor) -> Tensor:
        return (tensor.view(torch.int32) & ~0x1FFF).view(torch.float32)

    def cut_core(p: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # Straight through, so that the gradients are those of the cut values.
        q, k, v = (tensor + (cut(tensor.detach()) - tensor.detach()) for tensor in (q, k, v))
        result: Tensor = core(p, q, k, v)
        return result

    return cut_core


def test_where_inputs_a_rounding_away_give_another_result_the_reference_is_not_refused() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = (25 * torch.randn(2, 24, 16, generator=generator) for _ in range(2))
    tensors = {"q": q, "k": k, "v": torch.randn(2, 24, 16, generator=generator)}
    operator = Operator(reference=peaks)
    standard = gate.Standard.of(operator, None, tensors)
    quantity = "grad_q"
    # The case is what it is meant to be: the reference itself loses more than the ceiling of well-behaved sums.
    plain = gate.compare(
        quantity, standard.own[quantity], standard.truth[quantity], standard.own[quantity], standard.scale[quantity],
        torch.float32,
    )  # fmt: skip
    assert not plain.passed
    rows = gate.check(operator, peaks, None, tensors)
    assert [row.quantity for row in rows if not row.passed] == []
    # What is a thousand times less precise is still refused.
    refused = [row.quantity for row in gate.check(operator, in_tf32(peaks), None, tensors) if not row.passed]
    assert {"grad_q", "grad_k"} <= set(refused)


def test_the_ceiling_is_below_what_it_must_keep_out() -> None:
    """TF32 loses up to 2⁻¹¹ of a value and bfloat16 up to 2⁻⁹; a row of 512 is the 512th part of a squared norm."""
    assert gate.rounding(torch.float32)[1] < 2**-11 / 3
    assert gate.rounding(torch.float64)[1] < 1e-3 * torch.finfo(torch.float32).eps
    assert all(gate.rounding(dtype)[1] < 512**-0.5 for dtype in DTYPES)


def test_every_dtype_receives_the_same_incoming_gradient() -> None:
    first, *others = (gate.incoming_gradient(torch.empty(2, 3, 5, dtype=dtype)) for dtype in DTYPES)
    assert all(torch.equal(first, other.double()) for other in others)
    assert 0.5 < first.std() < 2


def test_integers_have_no_gradient() -> None:
    def picked(_: Any, x: Tensor, index: Tensor) -> Tensor:
        return x[:, index]

    tensors = {"x": torch.randn(1, 4, 3, 3), "index": torch.tensor([2, 0])}
    rows = gate.check(Operator(reference=picked), picked, None, tensors)
    assert [row.quantity for row in rows] == ["forward", "grad_x"]
    assert all(row.passed for row in rows)


def test_fresh_memory_is_not_a_number_inside_and_only_there() -> None:
    with gate.poisoned_memory():
        fresh = [torch.empty(64), torch.empty_like(torch.ones(8, dtype=torch.bfloat16)), torch.ones(3).new_empty(5)]
    assert all(bool(tensor.isnan().all()) for tensor in fresh)
    assert not torch.are_deterministic_algorithms_enabled()


def test_poisoning_ends_with_an_error_and_leaves_torch_as_it_was() -> None:
    with pytest.raises(KeyError), gate.poisoned_memory():
        raise KeyError
    assert not torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with gate.poisoned_memory():
            assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_cores_are_found_by_name() -> None:
    operator = Operator(reference=doubled, implementations={"ours": Implementation(core=loses(0))})
    assert gate.usable_core(operator, "reference") is doubled
    assert gate.usable_core(operator, "ours") is operator.implementations["ours"]
    with pytest.raises(Unsupported, match="no implementation 'cuda'; there are reference, compile, ours"):
        gate.usable_core(operator, "cuda")


def test_what_a_layer_feeds_its_core_is_noted() -> None:
    calls: list[tuple[Any, tuple[Tensor, ...]]] = []
    x = torch.ones(2, requires_grad=True)
    output = gate.shared_inputs(doubled, calls)("params", x)
    ((params, (seen,)),) = calls
    assert torch.equal(output, 2 * x)
    assert params == "params"
    assert torch.equal(seen, x)
    assert not seen.requires_grad


def test_an_overwritten_input_comes_before_what_it_spoils() -> None:
    def scribbling(_: Any, x: Tensor, weight: Tensor) -> Tensor:
        output = x * weight
        x.data.zero_()
        return output

    tensors = {"x": torch.ones(1, 2, 3, 3), "weight": torch.full((1, 2, 3, 3), 0.5)}
    rows = gate.check(Operator(reference=lambda _, x, weight: x * weight), scribbling, None, tensors)
    assert [row.quantity for row in rows if not row.passed] == ["x", "grad_weight"]


def test_a_core_that_does_not_cover_a_case_says_so() -> None:
    def picky(_: Any, x: Tensor) -> Tensor:
        raise Unsupported(f"{x.shape[1]} channels are too few")

    with pytest.raises(Unsupported, match="8 channels are too few"):
        gate.check(DOUBLED, picky, None, {"x": torch.ones(1, 8, 2, 2)})


def test_a_compiled_core_takes_as_many_shapes_as_a_network_has(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    core = gate.usable_core(DOUBLED, "compile")
    for extent in range(1, 21):
        assert torch.equal(core(None, torch.ones(extent)), torch.full((extent,), 2.0))
