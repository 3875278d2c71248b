"""Kernels of LS convolution: planted bugs are seen, plans depend on what they may, infinities stay where they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from opbench.cases import Nchw
from opbench.cuda import Launch, on_cpu
from opbench.errors import Unsupported
from operators.ls_convolution import cuda
from operators.ls_convolution.reference import Params, small_kernel_aggregation

SMALL = Nchw(2, 16, 3, 8)

NINE = Params(small_kernel_size=9, group_channels=2), Nchw(1, 4, 4, 5)

BUGS = {
    "a window one column too wide": ("rows.cuh", "beside <= width)", "beside <= width + 1)", Params(), SMALL),
    "taps of rows above the image count": (
        "kernel.cu",
        "    if (has_row(at.row, tap / K - K / 2, shape.height)) load_floats",
        "    load_floats",
        Params(),
        SMALL,
    ),
    "a kernel turned about one axis only": ("kernel.cu", "* K + K - 1 - b, down", "* K + b, down", Params(), SMALL),
    "the last tap's gradient is never written": (
        "kernel.cu",
        "tap < K * K; ++tap) store_floats(grad_weight",
        "tap < K * K - 1; ++tap) store_floats(grad_weight",
        Params(),
        SMALL,
    ),
    "rows beyond the image stay in the gradient": (
        "kernel.cu",
        "    clear_beyond<K>(sums, at.row, p.shape.height);\n",
        "",
        Params(),
        SMALL,
    ),
    "every fourth channel only": (
        "kernel.cu",
        "    x += TOGETHER * step;\n    y +=",
        "    x += step;\n    y +=",
        Params(),
        SMALL,
    ),
    "the mappings are swapped": ("cuda.py", 'if p.mapping == "inter', 'if p.mapping != "inter', Params(), SMALL),
    "kernels of any size look beside": ("cuda.py", "stride, k // 2,", "stride, k // 2 - 1,", *NINE),
}

BUNDLES = Params(group_channels=4), Nchw(2, 64, 7, 7)

BUGS_ON_PLANES = {
    "planes are read before they have come": ("planes.cuh", "  wait_for_copies<0>();\n", "", *BUNDLES),
    "planes are read before all have come": (
        "planes.cuh",
        "  wait_for_copies<0>();\n  __syncthreads();",
        "  wait_for_copies<0>();",
        *BUNDLES,
    ),
    "zeros are some other value": ("planes.cuh", "from_float<T>(0)", "from_float<T>(1)", *BUNDLES),
    "the last row sees another plane": ("planes.cuh", "has_row(row, a - 1, height)", "row + a > 0", *BUNDLES),
    "segments begin in the lower half of a word": ("planes.cuh", "(offset & 1) * (BETWEEN - LOWER)", "0", *BUNDLES),
    "zeros become a channel's row": ("planes.cuh", "inside ? step : 0", "step", *BUNDLES),
    "a run's last vector stays behind": (
        "planes.cuh",
        "runs.vectors; i += blockDim.x) {\n    const int run = quotient(i, runs.per_vectors);\n    store",
        "runs.vectors - 1; i += blockDim.x) {\n    const int run = quotient(i, runs.per_vectors);\n    store",
        *BUNDLES,
    ),
    "results go back before all are there": (
        "planes.cu",
        "  }\n  __syncthreads();\n  copy_out(static_cast<T*>(p.y)",
        "  }\n  copy_out(static_cast<T*>(p.y)",
        *BUNDLES,
    ),
    "gradients go back before all are there": (
        "planes.cu",
        "  }\n  __syncthreads();\n  if constexpr (GRAD_X)",
        "  }\n  if constexpr (GRAD_X)",
        *BUNDLES,
    ),
    "every share is the first": (
        "planes.cu",
        "part * bundle.share * place.values",
        "0 * part",
        Params(),
        Nchw(1, 64, 7, 7),
    ),
    "a bundle's kernels are those of the first": ("planes.cu", "+ first * TAPS}", "}", *BUNDLES),
    "a group's kernels are those of the first": (
        "planes.cu",
        "taps = weight + group * (TAPS - 1)",
        "taps = weight - group",
        *BUNDLES,
    ),
    "kernels on planes are not turned": ("planes.cu", "(TAPS - 1 - tap) * plane", "tap * plane", *BUNDLES),
    "half of a large map": (
        "planes.cu",
        "task < tasks; task += THREADS",
        "task < THREADS; task += THREADS",
        Params(group_channels=1),
        Nchw(1, 2, 76, 7),
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_seen(bug: str, mutant: Callable[..., Any]) -> None:
    file, old, new, params, shape = BUGS[bug]
    assert mutant("ls_convolution", file, old, new).failures(params, shape)


@pytest.mark.parametrize("bug", BUGS_ON_PLANES)
def test_planted_bugs_are_seen_on_planes(bug: str, mutant: Callable[..., Any]) -> None:
    file, old, new, params, shape = BUGS_ON_PLANES[bug]
    assert mutant("ls_convolution", file, old, new).failures(params, shape, "float16")


def test_the_kernels_without_bugs_pass(mutant: Callable[..., Any]) -> None:
    shipped = mutant("ls_convolution", "kernel.cu", "struct Shape", "struct Shape")
    for *_, params, shape in BUGS.values():
        assert not shipped.failures(params, shape)
    for *_, params, shape in BUGS_ON_PLANES.values():
        assert not shipped.failures(params, shape, "float16")
    assert not shipped.failures(*BUNDLES, "float16", sanitize=True)


def test_rows_read_beyond_the_image_are_seen(mutant: Callable[..., Any]) -> None:
    # Weighted by zero they change nothing, so that only the sanitizer sees them.
    old, new = "min(max(row + down, 0), height - 1)", "max(row + down, 0)"
    assert not mutant("ls_convolution", "rows.cuh", old, new).failures(Params(), Nchw(1, 8, 2, 4))
    assert mutant("ls_convolution", "rows.cuh", old, new).failures(Params(), Nchw(1, 8, 2, 4), sanitize=True)


@pytest.mark.parametrize("size", [3, 9])
def test_one_gradient_alone_is_the_same(size: int) -> None:
    params, gradient = Params(small_kernel_size=size, group_channels=2), torch.randn(1, 4, 3, 6)
    tensors = torch.randn(1, 4, 3, 6), torch.randn(1, 2, size, size, 3, 6)
    with on_cpu():
        both = cuda.backward(params, (True, True), gradient, *tensors)
        first, nothing = cuda.backward(params, (True, False), gradient, *tensors)
        none, second = cuda.backward(params, (False, True), gradient, *tensors)
    assert nothing is none is None
    assert first is not None
    assert second is not None
    torch.testing.assert_close([first, second], both, rtol=0, atol=0)


def plan(x: Nchw, params: Params | None = None, dtype: torch.dtype = torch.float32) -> Launch:
    params = params or Params()
    k, groups = params.small_kernel_size, params.groups(x.channels)
    weight = torch.Size((x.batch, groups, k, k, x.height, x.width))
    launch = cuda.aggregate.plan(params, dtype, torch.Size(x), weight, torch.Size(x))
    assert launch is not None
    return launch


def test_a_new_image_size_compiles_nothing_new() -> None:
    shapes = [Nchw(*shape) for shape in ((32, 128, 28, 28), (1, 128, 28, 28), (7, 64, 3, 56), (2, 512, 100, 168))]
    assert {plan(shape).kernel for shape in shapes} == {"aggregate<float, 3, 4, 4>"}
    assert plan(Nchw(32, 256, 14, 14)).kernel == "aggregate<float, 3, 2, 4>"
    assert plan(Nchw(32, 384, 7, 7)).kernel == plan(Nchw(1, 8, 31, 31)).kernel == "aggregate<float, 3, 1, 4>"
    assert half_plan(Nchw(32, 384, 7, 7)).kernel == half_plan(Nchw(1, 64, 5, 7)).kernel == "aggregate_planes<float16>"


def half_plan(x: Nchw, params: Params | None = None) -> Launch:
    return plan(x, params, torch.float16)


def test_a_block_takes_as_many_groups_as_make_whole_vectors() -> None:
    # 49 halves are 98 bytes, which 16 divides eight times; 384 channels are 48 groups.
    launch = half_plan(Nchw(32, 384, 7, 7))
    assert launch.grid == (6, 32, 1)
    # Eight groups of eight channels in, nine taps, eight channels out.
    assert launch.shared_bytes == 64 + 8 * (8 + 9 + 8) * 98
    assert half_plan(Nchw(32, 384, 8, 7)).grid == (48, 32, 1)


@pytest.mark.parametrize("shape", [Nchw(2, 24, 7, 7), Nchw(2, 64, 700, 7), Nchw(2, 64, 14, 14)], ids=str)
def test_groups_that_make_no_whole_vectors_or_do_not_fit_go_through_registers(shape: Nchw) -> None:
    assert half_plan(shape).kernel.startswith("aggregate<")
    assert half_plan(Nchw(2, 64, 7, 7), Params(mapping="contiguous")).kernel.startswith("aggregate<")


def test_a_grid_holds_every_segment_once() -> None:
    launch = plan(Nchw(32, 128, 28, 28))
    # 16 groups of 28 rows of 7 segments are 3136, in blocks of 128.
    assert launch.grid == (25, 32, 1)
    assert plan(Nchw(0, 128, 28, 28)).blocks == 0
    _, y, z = plan(Nchw(70_000, 8, 1, 4)).grid
    assert y <= 65535 < 70_000 <= y * z


def test_images_that_overflow_a_grid_continue_along_its_third_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "MAX_GRID_Y", 2)
    x, weight = torch.randn(5, 8, 2, 3), torch.randn(5, 1, 3, 3, 2, 3)
    with on_cpu():
        y = cuda.CUDA(Params(), x, weight)
    torch.testing.assert_close(y, small_kernel_aggregation(Params(), x, weight))


def test_images_on_planes_that_overflow_a_grid_continue_along_its_third_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "MAX_GRID_Y", 2)
    x, weight = torch.randn(5, 32, 2, 7).half(), torch.randn(5, 4, 3, 3, 2, 7).half()
    with on_cpu() as launched:
        y = cuda.CUDA(Params(), x, weight)
    assert launched == ["aggregate_planes<float16>"]
    torch.testing.assert_close(y, small_kernel_aggregation(Params(), x, weight), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("height", [0, 7])
def test_nothing_is_asked_of_images_without_pixels(height: int) -> None:
    x, weight = (
        torch.randn(1 - height // 7, 64, height, 7).half(),
        torch.randn(1 - height // 7, 8, 3, 3, height, 7).half(),
    )
    with on_cpu():
        y = cuda.CUDA(Params(), x, weight)
    assert y.shape == x.shape


def test_images_beyond_31_bits_are_refused() -> None:
    plan(Nchw(4, 32, 8192, 4096))
    with pytest.raises(Unsupported, match="x has 64 planes of 8192x4096"):
        plan(Nchw(1, 64, 8192, 4096), Params(group_channels=64))
    with pytest.raises(Unsupported, match="weight has 72 planes of 8192x4096"):
        plan(Nchw(1, 8, 8192, 4096), Params(group_channels=1))


@pytest.mark.parametrize("place", [(0, 0), (0, 3), (1, 4), (2, 7)])
def test_an_infinity_reaches_the_windows_it_is_in_and_no_others(place: tuple[int, int]) -> None:
    x = torch.randn(1, 8, 3, 8)
    weight = torch.randn(1, 1, 3, 3, 3, 8)
    x[0, 2, place[0], place[1]] = float("inf")
    expected = small_kernel_aggregation(Params(), x, weight).isfinite()
    with on_cpu():
        y = cuda.CUDA(Params(), x, weight)
    assert torch.equal(y.isfinite(), expected)
    assert not bool(expected.all())
