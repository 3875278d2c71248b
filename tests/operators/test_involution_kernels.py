"""Kernels of involution: planted bugs are seen, taps reach what they should, plans depend on what they may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from opbench.api import Maker
from opbench.cases import Nchw
from opbench.cuda import Launch, on_cpu
from opbench.errors import Unsupported
from operators.involution import cuda
from operators.involution.plugin import OPERATOR
from operators.involution.reference import Params

SMALL = Params(kernel_size=3), Nchw(1, 32, 4, 9)
WIDE = Params(kernel_size=3), Nchw(1, 32, 4, 17)
ALIGNED = Params(kernel_size=3), Nchw(1, 16, 3, 16)
STRIDED = Params(kernel_size=3, stride=2), Nchw(1, 16, 5, 12)
CHUNKED = Params(kernel_size=3, group_channels=20), Nchw(1, 20, 3, 8)
GENERAL = Params(kernel_size=3, stride=3, group_channels=2), Nchw(1, 4, 5, 7)

BUGS = {
    "nobody waits for the gradient": (
        "banded.cu",
        "  wait_for_copies<0>();\n  __syncthreads();",
        "  __syncthreads();",
        *ALIGNED,
    ),
    "nobody waits for the taps": (
        "banded.cu",
        "wait_for_copies<(STAGES < K ? STAGES - 2 : 0)>();",
        "",
        *ALIGNED,
    ),
    "the band is off by one": ("banded.cu", "(1, -S, 0)", "(1, -S, 1)", *WIDE),
    "the transposed band is off by one": ("banded.cu", "8 * odd + PAD + S * SHIFT", "8 * odd + PAD", *WIDE),
    "odd tiles take the band of even ones": ("banded.cu", "bands[t % S]", "bands[0]", *STRIDED),
    "fragments are out of order": (
        "band.cuh",
        "image[j][1], image[j + 1][0]",
        "image[j + 1][0], image[j][1]",
        *WIDE,
    ),
    "outside the band is what lies beside it": ("band.cuh", ": 0x7600u", ": 0x5400u", *WIDE),
    "taps leave before all lanes have written theirs": (
        "banded.cu",
        "seen += CHANNELS * PITCH * 2;\n    __syncwarp();",
        "seen += CHANNELS * PITCH * 2;",
        *ALIGNED,
    ),
    "every tile is the first group's": (
        "tile.cuh",
        "return {tile / tiles_down",
        "return {0 * tile / tiles_down",
        *WIDE,
    ),
}

EVEN = Params(kernel_size=3), Nchw(1, 32, 6, 14)
TOGETHER = Params(kernel_size=3), Nchw(1, 48, 7, 7)
TALL = Params(kernel_size=3), Nchw(1, 16, 17, 6)

PLANAR_BUGS = {
    "rows are multiplied before their taps are there": (
        "planar.cu",
        "  taps.put(matrices, half);\n  __syncthreads();",
        "  taps.put(matrices, half);",
        *TOGETHER,
    ),
    "sums take the place of taps that others need": (
        "planar.cu",
        "as they are to lie in memory.\n  __syncthreads();",
        "as they are to lie in memory.",
        *TOGETHER,
    ),
    "results leave before all are there": (
        "planar.cu",
        "  __syncthreads();\n  T* result = of_group<T>(p.result, place.group, CHANNELS",
        "  T* result = of_group<T>(p.result, place.group, CHANNELS",
        *EVEN,
    ),
    "the band of the matrices is too wide": ("planar.cu", "beside <= K / 2 &&", "beside <= K / 2 + 1 &&", *EVEN),
    "columns beyond the width have taps": ("planar.cu", " && k < width", "", *SMALL),
    "the second half of a matrix is its first": ("planar.cu", "lane / 16) * half", "0) * half", *EVEN),
    "gradients see taps that are not transposed": (
        "planar.cu",
        "load_taps<!BACK>(taps, matrix + step * SIZE);\n#",
        "load_taps<true>(taps, matrix + step * SIZE);\n#",
        *EVEN,
    ),
    "a column meets the next pixel through its own tap": ("planar.cuh", "0x7610", "0x5410", *EVEN),
    "gradients take kernel rows in the order of the forward": (
        "planar.cuh",
        "(BACK ? K - 1 - step : step)",
        "step",
        *TOGETHER,
    ),
    "taps lie one column to the right": ("planar.cuh", "(column - K / 2) * 8", "(column - K / 2 + 1) * 8", *SMALL),
    "rows above the first group are not cleared": (
        "planar.cuh",
        "i = threadIdx.x; i < (place.groups + 1) * GAP",
        "i = threadIdx.x + GAP; i < (place.groups + 1) * GAP",
        *TOGETHER,
    ),
    "rows below the last group are not cleared": (
        "planar.cuh",
        "i < (place.groups + 1) * GAP",
        "i < place.groups * GAP",
        *TOGETHER,
    ),
    "groups of a block share their taps": ("planar.cuh", " + group * (K * K * plane)", "", *TOGETHER),
    "the last row of a strip is forgotten": (
        "planar.cu",
        "i < lines * existing; i += THREADS) {\n      const int number",
        "i < lines * existing - p.width; i += THREADS) {\n      const int number",
        *TALL,
    ),
    "strips begin where the first does": ("planar.cuh", "static_cast<int>(blockIdx.y) * p.rows", "0", *TALL),
    "products begin before the gradient is there": (
        "planar.cu",
        "zero_vector<T, 8>());\n  __syncthreads();",
        "zero_vector<T, 8>());",
        *TOGETHER,
    ),
    "taps leave before all products are there": (
        "planar.cu",
        "  __syncthreads();\n\n  T* result = of_group<T>(p.result, place.group, K * K * plane)",
        "  T* result = of_group<T>(p.result, place.group, K * K * plane)",
        *EVEN,
    ),
    "taps without a product are left as they are": ("planar.cu", "i < K * K * PITCH / 8", "i < 0 * PITCH", *SMALL),
    "products of pixels beyond the width are kept": (
        "planar.cu",
        " && 8 * t + 2 * (lane % 4) + e % 2 < p.width",
        "",
        *SMALL,
    ),
    "vectors do not go on in the next line": ("planar.cu", "UNIT * u < left ? source : next", "source", *EVEN),
    "the next group begins with its last tap": ("planar.cu", "-(TAPS - 1) * PITCH", "0", *TOGETHER),
    "vectors begin where the taps do": (
        "planar.cu",
        "place.group * (K * K * plane) % 8",
        "0",
        Params(kernel_size=3),
        Nchw(3, 32, 7, 7),
    ),
}

BEFORE_SUMS = """\
  const int row = place.tile.row + threadIdx.y, column = place.tile.column + PIXELS * threadIdx.x;
  const int first = MEMBERS * threadIdx.z, columns = p.out_width - column"""

FLOAT_BUGS = {
    "sums begin before the image is there": ("blocked.cu", f"__syncthreads();\n\n{BEFORE_SUMS}", BEFORE_SUMS, *SMALL),
    "every chunk is the first": ("blocked.cu", "static_cast<int>(chunk - group * p.chunks)", "0", *CHUNKED),
    "half of the kernel rows have no gradient": (
        "blocked.cu",
        "for (int a = threadIdx.z; a",
        "for (int a = 0; a",
        *SMALL,
    ),
    "outputs between others are seen": ("aggregation.cuh", "down % p.stride || ", "", *GENERAL),
    "groups share their first channel": ("aggregation.cuh", "place.group * p.group_step", "place.group", *GENERAL),
}

OUTSIDE = {
    "units beyond the width are loaded": ("planar.cuh", "UNIT * u < columns", "UNIT * u < 8", "float16", *TOGETHER),
    "rows beyond the plane are loaded": (
        "planar.cuh",
        "item < items && row + below < height",
        "item < items",
        "float16",
        *TALL,
    ),
    "taps of rows below the image are loaded": (
        "planar.cuh",
        "max(min(row, p.height - 1), 0)",
        "max(row, 0)",
        "float16",
        *TALL,
    ),
    "a vector reaches beyond the last tap": (
        "planar.cu",
        "first + 8 <= end",
        "first < end",
        "float16",
        *TOGETHER,
    ),
    "a last strip's missing rows are written": (
        "planar.cu",
        "existing = min(line, plane - place.row * p.width);\n#",
        "existing = line;\n#",
        "float16",
        *TALL,
    ),
    "no row is above the image": (
        "band.cuh",
        "from_row >= 0 && from_row < height",
        "from_row < height",
        "float16",
        *WIDE,
    ),
    "channels of other groups are written": (
        "blocked.cu",
        "if (first + m < place.channels) store_four<VECTOR>(y +",
        "store_four<VECTOR>(y +",
        "float32",
        Params(kernel_size=3, group_channels=3),
        Nchw(1, 6, 4, 8),
    ),
    "pixels beyond the row are loaded": (
        "blocked.cu",
        "VECTOR == PIXELS || q < columns) load_part",
        "true) load_part",
        "float32",
        *SMALL,
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_of_the_banded_kernels_are_seen(bug: str, mutant: Callable[..., Any]) -> None:
    file, old, new, params, shape = BUGS[bug]
    assert mutant("involution", file, old, new).failures(params, shape, "float16")


@pytest.mark.parametrize("bug", PLANAR_BUGS)
def test_planted_bugs_of_the_planar_kernels_are_seen(bug: str, mutant: Callable[..., Any]) -> None:
    file, old, new, params, shape = PLANAR_BUGS[bug]
    seen = mutant("involution", file, old, new)
    assert seen.failures(params, shape, "float16") or seen.failures(params, shape, "float16", order="reverse")


@pytest.mark.parametrize("bug", FLOAT_BUGS)
def test_planted_bugs_of_the_other_kernels_are_seen(bug: str, mutant: Callable[..., Any]) -> None:
    file, old, new, params, shape = FLOAT_BUGS[bug]
    seen = mutant("involution", file, old, new)
    assert seen.failures(params, shape) or seen.failures(params, shape, order="reverse")


@pytest.mark.parametrize("bug", OUTSIDE)
def test_accesses_beyond_a_tensor_are_seen(bug: str, mutant: Callable[..., Any]) -> None:
    file, old, new, dtype, params, shape = OUTSIDE[bug]
    assert mutant("involution", file, old, new).failures(params, shape, dtype, sanitize=True)


def test_the_kernels_without_bugs_pass(mutant: Callable[..., Any]) -> None:
    shipped = mutant("involution", "tile.cuh", "struct TilePlace {", "struct TilePlace {")
    for *_, params, shape in [*BUGS.values(), *PLANAR_BUGS.values()]:
        assert not shipped.failures(params, shape, "float16")
    for *_, params, shape in FLOAT_BUGS.values():
        assert not shipped.failures(params, shape)
    for *_, dtype, params, shape in OUTSIDE.values():
        assert not shipped.failures(params, shape, dtype, sanitize=True)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_kernel_that_is_one_at_a_tap_moves_the_image(dtype: torch.dtype, stride: int) -> None:
    """Exactly, in every dtype: one product in each sum is not zero. Three groups look in different directions."""
    params = Params(kernel_size=5, stride=stride)
    x = torch.randn(2, 48, 6, 18).to(dtype)
    weight = torch.zeros(2, 3, 5, 5, 6 // stride, 18 // stride, dtype=dtype)
    weight[:, 0, 2, 2] = weight[:, 1, 0, 4] = weight[:, 2, 3, 1] = 1
    with on_cpu():
        y = cuda.CUDA(params, x, weight)
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    for group, (a, b) in enumerate([(2, 2), (0, 4), (3, 1)]):
        channels = slice(16 * group, 16 * group + 16)
        assert torch.equal(y[:, channels], padded[:, channels, a : a + 6 : stride, b : b + 18 : stride])


@pytest.mark.parametrize("group_channels", [4, 16])
def test_the_weight_gradient_of_a_tap_outside_the_image_is_exactly_zero(group_channels: int) -> None:
    params, shape = Params(group_channels=group_channels), Nchw(1, 16, 3, 5)
    x, weight = OPERATOR.inputs(params, shape, Maker(torch.float16)).values()
    weight.requires_grad_()
    with on_cpu():
        (gradient,) = torch.autograd.grad(cuda.CUDA(params, x + 9, weight).sum(), weight)
    seen = torch.ones(1, 1, 3, 5)
    inside = torch.nn.functional.unfold(seen, 7, padding=3).view(7, 7, 3, 5).bool()
    assert torch.equal(gradient != 0, inside.expand_as(gradient))


def test_only_the_gradient_that_is_asked_for_is_computed() -> None:
    x, weight = OPERATOR.inputs(*SMALL, Maker(torch.float16)).values()
    with on_cpu():
        grad_x, none = cuda.backward(SMALL[0], (True, False), x, x, weight)
    assert grad_x is not None
    assert none is None


@pytest.mark.parametrize(
    ("params", "dtype", "kernels"),
    [
        (Params(), torch.float16, {"planar_forward", "planar_input_gradient", "planar_weight_gradient"}),
        (Params(kernel_size=9), torch.float16, {"banded_forward", "banded_input_gradient", "banded_weight_gradient"}),
        (Params(stride=2), torch.bfloat16, {"banded_forward", "banded_input_gradient", "banded_weight_gradient"}),
        (Params(), torch.float32, {"blocked_forward", "blocked_input_gradient", "blocked_weight_gradient"}),
        (
            Params(group_channels=8),
            torch.float16,
            {"blocked_forward", "blocked_input_gradient", "blocked_weight_gradient"},
        ),
        (
            Params(group_channels=32),
            torch.float16,
            {"blocked_forward", "blocked_input_gradient", "aggregate_any_weight_gradient"},
        ),
        (
            Params(dilation=2),
            torch.float16,
            {"aggregate_any", "aggregate_any_input_gradient", "aggregate_any_weight_gradient"},
        ),
    ],
    ids=lambda value: None if isinstance(value, set) else str(value),  # a set has no order to name it by
)
def test_the_path_is_chosen_by_parameters_and_dtype(params: Params, dtype: torch.dtype, kernels: set[str]) -> None:
    assert {launch.kernel.partition("<")[0] for launch in plans(params, Nchw(2, 64, 14, 14), dtype)} == kernels


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("params", [Params(), Params(stride=2), Params(dilation=2)], ids=str)
def test_other_batches_and_heights_and_channels_compile_nothing_new(params: Params, dtype: torch.dtype) -> None:
    first = [launch.kernel for launch in plans(params, Nchw(2, 32, 56, 112), dtype)]
    for shape in (Nchw(5, 32, 56, 112), Nchw(2, 96, 30, 112), Nchw(1, 32, 6, 112)):
        assert [launch.kernel for launch in plans(params, shape, dtype)] == first


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_every_extent_fits_a_block(dtype: torch.dtype) -> None:
    """Shared memory of 64 KiB, the least any supported device gives a block."""
    for kernel_size in (3, 5, 7):
        for stride in (1, 2):
            params = Params(kernel_size=kernel_size, stride=stride)
            for extent in (*range(1, 66), 112, 127, 224):
                for height in (extent, 1):
                    for launch in plans(params, Nchw(1, 16, height, extent), dtype):
                        assert launch.shared_bytes <= 64 << 10, (launch.kernel, height, extent)
                        assert launch.threads <= 448


def test_images_and_groups_beyond_65535_share_one_axis_of_the_grid() -> None:
    for dtype in (torch.float32, torch.float16):
        for launch in plans(Params(), Nchw(70_000, 32, 7, 7), dtype):
            assert launch.grid in [(140_000, 1, 1), (70_000, 1, 1)]


def test_strips_of_a_very_tall_narrow_map_fit_the_grid() -> None:
    for height in (14 * 65_535, 14 * 65_535 + 1):
        assert len(plans(Params(), Nchw(1, 16, height, 1), torch.float16)) == 3


@pytest.mark.parametrize(
    ("params", "extent", "message"),
    [
        (Params(), 12_000, "a group of x has 16 planes of 12000x12000"),
        (Params(group_channels=1), 7_000, "a group of weight has 49 planes of 7000x7000"),
    ],
)
def test_groups_beyond_31_bits_are_refused(params: Params, extent: int, message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        plans(params, Nchw(1, 16, extent, extent), torch.float16)


def plans(params: Params, shape: Nchw, dtype: torch.dtype) -> list[Launch]:
    """The launches of a forward and of both gradients."""
    x, weight = (tensor.shape for tensor in OPERATOR.inputs(params, shape, Maker(dtype, torch.device("meta"))).values())
    y = torch.Size((*x[:2], *weight[4:]))
    launches = [
        cuda.aggregate.plan(params, dtype, x, weight, y),
        cuda.input_gradient.plan(params, dtype, y, weight, x),
        cuda.weight_gradient.plan(params, dtype, y, x, weight),
    ]
    return [launch for launch in launches if launch is not None]
