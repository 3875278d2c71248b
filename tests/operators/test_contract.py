"""Every operator obeys the plugin contract; adding a folder adds its tests.

The shipped operators, those of installed packages, the example, and whatever OPBENCH_OPERATORS names: authors elsewhere
run this file over their own folders.
"""

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from opbench import check as gate
from opbench.api import Core, Maker, Nchw, Operator, Sample, Unsupported
from opbench.cases import Pass
from opbench.catching import inputs_of, sample_cases
from opbench.measure.flops import count_macs
from opbench.params import resolved, specs
from opbench.registry import Plugin, Registry

EXAMPLES = Path(__file__).parents[2] / "examples"
ELSEWHERE = [Path(path) for path in os.environ.get("OPBENCH_OPERATORS", "").split(os.pathsep) if path]
REGISTRY = Registry.discover([EXAMPLES, *ELSEWHERE])


@functools.cache
def load(name: str) -> Operator:
    return REGISTRY.load(name)


def samples() -> list[Any]:
    return [
        pytest.param(name, sample, id=f"{name}-{index}")
        for name in REGISTRY.names
        for index, sample in enumerate(load(name).samples)
    ]


each_operator = pytest.mark.parametrize("plugin", REGISTRY.plugins.values(), ids=REGISTRY.names)
each_sample = pytest.mark.parametrize(("name", "sample"), samples())


@pytest.mark.parametrize("plugin", Registry.discover().plugins.values(), ids=Registry.discover().names)
def test_says_what_it_is(plugin: Plugin) -> None:
    readme = (plugin.folder / "README.md").read_text()
    assert plugin.summary
    assert not plugin.summary.endswith(".") or "." not in plugin.summary[:-1]
    assert readme.startswith("# ")
    assert all(spec.help for spec in specs(load(plugin.name).params))
    assert load(plugin.name).source


@each_operator
def test_params_are_frozen_and_their_defaults_are_legal(plugin: Plugin) -> None:
    params = load(plugin.name).params()
    assert type(params)(**resolved(params)) == params
    for name in resolved(params):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(params, name, None)


@each_operator
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_every_implementation_passes_the_gate_on_catching_shapes(plugin: Plugin, dtype: torch.dtype) -> None:
    operator = load(plugin.name)
    cores = {name: gate.usable_core(operator, name) for name in ("reference", *operator.implementations)}
    checked = dict.fromkeys(cores, 0)
    for case in sample_cases(operator):
        try:
            tensors = inputs_of(operator, case, dtype)
            standard = gate.Standard.of(operator, case.params, tensors)
        except Unsupported:
            continue
        for name, core in cores.items():
            try:
                with gate.poisoned_memory():
                    actual = gate.evaluate(core, case.params, tensors)
            except Unsupported:
                continue
            checked[name] += 1
            assert [row for row in standard.judge(actual, tensors) if not row.passed] == [], f"{name} on {case}"
    assert checked["reference"]


@each_sample
def test_reference_gradients_are_the_derivatives_of_the_forward(name: str, sample: Sample) -> None:
    operator = load(name)
    tensors = operator.inputs(sample.params, Nchw(2, sample.channels, 4, 5), double())
    frozen = operator.surrogate_gradients
    leaves = [
        tensor.detach().requires_grad_(tensor.is_floating_point() and key not in frozen)
        for key, tensor in tensors.items()
    ]
    assert torch.autograd.gradcheck(
        functools.partial(operator.reference, sample.params), leaves, fast_mode=True, atol=1e-6
    )


@each_sample
def test_reference_is_deterministic(name: str, sample: Sample) -> None:
    operator = load(name)
    tensors = operator.inputs(sample.params, Nchw(2, sample.channels, 7, 5), double())
    first, second = (gate.evaluate(operator.reference, sample.params, tensors) for _ in range(2))
    assert all(torch.equal(first[quantity], second[quantity]) for quantity in first)


@each_sample
def test_layer_trains_every_parameter_and_has_as_many_as_its_cost_says(name: str, sample: Sample) -> None:
    operator = load(name)
    if operator.layer is None:
        pytest.skip("the operator has no layer")
    torch.manual_seed(0)
    shape = Nchw(2, sample.channels, 9, 6)
    layer = operator.layer(sample.channels, sample.params, operator.reference).double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    layer(x).square().sum().backward()
    assert x.grad is not None
    assert [key for key, value in layer.named_parameters() if value.grad is None] == []
    if operator.cost is not None:
        assert sum(value.numel() for value in layer.parameters()) == operator.cost(sample.params, shape).parameters


@each_sample
def test_layer_feeds_its_core_what_inputs_describes(name: str, sample: Sample) -> None:
    operator = load(name)
    if operator.layer is None:
        pytest.skip("the operator has no layer")
    torch.manual_seed(0)
    shape = Nchw(2, sample.channels, 9, 6)
    calls: list[tuple[Any, tuple[Tensor, ...]]] = []
    layer = operator.layer(sample.channels, sample.params, gate.shared_inputs(operator.reference, calls))
    layer(torch.randn(shape))
    described = operator.inputs(sample.params, shape, Maker())
    ((params, tensors),) = calls
    assert params == sample.params
    assert [tensor.shape for tensor in tensors] == [tensor.shape for tensor in described.values()]


@each_sample
def test_layer_runs_on_the_meta_device(name: str, sample: Sample) -> None:
    operator = load(name)
    if operator.layer is None:
        pytest.skip("the operator has no layer")
    shape = Nchw(2, sample.channels, 9, 6)
    real = operator.layer(sample.channels, sample.params, operator.reference)(torch.randn(shape))
    with torch.device("meta"):
        layer = operator.layer(sample.channels, sample.params, operator.reference)
        output = layer(torch.empty(shape))
    assert output.is_meta
    assert output.shape == real.shape


@each_sample
@pytest.mark.parametrize("pass_", ["forward", "training"])
def test_layer_macs_beyond_the_core_are_what_torch_counts(name: str, sample: Sample, pass_: Pass) -> None:
    """The layer runs with a core that does no work, so what torch counts is the layer's own share."""
    operator = load(name)
    if operator.layer is None or operator.cost is None:
        pytest.skip("the operator has no layer or no cost")
    shape = Nchw(2, sample.channels, 9, 6)
    described = operator.inputs(sample.params, shape, Maker(device=torch.device("meta")))
    output_shape = operator.reference(sample.params, *described.values()).shape
    layer = operator.layer(sample.channels, sample.params, idle(output_shape))
    cost = operator.cost(sample.params, shape)
    expected = cost.layer.of_pass(pass_).dense - cost.core.of_pass(pass_).dense
    assert count_macs(layer, torch.randn(shape, requires_grad=True), pass_) == expected


@each_sample
def test_dense_macs_are_at_least_those_in_bounds(name: str, sample: Sample) -> None:
    operator = load(name)
    if operator.cost is None:
        pytest.skip("the operator has no cost")
    cost = operator.cost(sample.params, Nchw(2, sample.channels, 9, 6))
    for work in (cost.core, cost.layer):
        for macs in (work.forward, work.backward):
            assert macs.dense >= macs.in_bounds > 0
    assert cost.layer.forward.dense >= cost.core.forward.dense


def double() -> Maker:
    return Maker(torch.float64, generator=torch.Generator().manual_seed(1))


def idle(output_shape: torch.Size) -> Core:
    """A core that multiplies nothing, with every input in its graph."""

    def stub(_: Any, *tensors: Tensor) -> Tensor:
        return torch.stack([tensor.sum() for tensor in tensors]).sum().expand(output_shape)

    return stub
