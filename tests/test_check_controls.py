"""Negative controls: for every operator, quantity and dtype the gate refuses what a broken implementation returns."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from opbench import check as gate
from opbench.api import Nchw, Operator, Sample, Unsupported
from opbench.catching import CatchingCase, inputs_of
from opbench.registry import Registry

REGISTRY = Registry.discover()
SIXTEEN_BITS = (torch.float16, torch.bfloat16)
DTYPES = (torch.float64, torch.float32, *SIXTEEN_BITS)
Control = Callable[[Tensor], Tensor]

each_operator = pytest.mark.parametrize("name", REGISTRY.names)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def zeros(values: Tensor) -> Tensor:
    return torch.zeros_like(values)


def negated(values: Tensor) -> Tensor:
    return -values


def a_twentieth_too_large(values: Tensor) -> Tensor:
    return values * 1.05


def shifted_along_rows(values: Tensor) -> Tensor:
    return values.roll(1, -1)


def shifted_along_columns(values: Tensor) -> Tensor:
    return values.roll(1, -2) if values.dim() > 1 else values


def transposed(values: Tensor) -> Tensor:
    return values.mT if values.dim() > 1 and values.shape[-1] == values.shape[-2] else values


def without_its_last_row(values: Tensor) -> Tensor:
    return without_last(values, -2 if values.dim() > 1 else -1)


def without_its_last_column(values: Tensor) -> Tensor:
    return without_last(values, -1)


def without_last(values: Tensor, axis: int) -> Tensor:
    kept = values.clone()
    kept.select(axis, -1).zero_()
    return kept


def with_channels_regrouped(values: Tensor) -> Tensor:
    """Channel g·M + m where m·2 + g belongs: the two ways to number 2 groups of M channels."""
    for axis in (1, 0):
        if values.dim() > axis and values.shape[axis] % 2 == 0 and values.shape[axis] > 2:
            groups: Tensor = values.unflatten(axis, (2, -1))
            return groups.transpose(axis, axis + 1).flatten(axis, axis + 1)
    return values


def with_nan(values: Tensor) -> Tensor:
    return with_one(values, -1, math.nan)


def with_infinity(values: Tensor) -> Tensor:
    return with_one(values, values.numel() // 2, math.inf)


def with_one(values: Tensor, index: int, value: float) -> Tensor:
    changed = values.clone(memory_format=torch.contiguous_format)
    changed.view(-1)[index] = value
    return changed


def rounded_to_bfloat16(values: Tensor) -> Tensor:
    return values.bfloat16().to(values.dtype)


def rounded_to_tf32(values: Tensor) -> Tensor:
    """Ten bits behind the point, by adding and subtracting what pushes the other thirteen out of a float32."""
    large = values.float() * (2**13 + 1)
    return (large - (large - values.float())).to(values.dtype)


def rounded_to_float32(values: Tensor) -> Tensor:
    return values.float().to(values.dtype)


CONTROLS: tuple[Control, ...] = (
    zeros,
    negated,
    a_twentieth_too_large,
    shifted_along_rows,
    shifted_along_columns,
    transposed,
    without_its_last_row,
    without_its_last_column,
    with_channels_regrouped,
    with_nan,
    with_infinity,
    rounded_to_bfloat16,
    rounded_to_tf32,
    rounded_to_float32,
)
APPLIES_IN: dict[Control, tuple[torch.dtype, ...]] = {
    rounded_to_bfloat16: (torch.float64, torch.float32),
    rounded_to_tf32: (torch.float64, torch.float32),
    rounded_to_float32: (torch.float64,),
}


class Runs:
    """A sample of an operator on square images: the truth, the scale, and what the reference gives in the dtype."""

    def __init__(self, operator: Operator, sample: Sample, dtype: torch.dtype, factor: float) -> None:
        self.operator, self.params, self.dtype = operator, sample.params, dtype
        self.tensors = inputs(operator, sample, dtype, factor)
        upcast = {name: gate.float64(tensor) for name, tensor in self.tensors.items()}
        absolute = {name: tensor.abs() for name, tensor in upcast.items()}
        self.truth = gate.evaluate(operator.reference, sample.params, upcast)
        self.scale = gate.evaluate(operator.reference, sample.params, absolute, absolute=True)
        self.own = gate.evaluate(operator.reference, sample.params, self.tensors)

    def compare(self, quantity: str, actual: Tensor | None) -> gate.Comparison:
        truth, own, scale = self.truth[quantity], self.own[quantity], self.scale[quantity]
        return gate.compare(quantity, actual, truth, own, scale, self.dtype)


def inputs(operator: Operator, sample: Sample, dtype: torch.dtype, factor: float = 1.0) -> dict[str, Tensor]:
    case = CatchingCase(sample.params, Nchw(2, sample.channels, 7, 7), "contiguous")
    tensors = inputs_of(operator, case, dtype)
    return {name: tensor * factor if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def runs_of(name: str, dtype: torch.dtype, factor: float = 1.0) -> list[Runs]:
    operator = REGISTRY.load(name)
    return [Runs(operator, sample, dtype, factor) for sample in operator.samples]


def slips(runs: Runs, controls: tuple[Control, ...]) -> tuple[list[str], set[tuple[str, Control]]]:
    """What the gate lets through though it differs from the reference, and the controls that made a difference."""
    slipped, used = [], set()
    for quantity, own in runs.own.items():
        for control in controls:
            broken = control(own)
            if torch.equal(broken, own):
                continue
            used.add((quantity, control))
            if runs.compare(quantity, broken).passed:
                slipped.append(f"{quantity} {control.__name__} with {runs.params}")
    return slipped, used


@each_operator
@each_dtype
def test_every_control_is_refused_for_every_quantity(name: str, dtype: torch.dtype) -> None:
    controls = tuple(control for control in CONTROLS if dtype in APPLIES_IN.get(control, DTYPES))
    tried = set()
    for runs in runs_of(name, dtype):
        slipped, used = slips(runs, controls)
        assert slipped == []
        tried |= used
    # Every control did change the forward, and the strongest two every gradient.
    assert {(quantity, control) for quantity in runs.truth for control in (zeros, with_nan)} <= tried
    assert {control for quantity, control in tried if quantity == gate.FORWARD} == set(controls)


@each_operator
@each_dtype
def test_the_reference_is_accepted_and_uses_about_half_of_its_budget_at_most(name: str, dtype: torch.dtype) -> None:
    """The budget is twice the reference's own loss and a little more."""
    rows = [runs.compare(quantity, own) for runs in runs_of(name, dtype) for quantity, own in runs.own.items()]
    assert len(rows) > len(REGISTRY.load(name).samples)
    assert max(row.error / row.budget for row in rows) < 0.5


@pytest.mark.parametrize("name", [name for name in REGISTRY.names if "native" in REGISTRY.load(name).implementations])
@each_dtype
def test_native_is_accepted(name: str, dtype: torch.dtype) -> None:
    operator = REGISTRY.load(name)
    for sample in operator.samples:
        try:
            rows = gate.check(
                operator, gate.usable_core(operator, "native"), sample.params, inputs(operator, sample, dtype)
            )
        except Unsupported:
            assert dtype in SIXTEEN_BITS
            continue
        assert [row for row in rows if not row.passed] == []


@each_operator
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_small_values_are_judged_like_large_ones(name: str, dtype: torch.dtype) -> None:
    """With inputs of 1e-5 an absolute tolerance of 1e-8 would take zeros for the product of two."""
    tried = set()
    for runs in runs_of(name, dtype, factor=1e-5):
        assert runs.truth[gate.FORWARD].abs().max() < 1e-3
        assert [row for row in (runs.compare(*item) for item in runs.own.items()) if not row.passed] == []
        slipped, used = slips(runs, (zeros, without_its_last_row, shifted_along_rows, with_nan))
        assert slipped == []
        tried |= used
    assert {quantity for quantity, control in tried if control is zeros} >= set(runs.truth)


@each_operator
def test_zeros_are_refused_even_where_float16_underflows(name: str) -> None:
    for runs in runs_of(name, torch.float16, factor=1e-5):
        for quantity, truth in runs.truth.items():
            if truth.count_nonzero():
                assert not runs.compare(quantity, torch.zeros_like(runs.own[quantity])).passed
        assert runs.truth[gate.FORWARD].count_nonzero()


@each_operator
def test_a_wrong_shape_or_dtype_is_refused_and_named(name: str) -> None:
    for runs in runs_of(name, torch.float32):
        for quantity, own in runs.own.items():
            short, wide = runs.compare(quantity, own[:-1]), runs.compare(quantity, own.double())
            assert (short.passed, wide.passed) == (False, False)
            assert short.where == f"shape {list(own[:-1].shape)} instead of {list(own.shape)}"
            assert wide.where == "float64 instead of float32"
