"""`opbench kernels` and `opbench verify --on-cpu`, on an operator with a kernel of its own."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import Command, Workshop

KERNEL = """// y = x * weight[channel], and sums of products for the weight's gradient.
#include "device.cuh"

struct Scale { const void* x; const void* weight; void* y; int channels, plane, count; };

template <typename T>
__global__ void scale(const Scale p) {
  const int i = blockIdx.x * 64 + threadIdx.x;
  if (i >= p.count) return;
  const float weight = to_float(static_cast<const T*>(p.weight)[i / p.plane % p.channels]);
  static_cast<T*>(p.y)[i] = from_float<T>(to_float(static_cast<const T*>(p.x)[i]) * weight);
}
"""
CHANGES = """
from opbench.api import NoParams
from opbench.cuda import TYPE_NAMES, CudaCore, Operations, Source, ceil_div, kernel

SOURCE = Source.beside(__file__)


@kernel
def scale_kernel(p, dtype, x, weight, y):
    count = x.numel()
    operations = Operations(outputs=count)
    name = f"scale<{TYPE_NAMES[dtype]}>"
    scalars = (x[1], x[2] * x[3], count)
    grid = (ceil_div(count, 64),)
    return SOURCE.launch(name, grid=grid, block=(64,), scalars=scalars, operations=operations)


def forward(p, x, weight):
    y = torch.empty_like(x)
    scale_kernel(p, x, weight, y)
    return y


def backward(p, wanted, gradient, x, weight):
    return forward(p, gradient, weight), (gradient.float() * x.float()).sum((0, 2, 3)).to(x.dtype)


core = CudaCore(name="mine", params=NoParams, forward=forward, backward=backward,
                work=lambda p, x, weight: Work.bilinear(Macs.exact(x.numel())))
parts["implementations"] = {
    "cuda": Implementation(core=core, dtypes=("float32", "float16", "bfloat16"), devices=("cuda",))
}
"""
KEYS = ["operator", "implementation", "dtype", "kernel", "case", "quantity", "error", "budget", "where", "status"]


def with_kernel(workshop: Workshop, old: str = "", new: str = "") -> None:
    workshop.plugin("mine", CHANGES)
    workshop.plugin("plain")
    assert old in KERNEL
    workshop.file("ops/mine/kernel.cu", KERNEL.replace(old, new) if old else KERNEL)


def verify(workshop: Workshop, *arguments: str) -> Command:
    return workshop.opbench("verify", "mine", "--on-cpu", "--operators", "ops", *arguments)


def rows(command: Command) -> Any:
    return json.loads(command.output)


def test_a_right_kernel_passes_in_every_dtype(workshop: Workshop) -> None:
    with_kernel(workshop)
    command = verify(workshop)
    assert (command.status, command.errors) == (0, "opbench: 3 of 3 passed\n")
    for line, dtype in zip(command.output.splitlines(), ("float32", "float16", "bfloat16"), strict=True):
        assert re.match(rf"mine cuda {dtype}: pass: \d+ quantities over \d+ cases, 1 kernel, at most \d+%", line)


def test_its_rows_name_the_kernel_that_computed_each_quantity(workshop: Workshop) -> None:
    with_kernel(workshop)
    found = rows(verify(workshop, "--json", "--dtype", "float16"))
    assert all(list(row) == KEYS for row in found)
    assert {(row["quantity"], row["kernel"]) for row in found} == {
        (quantity, "scale<float16>") for quantity in ("forward", "grad_x", "grad_weight")
    } | {(quantity, "") for quantity in ("forward", "grad_x", "grad_weight")}  # an empty batch launches nothing
    assert {row["status"] for row in found} == {"pass"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[i]) * weight", "[i]) * weight * 1.01f", "forward off by"),
        ("i / p.plane % p.channels", "i % p.channels", "forward off by"),
        ("if (i >= p.count) return;", "if (i >= p.count - 1) return;", "not finite"),
        ("static_cast<T*>(p.y)[i]", "SHARED_MEMORY(T, s); static_cast<T*>(p.y)[i] = s[0]; s[0]", ""),
        ("const float weight", "__shfl_sync(0xffffffffu, 1, 0); const float weight", "lane that has returned"),
        ("const float weight", "const flaot weight", "kernel.cu:10:"),
    ],
)
def test_a_planted_bug_is_status_5(workshop: Workshop, old: str, new: str, said: str) -> None:
    with_kernel(workshop, old, new)
    command = verify(workshop, "--dtype", "float32")
    assert command.status == 5
    assert command.output.startswith("mine cuda float32: FAILED")
    assert said in command.output
    assert "Traceback" not in command.errors


def test_an_operator_without_kernels_is_refused_by_name(workshop: Workshop) -> None:
    with_kernel(workshop)
    for verb in (["verify", "--on-cpu"], ["kernels"]):
        command = workshop.opbench(*verb, "plain", "--operators", "ops")
        assert command.status == 2
        assert "opbench: none of these has a CUDA implementation: plain\n" in command.errors


def test_what_the_cpu_run_cannot_do_is_refused(workshop: Workshop) -> None:
    with_kernel(workshop)
    refused = {
        ("--implementation", "cuda"): "leave out --implementation",
        ("--device", "cuda"): "leave out --device",
        ("--dtype", "float64"): "kernels compute in float32, float16, bfloat16",
    }
    for arguments, said in refused.items():
        command = verify(workshop, *arguments)
        assert command.status == 2
        assert said in command.errors


def test_without_on_cpu_a_machine_without_a_gpu_skips_the_kernels(workshop: Workshop) -> None:
    with_kernel(workshop)
    command = workshop.opbench("verify", "mine", "--operators", "ops", "--dtype", "float32")
    assert command.status == 0
    assert "mine cuda float32: skipped: runs on cuda, not on cpu\n" in command.output


def test_kernels_are_compiled_and_told_about(workshop: Workshop) -> None:
    with_kernel(workshop)
    arguments = ("kernels", "mine", "--operators", "ops", "--arch", "sm_75", "--arch", "sm_90")
    data = workshop.opbench(*arguments, "--json")
    found = rows(data)
    assert [(row["kernel"], row["arch"]) for row in found] == [
        (f"scale<{name}>", arch) for arch in ("sm_75", "sm_90") for name in ("bfloat16", "float16", "float")
    ]
    for row in found:
        assert row["operator"] == "mine"
        assert 0 < row["registers"] < 64
        assert (row["spill_bytes"], row["shared_bytes"], row["threads"]) == (0, 0, 64)
        assert 0 < row["occupancy"] <= 1
    table = workshop.opbench(*arguments)
    heading, *lines = table.output.splitlines()
    assert heading.split()[:4] == ["operator", "kernel", "arch", "regs"]
    assert [line.split()[:3] for line in lines] == [["mine", row["kernel"], row["arch"]] for row in found]


def test_a_kernel_that_does_not_compile_is_one_message_with_file_and_line(workshop: Workshop) -> None:
    with_kernel(workshop, "const float weight", "const flaot weight")
    command = workshop.opbench("kernels", "mine", "--operators", "ops")
    assert command.status == 5
    assert "kernel.cu(10): error" in command.errors
    assert "Traceback" not in command.errors


def test_an_unknown_architecture_is_refused_with_the_known_ones(workshop: Workshop) -> None:
    command = workshop.opbench("kernels", "--arch", "sm_50")
    assert command.status == 2
    assert "--arch must be one of sm_75, sm_80" in command.errors


def test_a_gpu_that_is_not_there_is_one_line(workshop: Workshop) -> None:
    with_kernel(workshop)
    command = workshop.opbench(
        "verify", "mine", "--device", "cuda", "--operators", "ops", before="os.environ['CUDA_VISIBLE_DEVICES'] = ''"
    )
    assert command.status != 0
    assert command.errors.startswith("opbench: --device is cuda, and ")
    assert command.errors.count("\n") == 1


def test_without_a_compiler_for_gpus_it_says_what_to_install(workshop: Workshop) -> None:
    with_kernel(workshop)
    command = workshop.opbench("kernels", "mine", "--operators", "ops", before="sys.modules['cupy'] = None")
    assert command.status == 6
    assert command.errors.endswith(
        "opbench: compiling kernels needs CuPy; install opbench[cuda13], or opbench[cuda12]\n"
    )


def test_without_a_compiler_for_the_cpu_nothing_passes(workshop: Workshop) -> None:
    with_kernel(workshop)
    nowhere = f"os.environ.update(OPBENCH_CACHE={str(workshop.folder / 'cache')!r}, CXX='nowhere', PATH='')"
    command = workshop.opbench("verify", "mine", "--on-cpu", "--operators", "ops", "--dtype", "float32", before=nowhere)
    assert (command.status, command.errors) == (5, "opbench: 0 of 1 passed\n")
    assert "FAILED: no kernel ran" in command.output
    assert "needs a C++ compiler; install g++, or name one in CXX" in command.output
