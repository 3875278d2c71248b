"""Every CUDA implementation, without a GPU: right on the CPU from the source that ships, compiled for every device.

The shipped operators, those of installed packages, the example, and whatever OPBENCH_OPERATORS names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from opbench import isolation
from opbench.api import Maker, Operator
from opbench.cases import Dtype, Nchw
from opbench.catching import CatchingCase, inputs_of
from opbench.check import check
from opbench.cuda import nvrtc, on_cpu, proof, survey
from opbench.cuda.core import CudaCore
from opbench.cuda.emulation import ORDERS
from opbench.cuda.kernels import Recorded
from opbench.cuda.nvrtc import ARCHITECTURES
from opbench.registry import Registry

EXAMPLES = Path(__file__).parents[2] / "examples"
ELSEWHERE = [Path(path) for path in os.environ.get("OPBENCH_OPERATORS", "").split(os.pathsep) if path]
REGISTRY = Registry.discover([EXAMPLES, *ELSEWHERE])

SPILLS: dict[tuple[str, str], str] = {}
"""(kernel, architecture) of instantiations that may spill, and why."""


def cores() -> Iterator[tuple[str, str, CudaCore]]:
    for name in REGISTRY.names:
        for implementation, item in REGISTRY.load(name).implementations.items():
            if isinstance(item.core, CudaCore):
                yield name, implementation, item.core


CORES = list(cores())
each_core = pytest.mark.parametrize(
    ("name", "implementation", "core"), CORES, ids=[f"{name}-{implementation}" for name, implementation, _ in CORES]
)
SHIPPED = set(Registry.discover().names)


def test_every_shipped_operator_has_kernels() -> None:
    assert {name for name, implementation, _ in CORES if implementation == "cuda"} >= SHIPPED


@each_core
@pytest.mark.parametrize("dtype", proof.KERNEL_DTYPES)
def test_agrees_with_the_float64_reference_on_the_cpu(
    name: str, implementation: str, core: CudaCore, dtype: Dtype
) -> None:
    found = proof.prove(REGISTRY, name, implementation, dtype)
    assert found.passed, [f"{row.comparison} {row.case} {row.kernel}" for row in found.failures] or found.summary
    # A refusal must be a deliberate one, not the common answer.
    assert len(found.skipped) <= len({row.case for row in found.rows}) / 4, found.skipped


@each_core
@hypothesis.settings(max_examples=15, derandomize=True, deadline=None, database=None)
@hypothesis.given(data=st.data())
def test_agrees_with_the_reference_at_any_size(
    name: str, implementation: str, core: CudaCore, data: st.DataObject
) -> None:
    operator = REGISTRY.load(name)
    sample = data.draw(st.sampled_from(operator.samples))
    # One row of pixels is left out: a masked window then has one key, and a softmax's gradient is zero but for
    # rounding, which no two implementations share.
    shape = Nchw(
        data.draw(st.integers(1, 2)),
        sample.channels * data.draw(st.sampled_from((1, 2, 4))),
        *(data.draw(st.integers(2, 34)) for _ in range(2)),
    )
    dtype = data.draw(st.sampled_from((torch.float32, torch.float16, torch.bfloat16)))
    cost = operator.cost(sample.params, shape) if operator.cost else None
    # What a CPU runs one thread at a time in a blink.
    hypothesis.assume(shape.numel <= 8192 and (cost is None or cost.core.forward.dense <= 500_000))
    tensors = inputs_of(operator, CatchingCase(sample.params, shape, "contiguous"), dtype)
    with on_cpu(data.draw(st.sampled_from(ORDERS))):
        rows = check(operator, core, sample.params, tensors)
    assert [row for row in rows if not row.passed] == []


OLDEST, *LATER = ARCHITECTURES


@each_core
@pytest.mark.parametrize("architecture", LATER)
def test_compiles_for_every_architecture_and_spills_nothing(
    name: str, implementation: str, core: CudaCore, architecture: str
) -> None:
    rows = list(survey.survey(name, REGISTRY.load(name), core, architecture, disassemble=False))
    assert rows
    spilling = {row.kernel: row.spill_bytes for row in rows if row.spill_bytes}
    assert {kernel for kernel in spilling if (kernel, architecture) not in SPILLS} == set(), spilling
    assert [row.kernel for row in rows if not row.occupancy] == [], "a block asks for more than a device has"


@each_core
def test_compiles_for_the_oldest_architecture(name: str, implementation: str, core: CudaCore) -> None:
    """The oldest device has the least of everything; kernels must compile for it, and need not be at their best."""
    ending = isolation.run(_compiled_in_haste, name, implementation, timeout_seconds=250)
    assert ending.kind == "returned", ending.reason
    assert ending.value > 0


def _compiled_in_haste(name: str, implementation: str) -> int:
    """How many kernels the front end and the assembler accept; optimizing would take five sixths of the time.

    For a process of its own: having compiled in haste once, NVRTC 13.5 gives other kernels spills later.
    """
    nvrtc.OPTIONS = (*nvrtc.OPTIONS, "--Ofast-compile=max")
    core = REGISTRY.load(name).implementations[implementation].core
    assert isinstance(core, CudaCore)
    return len(list(survey.survey(name, REGISTRY.load(name), core, OLDEST, disassemble=False)))


@each_core
def test_another_image_size_or_batch_compiles_nothing(name: str, implementation: str, core: CudaCore) -> None:
    operator = REGISTRY.load(name)

    def launched(params: Any, shape: Nchw, dtype: torch.dtype) -> list[Recorded]:
        return survey.launches_of(operator, core, params, shape, dtype)

    for params, shape in core.layers:
        # Four times the size has rows that are read by the same vectors; larger maps may take another path, and that
        # must not depend on how much larger they are.
        larger = shape._replace(height=4 * shape.height, width=4 * shape.width)
        groups = [
            [shape, shape._replace(batch=1), shape._replace(batch=3 * shape.batch)],
            [larger, larger._replace(batch=1), larger._replace(height=2 * larger.height)],
        ]
        for dtype in (torch.float32, torch.float16):
            for first, *others in groups:
                compiled = {kernel for item in launched(params, first, dtype) for kernel in item.launch.compiled}
                assert compiled
                for other in others:
                    assert {item.launch.kernel for item in launched(params, other, dtype)} <= compiled


@each_core
def test_passes_the_checks_of_torch_library(name: str, implementation: str, core: CudaCore) -> None:
    operator = REGISTRY.load(name)
    params, shape = core.cases[0] if core.cases else (operator.samples[0].params, None)
    shape = shape or operator_shape(operator)
    make = Maker(generator=torch.Generator().manual_seed(0))
    tensors = [tensor.requires_grad_() for tensor in operator.inputs(params, shape, make).values()]
    words = "{" + ", ".join(f"{field!r}: {getattr(params, field)!r}" for field in core.names) + "}"
    with on_cpu():
        checked = torch.library.opcheck(core.op, (words, tensors))
    assert set(checked.values()) == {"SUCCESS"}


@each_core
def test_torch_compile_takes_it_in_one_graph(name: str, implementation: str, core: CudaCore) -> None:
    operator = REGISTRY.load(name)
    params, shape = core.cases[0]
    make = Maker(generator=torch.Generator().manual_seed(0))
    tensors = [tensor.requires_grad_() for tensor in operator.inputs(params, shape, make).values()]
    torch.compiler.reset()  # All cores are one function to it, which it compiles a limited number of times.
    compiled: Any = torch.compile(core, backend="aot_eager", fullgraph=True, dynamic=False)
    with on_cpu():
        y, expected = compiled(params, *tensors), core(params, *tensors)
        assert torch.equal(y, expected)
        pairs = [torch.autograd.grad(out.sum(), tensors, allow_unused=True) for out in (y, expected)]
    for one, other in zip(*pairs, strict=True):
        assert one is not None
        assert torch.equal(one, other)


def operator_shape(operator: Operator) -> Any:
    from opbench.catching import sample_cases

    return next(iter(sample_cases(operator))).shape
