"""The kernels of every operator on a GPU: right, deterministic, on any stream, in a graph, within their memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from opbench.api import Maker, Operator
from opbench.cases import Dtype, Nchw
from opbench.catching import CatchingCase, inputs_of
from opbench.check import check, evaluate
from opbench.cuda import proof
from opbench.cuda.core import CudaCore
from opbench.registry import Registry

pytestmark = pytest.mark.gpu

REGISTRY = Registry.discover()
CORES = [
    (name, implementation, item.core)
    for name in REGISTRY.names
    for implementation, item in REGISTRY.load(name).implementations.items()
    if isinstance(item.core, CudaCore)
]
each_core = pytest.mark.parametrize(
    ("name", "core"), [(name, core) for name, _, core in CORES], ids=[name for name, _, _ in CORES]
)
each_dtype = pytest.mark.parametrize("dtype", proof.KERNEL_DTYPES)


def on_device(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors on the GPU, in the same layout."""
    moved = {}
    for name, tensor in tensors.items():
        there = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="cuda")
        moved[name] = there.copy_(tensor)
    return moved


def inputs(operator: Operator, params: Any, shape: Nchw, dtype: Dtype) -> dict[str, Tensor]:
    make = Maker(getattr(torch, dtype), torch.device("cuda"), torch.Generator().manual_seed(0))
    return dict(operator.inputs(params, shape, make))


def layers(core: CudaCore, batch: int) -> list[tuple[Any, Nchw]]:
    return [(params, shape._replace(batch=batch)) for params, shape in core.layers]


@each_core
@each_dtype
def test_agrees_with_the_float64_reference_at_catching_shapes(name: str, core: CudaCore, dtype: Dtype) -> None:
    operator = REGISTRY.load(name)
    failures = []
    for case in proof.cases_of(operator, core):
        tensors = inputs_of(operator, case, getattr(torch, dtype), torch.device("cuda"))
        failures += [f"{row} {case}" for row in check(operator, core, case.params, tensors) if not row.passed]
    assert failures == []


@each_core
@each_dtype
def test_agrees_with_the_float64_reference_at_published_layers(name: str, core: CudaCore, dtype: Dtype) -> None:
    operator = REGISTRY.load(name)
    failures = []
    for params, shape in layers(core, batch=4):
        rows = check(operator, core, params, inputs(operator, params, shape, dtype))
        failures += [f"{row} {params} {shape}" for row in rows if not row.passed]
    assert failures == []


@each_core
@each_dtype
def test_two_runs_agree_bit_for_bit(name: str, core: CudaCore, dtype: Dtype) -> None:
    operator = REGISTRY.load(name)
    for params, shape in layers(core, batch=8):
        tensors = inputs(operator, params, shape, dtype)
        first, second = (evaluate(core, params, tensors) for _ in range(2))
        assert all(torch.equal(first[quantity], second[quantity]) for quantity in first)


@each_core
@each_dtype
def test_agrees_with_the_cpu_run_of_the_same_source(name: str, core: CudaCore, dtype: Dtype) -> None:
    from opbench.cuda import on_cpu

    operator = REGISTRY.load(name)
    case = CatchingCase(*core.cases[0], "contiguous")
    tensors = inputs_of(operator, case, getattr(torch, dtype))
    with on_cpu():
        expected = evaluate(core, case.params, tensors)
    found = evaluate(core, case.params, on_device(tensors))
    for quantity, result in found.items():
        torch.testing.assert_close(result.cpu(), expected[quantity], rtol=2e-2, atol=2e-2)


@each_core
def test_runs_on_the_current_stream(name: str, core: CudaCore) -> None:
    operator = REGISTRY.load(name)
    params, shape = layers(core, batch=8)[0]
    tensors = inputs(operator, params, shape, "float32")
    expected = evaluate(core, params, tensors)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    late = {key: torch.zeros_like(tensor) for key, tensor in tensors.items()}
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        # A kernel on another stream would read the zeros while this one sleeps.
        torch.cuda._sleep(50_000_000)
        for key, tensor in tensors.items():
            late[key].copy_(tensor)
        found = evaluate(core, params, late)
    stream.synchronize()
    assert all(torch.equal(found[quantity], expected[quantity]) for quantity in expected)


@each_core
def test_a_captured_graph_computes_on_new_inputs(name: str, core: CudaCore) -> None:
    operator = REGISTRY.load(name)
    params, shape = layers(core, batch=2)[0]
    tensors = inputs(operator, params, shape, "float32")
    values = list(tensors.values())
    with torch.no_grad():
        core(params, *values)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = core(params, *values)
        make = Maker(torch.float32, torch.device("cuda"), torch.Generator().manual_seed(1))
        for held, new in zip(values, operator.inputs(params, shape, make).values(), strict=True):
            held.copy_(new)
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(output, core(params, *values))


@each_core
@pytest.mark.parametrize("layout", ["channels_last", "sliced", "contiguous"])
def test_any_layout_gives_the_same_values(name: str, core: CudaCore, layout: Any) -> None:
    operator = REGISTRY.load(name)
    params, shape = layers(core, batch=2)[0]
    tensors = on_device(inputs_of(operator, CatchingCase(params, shape, layout), torch.float16))
    plain = {key: tensor.contiguous() for key, tensor in tensors.items()}
    found, expected = evaluate(core, params, tensors), evaluate(core, params, plain)
    assert all(torch.equal(found[quantity], expected[quantity]) for quantity in expected)


@each_core
def test_the_forward_needs_no_memory_beyond_its_output(name: str, core: CudaCore) -> None:
    operator = REGISTRY.load(name)
    for params, shape in layers(core, batch=32):
        tensors = list(inputs(operator, params, shape, "float16").values())
        with torch.no_grad():
            output = core(params, *tensors)
            size = output.nbytes
            del output
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            output = core(params, *tensors)
            peak = torch.cuda.max_memory_allocated() - before
        # Statistics kept for the backward are a float for each row of a softmax, or an integer for each pixel.
        assert peak <= size * 1.6 + 4096, f"{peak} bytes for an output of {size} at {params} {shape}"
        del output, tensors


@each_core
def test_torch_compile_and_autocast(name: str, core: CudaCore) -> None:
    operator = REGISTRY.load(name)
    params, shape = core.cases[0]
    tensors = list(inputs(operator, params, shape, "float32").values())
    compiled: Any = torch.compile(core, fullgraph=True, dynamic=False)
    with torch.no_grad():
        assert torch.equal(compiled(params, *tensors), core(params, *tensors))
        with torch.autocast("cuda", dtype=torch.bfloat16):
            assert core(params, *tensors).dtype == torch.bfloat16


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one CUDA device")
@each_core
def test_runs_on_the_device_of_its_tensors(name: str, core: CudaCore) -> None:
    operator = REGISTRY.load(name)
    params, shape = core.cases[0]
    tensors = inputs(operator, params, shape, "float32")
    there = {key: tensor.to("cuda:1") for key, tensor in tensors.items()}
    with torch.cuda.device(0):
        found, expected = evaluate(core, params, there), evaluate(core, params, tensors)
    assert all(torch.equal(found[quantity].cpu(), expected[quantity].cpu()) for quantity in expected)


SANITIZED = """
import sys, torch
sys.path.insert(0, {folder!r})
from tests.gpu.test_kernels import CORES, REGISTRY, inputs_of, on_device, CatchingCase, evaluate
name, core = next((name, core) for name, _, core in CORES if name == {name!r})
operator = REGISTRY.load(name)
for params, shape in core.cases[:4]:
    for dtype in (torch.float32, torch.float16):
        evaluate(core, params, on_device(inputs_of(operator, CatchingCase(params, shape, "contiguous"), dtype)))
torch.cuda.synchronize()
"""


@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="compute-sanitizer is not installed")
@each_core
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer_finds_nothing(name: str, core: CudaCore, tool: str) -> None:
    script = SANITIZED.format(folder=str(Path(__file__).parents[2]), name=name)
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", "--target-processes", "all"]
    # With the caching allocator, an access beyond one tensor would lie within the next.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    done = subprocess.run(
        [*command, sys.executable, "-c", script], capture_output=True, text=True, timeout=280, env=environment
    )
    if "not supported" in done.stdout + done.stderr:
        pytest.skip("compute-sanitizer does not work on this machine")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
