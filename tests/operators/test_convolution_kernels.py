"""Kernels of convolution: planted bugs are seen, plans depend on what they may, sums are exact where they can be."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from opbench.api import Nchw, Unsupported
from opbench.cuda import TYPE_NAMES, Launch, on_cpu
from opbench.cuda.emulation import ORDERS
from opbench.cuda.views import divisor
from operators.convolution import cuda, narrow, products
from operators.convolution.reference import Params, convolution

GROUPS = Params(out_channels=6, groups=2), Nchw(1, 12, 4, 5)
EIGHTS = Params(), Nchw(1, 3, 2, 16)
SPARSE = Params(kernel_size=2, padding=0, stride=4), Nchw(1, 3, 7, 6)
DEPTHWISE = Params(groups=4, stride=2), Nchw(2, 4, 5, 4)

BUGS: dict[str, tuple[Any, ...]] = {
    "stages are read before all have stored theirs": (
        "gemm.cuh",
        "overwritten now.\n      __syncthreads();",
        "overwritten now.",
        *GROUPS,
    ),
    "registers of a tensor core are swapped": (
        "gemm.cuh",
        "first[2] = {right[0], right[1]}",
        "first[2] = {right[1], right[0]}",
        *GROUPS,
        "float16",
    ),
    "a window's last row is never outside": ("windows.cuh", "a < rows; ++a", "a < rows - 1; ++a", *GROUPS),
    "every group takes the first one's filters": (
        "narrow.cu",
        "((group * p.outputs + output) * p.channels",
        "(output * p.channels",
        *GROUPS,
    ),
    "pixels beside eight others come from the other side": (
        "windows.cuh",
        "loaded.beside << 16",
        "loaded.beside",
        *EIGHTS,
        "bfloat16",
    ),
    "pixels that no tap reaches stay unwritten": (
        "kernel.cu",
        "if (row + i < p.channels && place >= 0)",
        "if (row + i < p.channels && place >= 0 && depth > 0)",
        *SPARSE,
    ),
    "the last partial sum is left out": ("sums.cuh", "part < p.count", "part < p.count - 1", *DEPTHWISE),
    "an input's gradient between two outputs": (
        "narrow.cu",
        " || y * at.stride != h - a * at.dilation",
        "",
        *DEPTHWISE,
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_seen(bug: str, mutant: Callable[..., Any]) -> None:
    file, old, new, *case = BUGS[bug]
    assert mutant("convolution", file, old, new).failures(*case)


def test_the_kernels_without_bugs_pass(mutant: Callable[..., Any]) -> None:
    shipped = mutant("convolution", "kernel.cu", "struct Forward {", "struct Forward {")
    for case in {tuple(case) for _, _, _, *case in BUGS.values()}:
        assert not shipped.failures(*case)


def test_a_row_beyond_the_last_is_seen_where_memory_ends(mutant: Callable[..., Any]) -> None:
    old = "if (i < rows && place >= 0)\n                     store_floats"
    bug = mutant("convolution", "sums.cuh", old, old.replace("i < rows && ", ""))
    assert bug.failures(Params(kernel_size=1, padding=0), Nchw(1, 5, 4, 4), sanitize=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("order", ORDERS)
def test_sums_of_small_integers_are_exact_however_they_are_split(dtype: torch.dtype, order: Any) -> None:
    """800 positions are three shares of a weight gradient; ones, minus ones and zeros leave nothing to round."""
    generator = torch.Generator().manual_seed(0)
    x, weight, gradient = (
        torch.randint(-1, 2, shape, generator=generator).to(dtype)
        for shape in ((2, 3, 20, 20), (2, 3, 3, 3), (2, 2, 20, 20))
    )
    assert products.splits(Params(out_channels=2), dtype, weight.shape, gradient.shape) == 3
    with on_cpu(order):
        grad_x, grad_weight = cuda.backward(Params(out_channels=2), (True, True), gradient, x, weight)
    assert grad_x is not None
    assert grad_weight is not None
    expected = conv2d_weight(x.double(), weight.shape, gradient.double(), padding=1)
    assert torch.equal(grad_weight, expected.to(dtype))
    expected = conv2d_input(x.shape, weight.double(), gradient.double(), padding=1)
    assert torch.equal(grad_x.double(), expected)


@pytest.mark.parametrize(("params", "shape"), [SPARSE, (Params(stride=3, kernel_size=2), Nchw(1, 2, 8, 8))], ids=str)
def test_pixels_that_no_tap_reaches_have_a_gradient_of_exactly_zero(params: Params, shape: Nchw) -> None:
    channels = shape.channels
    x, weight = torch.ones(shape), torch.ones(channels, channels, params.height, params.width)
    with on_cpu():
        gradient = torch.ones_like(cuda.forward(params, x, weight))
        grad_x = cuda.backward(params, (True, False), gradient, x, weight)[0]
    expected = conv2d_input(x.shape, weight, gradient, stride=params.stride, padding=params.windows[0].padding)
    assert grad_x is not None
    assert bool((expected == 0).any())
    assert torch.equal(grad_x, expected)


@pytest.mark.parametrize("wanted", list(itertools.product((False, True), repeat=3)), ids=str)
def test_only_what_is_wanted_is_computed(wanted: tuple[bool, bool, bool]) -> None:
    x, weight, bias = torch.randn(1, 2, 3, 4), torch.randn(2, 2, 3, 3), torch.randn(2)
    with on_cpu():
        every = cuda.backward(Params(bias=True), (True, True, True), torch.ones(1, 2, 3, 4), x, weight, bias)
        some = cuda.backward(Params(bias=True), wanted, torch.ones(1, 2, 3, 4), x, weight, bias)
    for asked, whole, gradient in zip(wanted, every, some, strict=True):
        assert whole is not None
        assert torch.equal(gradient, whole) if gradient is not None else not asked


def test_an_infinite_pixel_spoils_the_windows_that_see_it_and_no_other() -> None:
    """In tiles of 64 positions it lies beside windows of its own image and of the next."""
    x, weight = torch.zeros(2, 3, 5, 6), torch.ones(4, 3, 3, 3)
    x[0, 1, 4, 5] = torch.inf
    params = Params(out_channels=4)
    with on_cpu():
        y = cuda.forward(params, x, weight)
    assert torch.equal(y.isfinite(), convolution(params, x, weight).isfinite())
    assert int((~y.isfinite()).sum()) == 4 * 4


def test_a_divisor_divides_every_number_of_31_bits() -> None:
    largest = 2**31 - 1
    for by in (1, 2, 3, 7, 9, 49, 64, 196, 3136, 65535, 2**16 + 1, 2**30 + 1, largest):
        given, multiplier, shift = divisor(by)
        assert given == by
        assert -(2**31) <= multiplier < 2**31
        for n in {0, 1, by - 1, by, min(2 * by - 1, largest), largest // by * by - 1, largest // by * by, largest}:
            assert n * (multiplier % 2**32) >> shift == n // by


def launch_of(params: Params, shape: Nchw, dtype: torch.dtype = torch.float32, outputs: int = 64) -> Launch:
    """The launch of the forward."""
    x = torch.Size(shape)
    weight = torch.Size((outputs, shape.channels // params.groups, params.height, params.width))
    y = torch.Size((shape.batch, outputs, *(w.outputs(n) for w, n in zip(params.windows, x[2:], strict=True))))
    launch = products.convolve.plan(params, dtype, x, weight, None, y)
    assert launch is not None
    return launch


@pytest.mark.parametrize(
    ("dtype", "tiles", "ways"),
    [
        (torch.float32, ("128, 64, 4", "64, 64, 4"), ("FEW_TAPS",)),
        (torch.float16, ("128, 128, 8", "64, 128, 8", "64, 64, 8"), ("FEW_TAPS", "BESIDE")),
    ],
    ids=str,
)
def test_images_of_any_number_and_size_share_a_few_kernels(
    dtype: torch.dtype, tiles: tuple[str, ...], ways: tuple[str, ...]
) -> None:
    """They differ by the tile of a block, as large as leaves enough blocks for a GPU, and by what rows are made of."""
    sizes = itertools.product((1, 2, 3, 32, 128), (1, 5, 14, 56, 224), (3, 7, 28, 33, 112))
    kernels = {launch_of(Params(), Nchw(n, 16, h, w), dtype, outputs=128).kernel for n, h, w in sizes}
    assert kernels == {f"forward<{TYPE_NAMES[dtype]}, {tile}, {way}>" for tile in tiles for way in ways}


@pytest.mark.parametrize(
    ("side", "dtype", "values"),
    [
        (56, torch.float32, 4),
        (56, torch.bfloat16, 8),
        (14, torch.float32, 4),
        (14, torch.bfloat16, 4),
        (7, torch.float32, 1),
        (7, torch.bfloat16, 1),
    ],
)
def test_a_single_tap_takes_as_many_pixels_at_once_as_divide_an_image(
    side: int, dtype: torch.dtype, values: int
) -> None:
    kernel = launch_of(Params(kernel_size=1, padding=0), Nchw(2, 16, side, side), dtype).kernel
    assert kernel.endswith(f", {values}>")


@pytest.mark.parametrize("params", [Params(kernel_size=1, padding=0, stride=2), Params(kernel_size=1, padding=1)])
def test_a_single_tap_that_skips_or_pads_is_gathered(params: Params) -> None:
    assert launch_of(params, Nchw(2, 16, 8, 8)).kernel.endswith(", FEW_TAPS>")


def test_groups_of_few_channels_are_no_matrix_products() -> None:
    for groups, outputs, inputs, expected in ((1, 4, 4, False), (8, 8, 1, True), (2, 8, 4, True), (2, 10, 4, False)):
        assert narrow.is_narrow(Params(groups=groups), torch.Size((outputs, inputs, 3, 3))) is expected


@pytest.mark.parametrize(
    ("shape", "weight", "message"),
    [
        ((2**14, 1, 512, 512), (1, 1, 3, 3), "pixels of all images by 32-bit integers, and there are 4311760896"),
        ((1, 2**12, 1024, 1024), (1, 2**12, 3, 3), "values of one image by 32-bit integers, and there are 4294967296"),
        ((1, 1, 2**15, 1), (1, 1, 3, 3), "16 bits, and there are 32768 in a row"),
        ((1, 4, 5, 5), (2, 3, 3, 3), r"a weight \[2, 3, 3, 3\] does not fit 4 channels in 1 groups"),
    ],
)
def test_what_kernels_cannot_number_is_refused(shape: tuple[int, ...], weight: tuple[int, ...], message: str) -> None:
    tensors = torch.empty(shape, device="meta"), torch.empty(weight, device="meta")
    with pytest.raises(Unsupported, match=message):
        cuda.forward(Params(out_channels=weight[0]), *tensors)


def test_a_window_larger_than_the_padded_image_is_unsupported() -> None:
    tensors = torch.empty(1, 2, 4, 9), torch.empty(2, 2, 5, 5)
    with pytest.raises(Unsupported, match="5x5 window does not fit"):
        cuda.forward(Params(kernel_size=5, padding=0), *tensors)


def test_channels_last_gives_what_convolution_gives_in_that_layout() -> None:
    from opbench.registry import Registry

    operator = Registry.discover().load("convolution")
    x, weight = torch.randn(2, 4, 5, 6, dtype=torch.float64), torch.randn(6, 4, 3, 3, dtype=torch.float64)
    y = operator.implementations["channels_last"](operator.params(out_channels=6), x, weight)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, F.conv2d(x, weight, padding=1))
