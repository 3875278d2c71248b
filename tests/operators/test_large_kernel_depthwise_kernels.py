"""Kernels of the large-kernel depthwise convolution: planted bugs are seen, plans depend on what they may."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from opbench.cases import Nchw
from opbench.catching import CatchingCase, inputs_of
from opbench.check import Comparison, check
from opbench.cuda import Launch, on_cpu
from opbench.errors import Unsupported
from operators.large_kernel_depthwise import banded, blocked, cuda, short, stacks
from operators.large_kernel_depthwise.plugin import OPERATOR
from operators.large_kernel_depthwise.reference import Params, channels_last, large_kernel_depthwise, native

SEVEN, STACKED = Params(kernel_size=7), Nchw(3, 1, 14, 14)

BUGS = {
    "the band is one column off": (
        *("banded.cu", "offset = left - padding;", "offset = left - padding - 1;"),
        *(SEVEN, Nchw(1, 1, 5, 8), "bfloat16"),
    ),
    "rows are read before all are there": (
        *("banded.cu", "    __syncthreads();  // The unit is there,", "    //"),
        *(SEVEN, Nchw(3, 1, 28, 28), "bfloat16"),
    ),
    "rows are read before their copies arrive": (
        *("banded.cu", "    wait_for_copies<0>();\n", ""),
        *(SEVEN, STACKED, "bfloat16"),
    ),
    "the images of a stack see each other": (
        *("banded.cu", "? 2 : 1) * padding + PAIRED;", "? 2 : 1) * padding - 1;"),
        *(SEVEN, Nchw(3, 1, 7, 28), "float16"),
    ),
    "the second stack is the first again": (
        *("banded.cu", "from += apart.held * static_cast<int>(sizeof(T)))", "from += 0)"),
        *(SEVEN, STACKED, "float16"),
    ),
    "the second row of a pair is the first again": (
        *("banded.cu", "taps[PAIRED ? j * SPAN : 4 * j]", "taps[PAIRED ? 0 : 4 * j]"),
        *(SEVEN, Nchw(2, 1, 7, 7), "bfloat16"),
    ),
    "tiles begin a step late": (
        *(
            "banded.cu",
            "first_held = first_column - (ALL ? 0 : left)",
            "first_held = first_column - (ALL ? 0 : left + 8)",
        ),
        *(SEVEN, Nchw(1, 1, 9, 64), "bfloat16"),
    ),
    "zeros of one image lie over a tile of another": (
        *("banded.cu", "(p.row_tiles > 1 ? 2 : 1) * padding", "padding"),
        *(SEVEN, Nchw(2, 1, 130, 8), "float16"),
    ),
    "a tile lacks the rows below": (
        *("banded.cu", "top + p.rows + padding)", "top + p.rows)"),
        *(SEVEN, Nchw(1, 1, 130, 8), "bfloat16"),
    ),
    "the last row of a plane is left out": (
        *("stacks.cuh", "height - region.first_row);", "height - region.first_row) - 1;"),
        *(Params(kernel_size=9), Nchw(1, 1, 5, 8), "float32"),
    ),
    "two matrices of the gradient are swapped": (
        "banded_gradient.cu",
        "lane / 16 * 8 + lane % 8, gradient_column = lane / 8 % 2 * 8;",
        "lane / 8 % 2 * 8 + lane % 8, gradient_column = lane / 16 * 8;",
        *(SEVEN, STACKED, "float16"),
    ),
    "the next diagonal is summed": (
        *("banded_gradient.cu", "+ offset - 8 * FIRST;", "+ offset - 8 * FIRST + 1;"),
        *(SEVEN, Nchw(1, 1, 5, 8), "float16"),
    ),
    "a diagonal is followed beyond its tile": (
        *("banded_gradient.cu", "end = min(16, 8 * USED - first_column);", "end = 16;"),
        *(Params(kernel_size=17), Nchw(2, 1, 7, 14), "float16"),
    ),
    "the right half of the last tile is taken": (
        *("banded_gradient.cu", "- gradient_column) * 2 + (TILES", "- gradient_column - 8) * 2 + (TILES"),
        *(Params(kernel_size=5), Nchw(1, 1, 17, 56), "bfloat16"),
    ),
    "a warp's rows of the filter are all its first": (
        *("banded_gradient.cu", "row + (r * STRIDE + s * 16)", "row + (s * 16)"),
        *(SEVEN, STACKED, "float16"),
    ),
    "a thread's last row of outputs misses a row of taps": (
        *("short.cu", "step < STRIP + K - 1;", "step < STRIP + K - 2;"),
        *(SEVEN, Nchw(1, 1, 14, 8), "float32"),
    ),
    "the filter is turned the wrong way": (
        *("short.cu", "p.turned ? SQUARE - 1 - i : i", "p.turned ? i : i"),
        *(SEVEN, Nchw(1, 1, 8, 8), "float32"),
    ),
    "sums begin before the image is there": (
        *("short.cu", "    wait_for_copies<0>();\n", ""),
        *(SEVEN, Nchw(1, 1, 8, 8), "float32"),
    ),
    "zeros are written over the image": (
        *("short.cu", "  __syncthreads();\n  float taps[FILTER];\n", "  float taps[FILTER];\n"),
        *(SEVEN, STACKED, "float32"),
    ),
    "images of a batch lie too close": (
        *("strips.cuh", "PADDING + place.image * (u.rows + PADDING)", "PADDING + place.image * u.rows"),
        *(SEVEN, Nchw(3, 1, 14, 7), "float32"),
    ),
    "pixels of the next row are beside a tile": (
        *("strips.cuh", "static_cast<unsigned>(x) < static_cast<unsigned>(u.width);", "true;"),
        *(SEVEN, Nchw(1, 1, 35, 70), "float32"),
    ),
    "a tile begins a row too late": (
        *("strips.cuh", "y = top - PADDING + row,", "y = top - PADDING + row + 1,"),
        *(Params(kernel_size=3), Nchw(1, 1, 8, 68), "float32"),
    ),
    "the last row of an image is not stored": (
        *("short.cu", "if (i >= rows) return;", "if (i + 1 >= rows) return;"),
        *(SEVEN, Nchw(2, 1, 5, 8), "float32"),
    ),
    "a row's last columns stay out of the sum": (
        *("short_gradient.cu", "j < columns)", "j + COUNT < columns)"),
        *(SEVEN, STACKED, "float32"),
    ),
    "lanes exchange what they keep": (
        *("short_gradient.cu", "upper ? low : high, DISTANCE", "upper ? high : low, DISTANCE"),
        *(SEVEN, Nchw(1, 1, 8, 8), "float32"),
    ),
    "the last warp is forgotten": (
        *("short_gradient.cu", "blockDim.x) / 32; ++other", "blockDim.x) / 32 - 1; ++other"),
        *(SEVEN, Nchw(1, 1, 56, 20), "float32"),
    ),
    "columns slide by half of what they must": (
        *("blocked.cu", "x[i] = x[8 + i];", "x[i] = x[4 + i];"),
        *(Params(kernel_size=17), Nchw(1, 1, 5, 20), "float32"),
    ),
    "the last of the warps that share a patch is forgotten": (
        *("blocked_gradient.cu", "other < sharing;", "other < sharing - 1;"),
        *(Params(kernel_size=9), Nchw(1, 1, 56, 56), "float32"),
    ),
    "a dilated tap looks beside": (
        *("kernel.cu", "row[b * p.dilation]", "row[b]"),
        *(Params(kernel_size=3, dilation=2), Nchw(1, 1, 5, 8), "float32"),
    ),
    "a strided gradient spreads over all pixels": (
        *("kernel.cu", "if (i >= p.out_height || i * p.stride != down) continue;", "if (i >= p.out_height) continue;"),
        *(Params(kernel_size=3, stride=2), Nchw(1, 1, 5, 8), "float32"),
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_seen(bug: str, mutant: Callable[..., Any]) -> None:
    file, old, new, params, shape, dtype = BUGS[bug]
    assert mutant("large_kernel_depthwise", file, old, new).failures(params, shape, dtype)


def test_the_kernels_without_bugs_pass() -> None:
    for *_, params, shape, dtype in BUGS.values():
        assert failures(params, shape, dtype) == []


def test_the_kernels_stay_within_their_memory() -> None:
    for shape in (Nchw(1, 1, 35, 8), Nchw(3, 1, 7, 7), Nchw(1, 1, 9, 64)):
        assert failures(SEVEN, shape, "float16", sanitize=True) == []
    assert failures(Params(kernel_size=11), Nchw(1, 1, 9, 7), "float32", sanitize=True) == []
    for shape in (Nchw(3, 1, 9, 7), Nchw(1, 1, 8, 70)):
        assert failures(SEVEN, shape, "float32", sanitize=True) == []


def test_rows_read_below_the_image_are_seen(mutant: Callable[..., Any]) -> None:
    old, new = "rows = min(region.rows, height - region.first_row)", "rows = region.rows"
    changed = mutant("large_kernel_depthwise", "stacks.cuh", old, new)
    assert "overflow" in changed.failures(Params(kernel_size=9), Nchw(1, 1, 35, 8), "float32", sanitize=True)[0]


def test_an_image_beyond_the_batch_is_seen(mutant: Callable[..., Any]) -> None:
    old, new = "STACKS) * p.images < p.batch ? columns : 0;", "STACKS) * p.images <= p.batch ? columns : 0;"
    changed = mutant("large_kernel_depthwise", "banded.cu", old, new)
    assert "overflow" in changed.failures(SEVEN, Nchw(3, 1, 7, 7), "float16", sanitize=True)[0]


def failures(params: Params, shape: Nchw, dtype: str, *, sanitize: bool = False) -> list[Comparison]:
    inputs = inputs_of(OPERATOR, CatchingCase(params, shape, "contiguous"), getattr(torch, dtype))
    with on_cpu("reverse", sanitize=sanitize):
        return [row for row in check(OPERATOR, cuda.CUDA, params, inputs) if not row.passed]


def made(p: Params, shape: Nchw, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, gradient = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    return x, torch.randn(shape.channels, 1, p.kernel_size, p.kernel_size, generator=generator).to(dtype), gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_the_gradient_of_the_input_is_the_convolution_with_the_filter_turned(dtype: torch.dtype) -> None:
    p = Params(kernel_size=11, bias=False)
    x, weight, gradient = made(p, Nchw(2, 2, 9, 14), dtype)
    with on_cpu():
        grad_x, _ = cuda.backward(p, (True, False), gradient, x, weight)
        turned = cuda.forward(p, gradient, weight.flip(2, 3))
    assert grad_x is not None
    assert torch.equal(grad_x, turned)


TALL, WIDE = Nchw(9, 2, 56, 6), Nchw(2, 2, 9, 130)


def summed(module: Any, p: Params, dtype: torch.dtype, splits: int, shape: Nchw = TALL) -> Tensor:
    """[C, k * k + 1]: sums over images by a module's kernels, from so many parts; 0 for one to each unit."""
    x, _, gradient = made(p, shape, dtype)
    parts = torch.full((splits or module._splits(p, dtype, x.shape), 2, p.kernel_size**2 + 1), torch.nan)
    with on_cpu():
        module.weight_parts(p, gradient, x, parts)
    return parts.double().sum(0)


@pytest.mark.parametrize("shape", [TALL, WIDE], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kernel_size", [7, 17])
def test_parts_of_a_weight_gradient_add_up_whatever_their_number(
    kernel_size: int, dtype: torch.dtype, shape: Nchw
) -> None:
    p = Params(kernel_size=kernel_size)
    assert cuda._splits(p, dtype, torch.Size(shape)) > 1
    each = summed(cuda, p, dtype, 0, shape)
    _, _, gradient = made(p, shape, dtype)
    torch.testing.assert_close(each[:, -1], gradient.double().sum((0, 2, 3)), rtol=1e-5, atol=1e-4)
    for splits in (1, 2):
        torch.testing.assert_close(summed(cuda, p, dtype, splits, shape), each, rtol=1e-5, atol=1e-4)


AGAIN = "__syncthreads();  // The unit before is no longer needed."
HERE = "__syncthreads();  // The unit is there, and the one before no longer needed."


@pytest.mark.parametrize(
    ("file", "line", "guard", "kernel_size", "dtype", "shape"),
    [
        ("blocked_gradient.cu", AGAIN, "unit == split", 9, torch.float32, TALL),
        ("banded_gradient.cu", "clear(buffers + buffer, length);", "false", 7, torch.float16, WIDE),
        ("banded_gradient.cu", HERE, "next <= split + p.splits", 7, torch.bfloat16, Nchw(9, 2, 56, 20)),
        ("short_gradient.cu", HERE, "next <= split + u.splits", 7, torch.float32, TALL),
    ],
    ids=["no barrier", "no zeros", "16 bits in turns", "float32 in turns"],
)
def test_a_unit_that_disturbs_another_is_seen(
    file: str, line: str, guard: str, kernel_size: int, dtype: torch.dtype, shape: Nchw, mutant: Callable[..., Any]
) -> None:
    """Without the barrier the next unit comes too early; without zeros it sees what the one before has left."""
    changed = mutant("large_kernel_depthwise", file, line, f"if ({guard}) " + line)
    core: Any = changed.registry.load(changed.name).implementations["cuda"].core
    module, p = sys.modules[core.forward.__module__], Params(kernel_size=kernel_size)
    torch.testing.assert_close(summed(module, p, dtype, 0, shape), summed(cuda, p, dtype, 0, shape), rtol=0, atol=0)
    assert not torch.allclose(
        summed(module, p, dtype, 1, shape), summed(cuda, p, dtype, 1, shape), rtol=1e-5, atol=1e-4
    )


def test_what_is_left_of_a_batch_adds_nothing_of_another_unit(
    monkeypatch: pytest.MonkeyPatch, mutant: Callable[..., Any]
) -> None:
    shape = Nchw(40, 2, 7, 7)
    expected = summed(cuda, SEVEN, torch.float16, 0, shape)

    def in_large_units(module: Any) -> Tensor:
        monkeypatch.setattr(module.banded, "busiest", lambda blocks, warps, turns, setup, **_: setup**2)
        module.banded._gradient_in_turns.cache_clear()
        stack, _ = module.banded._gradient_in_turns(SEVEN, torch.Size(shape))
        assert stack.units == 2
        sums = summed(module, SEVEN, torch.float16, 1, shape)
        monkeypatch.undo()
        module.banded._gradient_in_turns.cache_clear()
        return sums

    torch.testing.assert_close(in_large_units(cuda), expected, rtol=1e-5, atol=1e-4)
    changed = mutant("large_kernel_depthwise", "bands.cuh", "zero_vector<T, 1>()", "Vector<T, 1>{{0x3c00}}")
    core: Any = changed.registry.load(changed.name).implementations["cuda"].core
    assert not torch.allclose(in_large_units(sys.modules[core.forward.__module__]), expected, rtol=1e-5, atol=1e-4)


def in_turns(module: Any, monkeypatch: pytest.MonkeyPatch, shape: Nchw, dtype: torch.dtype) -> Tensor:
    """A module's outputs where a block takes three units or more, of several warps if that can be."""
    planners = (module.short.units_of, module.banded._in_turns)
    for planner in (module.short, module.banded):
        monkeypatch.setattr(planner, "busiest", lambda blocks, warps, turns, setup, **_: -min(turns, 3) - warps / 100)
    for planner in planners:
        planner.cache_clear()
    turns = (
        module.short.units_of(7, shape).turns if dtype == torch.float32 else module.banded._in_turns(SEVEN, shape)[1]
    )
    assert turns > 2
    x, weight, _ = made(SEVEN, shape, dtype)
    with on_cpu("reverse"):
        y: Tensor = module.forward(SEVEN, x, weight)
    monkeypatch.undo()
    for planner in planners:
        planner.cache_clear()
    return y


@pytest.mark.parametrize(
    ("shape", "dtype", "file"),
    [
        (Nchw(40, 1, 28, 10), torch.float32, "short.cu"),
        (Nchw(3, 3, 7, 130), torch.float32, "short.cu"),
        (Nchw(40, 2, 7, 8), torch.float16, "banded.cu"),
        (Nchw(33, 1, 28, 26), torch.bfloat16, "banded.cu"),
    ],
    ids=["planes", "tiles", "narrow", "wide"],
)
def test_blocks_take_units_in_turns(
    shape: Nchw, dtype: torch.dtype, file: str, monkeypatch: pytest.MonkeyPatch, mutant: Callable[..., Any]
) -> None:
    x, weight, _ = made(SEVEN, shape, dtype)
    y = in_turns(cuda, monkeypatch, shape, dtype)
    expected = large_kernel_depthwise(SEVEN, x.double(), weight.double())
    torch.testing.assert_close(y, expected.to(dtype), rtol=1e-2, atol=1e-2 if dtype != torch.float32 else 1e-4)
    changed = mutant("large_kernel_depthwise", file, HERE, "if (buffer == 0 || next == split) " + HERE)
    core: Any = changed.registry.load(changed.name).implementations["cuda"].core
    assert not torch.allclose(in_turns(sys.modules[core.forward.__module__], monkeypatch, shape, dtype), y)


def test_only_what_is_wanted_is_computed() -> None:
    p = Params(kernel_size=5)
    x, weight, gradient = made(p, Nchw(1, 2, 5, 8), torch.float32)
    bias = torch.zeros(2)
    with on_cpu() as launched:
        everything = cuda.backward(p, (True, True, True), gradient, x, weight, bias)
        all_launched = list(launched)
        for index in range(3):
            launched.clear()
            wanted = [number == index for number in range(3)]
            results = cuda.backward(p, wanted, gradient, x, weight, bias)
            assert [result is not None for result in results] == wanted
            torch.testing.assert_close(results[index], everything[index], rtol=1e-6, atol=1e-6)
            assert [name.partition("<")[0] for name in launched] == [
                ["convolve_short"],
                ["weight_parts_short", "sum_parts"],
                [],
            ][index]
    assert len(all_launched) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_single_pixel_sees_the_middle_of_the_largest_kernels(dtype: torch.dtype) -> None:
    p = Params(kernel_size=65, bias=False)
    x, weight, gradient = made(p, Nchw(2, 1, 1, 1), dtype)
    with on_cpu():
        y = cuda.forward(p, x, weight)
        grad_x, grad_weight = cuda.backward(p, (True, True), gradient, x, weight)
    assert grad_x is not None
    assert grad_weight is not None
    middle = weight[0, 0, 32, 32].float()
    torch.testing.assert_close(y, (x.float() * middle).to(dtype))
    torch.testing.assert_close(grad_x, (gradient.float() * middle).to(dtype))
    assert int(grad_weight.count_nonzero()) == 1
    torch.testing.assert_close(grad_weight[0, 0, 32, 32], (x.float() * gradient.float()).sum().to(dtype))


def plan(p: Params, shape: tuple[int, ...], dtype: torch.dtype = torch.bfloat16) -> Launch:
    x, k = torch.Size(shape), p.kernel_size
    y = torch.Size((*x[:2], p.window.outputs(x[2]), p.window.outputs(x[3])))
    launch = cuda.convolve.plan(p, dtype, x, torch.Size((x[1], 1, k, k)), None, y)
    assert launch is not None
    return launch


def gradient_plan(p: Params, shape: tuple[int, ...], dtype: torch.dtype = torch.bfloat16) -> Launch:
    x = torch.Size(shape)
    parts = torch.Size((cuda._splits(p, dtype, x), x[1], p.kernel_size**2))
    launch = cuda.weight_parts.plan(p, dtype, x, x, parts)
    assert launch is not None
    return launch


def test_a_new_batch_or_height_compiles_nothing_new_and_a_new_width_one_of_few() -> None:
    widths = (1, 7, 8, 14, 16, 28, 31, 56, 70, 112, 224, 333)
    for of in (plan, gradient_plan):
        for width in widths:
            shapes = [(1, 96, 56, width), (32, 96, 56, width), (3, 7, 224, width), (64, 5, 1, width)]
            assert len({of(SEVEN, shape).kernel for shape in shapes}) == 1
            assert len({of(SEVEN, shape, torch.float32).kernel for shape in shapes}) == 1
        assert len({of(SEVEN, (2, 3, 9, width)).kernel for width in widths}) <= 6
        assert len({of(SEVEN, (2, 3, 9, width), torch.float32).kernel for width in widths}) <= 3
    # 3 to 17 taps per side are three bands of eight columns.
    assert len({plan(Params(kernel_size=k), (2, 3, 9, 56)).kernel for k in range(3, 19, 2)}) == 1


@pytest.mark.parametrize(
    ("params", "dtype", "name"),
    [
        (SEVEN, torch.float16, "convolve_banded<float16, 3, 7, true>"),
        (Params(kernel_size=31), torch.bfloat16, "convolve_banded<bfloat16, 5, 7, true>"),
        (Params(kernel_size=51), torch.bfloat16, "convolve_banded<bfloat16, 9, 7, true>"),
        (SEVEN, torch.float32, "convolve_short<7, 4>"),
        (Params(kernel_size=31), torch.float32, "convolve_blocked<7>"),
        (Params(kernel_size=1), torch.float32, "convolve<float>"),
        (Params(kernel_size=67), torch.float16, "convolve<float16>"),
        (Params(kernel_size=7, stride=2), torch.float16, "convolve<float16>"),
        (Params(kernel_size=7, dilation=2), torch.float32, "convolve<float>"),
    ],
)
def test_the_path_follows_from_parameters_and_dtype(params: Params, dtype: torch.dtype, name: str) -> None:
    assert plan(params, (2, 3, 20, 56), dtype).kernel == name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kernel_size", [3, 7, 13, 31, 51, 65])
def test_blocks_fit_every_device_and_cover_the_output(kernel_size: int, dtype: torch.dtype) -> None:
    p = Params(kernel_size=kernel_size)
    for shape in ((1, 1024, 7, 7), (32, 512, 14, 14), (128, 96, 56, 56), (2, 48, 300, 500), (100_000, 3, 5, 5)):
        for launch in (plan(p, shape, dtype), gradient_plan(p, shape, dtype)):
            assert launch.shared_bytes <= stacks.SHARED_BYTES
            assert launch.grid[1:] == (1, 1)
        if short.covers(p, dtype):
            units = short.units_of(kernel_size, torch.Size(shape))
            assert units.splits * units.turns >= units.units
            assert units.images * units.rows * units.columns * units.units >= shape[0] * shape[2] * shape[3]
            continue
        if banded.covers(p, dtype):
            stack, turns = banded._in_turns(p, torch.Size(shape))
            assert plan(p, shape, dtype).blocks * turns >= stack.units * shape[1]
            assert stack.images * banded._stacks(shape[3]) * stack.groups >= shape[0]
            assert stack.rows * stack.row_tiles >= shape[2]
            assert turns == 1 or stack.row_tiles == stack.column_tiles == 1
            continue
        batch, channels, height, _, _, _, _, images, rows, held, row_tiles, *_ = plan(p, shape, dtype).scalars
        assert images * plan(p, shape, dtype).blocks >= batch * channels
        assert rows * row_tiles >= height
        assert held <= height


def test_a_plane_beyond_31_bits_is_refused() -> None:
    for p in (SEVEN, Params(kernel_size=3, stride=2)):
        with pytest.raises(Unsupported, match="a plane of 70000x70000 pixels"):
            plan(p, (1, 1, 70_000, 70_000))


def test_nothing_is_launched_for_an_empty_batch() -> None:
    x = torch.Size((0, 3, 9, 8))
    for path in (banded, blocked, short):
        assert path.convolve(SEVEN, torch.float16, x, turned=False) is None
        assert path.splits(SEVEN, x) == 0


def test_channels_last_computes_the_same_and_stays_in_its_layout() -> None:
    p = Params(kernel_size=5, stride=2, dilation=2)
    x, weight = torch.randn(2, 3, 9, 8, requires_grad=True), torch.randn(3, 1, 5, 5)
    y = channels_last(p, x, weight)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, large_kernel_depthwise(p, x, weight))
    torch.testing.assert_close(
        torch.autograd.grad(y.square().sum(), x), torch.autograd.grad(native(p, x, weight).square().sum(), x)
    )
