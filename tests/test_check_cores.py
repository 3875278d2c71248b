"""Broken cores, checked as a run would: unwritten results, missing gradients, overwritten inputs, mixed-up channels."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from opbench import check as gate
from opbench.api import Core, Nchw, Operator, Sample
from opbench.catching import CatchingCase, inputs_of
from opbench.registry import Registry

REGISTRY = Registry.discover()
Control = Callable[[Tensor], Tensor]

each_operator = pytest.mark.parametrize("name", REGISTRY.names)


def inputs(operator: Operator, sample: Sample, dtype: torch.dtype) -> dict[str, Tensor]:
    return inputs_of(operator, CatchingCase(sample.params, Nchw(2, sample.channels, 7, 7), "contiguous"), dtype)


class Backward(torch.autograd.Function):
    """The identity, with a backward that corrupts what flows through it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, corrupt: Control) -> Tensor:
        ctx.corrupt = corrupt
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.corrupt(gradients[0]), None


def with_gradient(core: Core, index: int, corrupt: Control) -> Core:
    """The core, with the gradient of one of its inputs corrupted."""
    apply: Any = Backward.apply
    return with_input(core, index, lambda x: apply(x, corrupt))


def with_input(core: Core, index: int, change: Control) -> Core:
    """The core, with one of its inputs put through `change` first."""

    def changed(params: Any, *tensors: Tensor) -> Tensor:
        return core(params, *tensors[:index], change(tensors[index]), *tensors[index + 1 :])

    return changed


def with_output(core: Core, change: Control) -> Core:
    return lambda params, *tensors: change(core(params, *tensors))


def refused(operator: Operator, sample: Sample, core: Core) -> dict[str, str]:
    """The quantities that the gate refuses, and where."""
    rows = gate.check(operator, core, sample.params, inputs(operator, sample, torch.float32))
    return {row.quantity: row.where for row in rows if not row.passed}


def unwritten(values: Tensor) -> Tensor:
    return torch.empty_like(values)


def with_its_last_row_unwritten(values: Tensor) -> Tensor:
    """What a kernel leaves whose grid stops one row short."""
    result = torch.empty_like(values)
    if values.dim() > 1:
        result[..., :-1, :] = values[..., :-1, :]
    else:
        result[:-1] = values[:-1]
    return result


def off_by_one(values: Tensor) -> Tensor:
    return values + 1


@each_operator
def test_a_broken_gradient_is_refused_alone(name: str) -> None:
    operator = REGISTRY.load(name)
    for sample in operator.samples:
        for index, tensor in enumerate(inputs(operator, sample, torch.float32)):
            for corrupt in (off_by_one, unwritten, with_its_last_row_unwritten):
                core = with_gradient(operator.reference, index, corrupt)
                assert refused(operator, sample, core).keys() == {f"grad_{tensor}"}
            assert refused(operator, sample, with_gradient(operator.reference, index, Tensor.clone)) == {}


@each_operator
def test_a_missing_gradient_is_refused(name: str) -> None:
    operator = REGISTRY.load(name)
    for sample in operator.samples:
        names = list(inputs(operator, sample, torch.float32))
        for index, tensor in enumerate(names):
            if len(names) > 1:
                core = with_input(operator.reference, index, Tensor.detach)
                assert refused(operator, sample, core) == {f"grad_{tensor}": "it was not computed"}
        without_backward = refused(operator, sample, with_output(operator.reference, Tensor.detach))
        assert without_backward == {f"grad_{tensor}": "it was not computed" for tensor in names}


@each_operator
def test_an_unwritten_output_is_refused(name: str) -> None:
    operator = REGISTRY.load(name)
    for sample in operator.samples:
        for change in (unwritten, with_its_last_row_unwritten):
            assert "is not finite" in refused(operator, sample, with_output(operator.reference, change))[gate.FORWARD]


@each_operator
def test_a_core_that_overwrites_an_input_is_refused(name: str) -> None:
    operator = REGISTRY.load(name)
    sample = operator.samples[0]

    def scribbling(params: Any, *tensors: Tensor) -> Tensor:
        output = operator.reference(params, *(tensor.clone() for tensor in tensors))
        tensors[-1].data.flatten()[0] += 1
        return output

    tensors = inputs(operator, sample, torch.float32)
    *_, last = tensors
    rows = gate.check(operator, scribbling, sample.params, tensors)
    assert [(row.quantity, row.where) for row in rows if not row.passed] == [(last, "the core overwrote it")]


@each_operator
def test_another_grouping_of_the_channels_is_refused(name: str) -> None:
    """Only a quantity that does not depend on the grouping, and so is the same in float64, may pass."""
    operator = REGISTRY.load(name)
    dependent = set()

    def interleaved(params: Any, first: Tensor, *others: Tensor) -> Tensor:
        return regrouped(operator.reference(params, regrouped(first), *others), back=True)

    for sample in operator.samples:
        exact = inputs(operator, sample, torch.float64)
        ours, theirs = (gate.evaluate(core, sample.params, exact) for core in (operator.reference, interleaved))
        different = {key for key in ours if (ours[key] - theirs[key]).norm() > 1e-6 * ours[key].norm()}
        assert refused(operator, sample, interleaved).keys() == different
        dependent |= different
    assert gate.FORWARD in dependent
    assert len(dependent) > 1


def regrouped(values: Tensor, *, back: bool = False) -> Tensor:
    """Number the channels of two groups in turns, or back; as they are where they do not fall into two groups."""
    channels = values.shape[1]
    if channels % 2:
        return values
    groups: Tensor = values.unflatten(1, (channels // 2, 2) if back else (2, channels // 2))
    return groups.transpose(1, 2).flatten(1, 2)
