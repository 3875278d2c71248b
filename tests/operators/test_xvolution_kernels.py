"""Kernels of X-volution: planted bugs are seen, one gradient is that of other roles, plans depend on what they may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from opbench.cases import Nchw
from opbench.cuda import Launch, on_cpu
from opbench.errors import Unsupported
from operators.xvolution import cuda
from operators.xvolution.reference import Params, xvolution

SLICED = Params(heads=1), Nchw(1, 16, 3, 6)
DIAGONAL = Params(form="A", directions=8, shift=2), Nchw(1, 2, 4, 8)
LARGE = Params(heads=2, kernel_size=9), Nchw(1, 6, 3, 4)

BUGS = {
    "slices add up before all have written": (
        "attention.cu",
        "= sums[i / PIXELS][i % PIXELS];\n    __syncthreads();",
        "= sums[i / PIXELS][i % PIXELS];",
        *SLICED,
    ),
    "slices read before all are added up": (
        "attention.cu",
        "= sum;\n    }\n    __syncthreads();",
        "= sum;\n    }",
        *SLICED,
    ),
    "every slice takes the first one's channels": (
        "attention.cu",
        "shape.head_width + threadIdx.y",
        "shape.head_width",
        *SLICED,
    ),
    "one slice is not added": ("attention.cu", "int other = 0; other", "int other = 1; other", *SLICED),
    "affinities to rows beyond the image count": (
        "attention.cu",
        "  clear_beyond<K, TAPS>(affinities, at.row, height);\n",
        "",
        *SLICED,
    ),
    "the key's gradient weighs gradients": (
        "attention.cu",
        "sums[1], affinities, queries[t]",
        "sums[1], affinities, gradients[t]",
        *SLICED,
    ),
    "diagonals are out of order": ("products.cu", "direction + direction / 4", "direction", *DIAGONAL),
    "gradients are not shifted back": (
        "products.cu",
        "gradients, at, -step.down, -step.right",
        "gradients, at, step.down, step.right",
        *DIAGONAL,
    ),
    "products wrap around": ("products.cu", "inside && has_column(at.column, from, shape.width)", "inside", *DIAGONAL),
    "windows of any size are not scaled": (
        "any_attention.cu",
        "p.scale * sums",
        "sums",
        Params(heads=2, kernel_size=9, scale="head_width"),
        LARGE[1],
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_seen(bug: str, mutant: Callable[..., Any]) -> None:
    file, old, new, params, shape = BUGS[bug]
    assert mutant("xvolution", file, old, new).failures(params, shape)


def test_the_kernels_without_bugs_pass(mutant: Callable[..., Any]) -> None:
    shipped = mutant("xvolution", "attention.cu", "struct Shape", "struct Shape")
    for *_, params, shape in BUGS.values():
        assert not shipped.failures(params, shape)


def test_channels_beyond_the_last_head_are_seen(mutant: Callable[..., Any]) -> None:
    changed = mutant("xvolution", "any_attention.cu", "min(MEMBERS, p.head_width - member)", "MEMBERS")
    assert changed.failures(*LARGE, sanitize=True)


@pytest.mark.parametrize("size", [3, 5, 9])
def test_each_gradient_alone_is_that_of_all(size: int) -> None:
    params = Params(heads=2, kernel_size=size, scale="head_width")
    gradient, *tensors = torch.randn(4, 1, 16, 3, 6).unbind()
    with on_cpu():
        together = cuda.backward(params, (True, True, True), gradient, *tensors)
        for i in range(3):
            wanted = tuple(i == j for j in range(3))
            alone = cuda.backward(params, wanted, gradient, *tensors)
            assert [found is not None for found in alone] == list(wanted)
            torch.testing.assert_close(alone[i], together[i], rtol=0, atol=0)


def test_each_gradient_of_the_products_alone_is_that_of_both() -> None:
    params = Params(form="A", directions=8)
    query, key, gradient = torch.randn(1, 2, 3, 6), torch.randn(1, 2, 3, 6), torch.randn(1, 16, 3, 6)
    with on_cpu():
        both = cuda.backward(params, (True, True), gradient, query, key)
        first, nothing = cuda.backward(params, (True, False), gradient, query, key)
        none, second = cuda.backward(params, (False, True), gradient, query, key)
    assert nothing is none is None
    torch.testing.assert_close([first, second], both, rtol=0, atol=0)


def test_a_query_at_the_border_sees_only_the_image() -> None:
    # Ones everywhere: the affinity to each pixel of the image is 8, of which 2 x 2, 2 x 3 or 3 x 3 are in the window.
    ones = torch.ones(1, 8, 3, 4)
    with on_cpu():
        y = cuda.CUDA(Params(heads=1), ones, ones, ones)
    corner, edge, middle = 8.0 * 4, 8.0 * 6, 8.0 * 9
    rows = [[corner, edge, edge, corner], [edge, middle, middle, edge], [corner, edge, edge, corner]]
    assert torch.equal(y, torch.tensor(rows).expand_as(y))


@pytest.mark.parametrize("size", [3, 7, 9])
@pytest.mark.parametrize("place", [(0, 0), (2, 5), (4, 7)])
def test_an_infinite_value_reaches_the_windows_it_is_in_and_no_others(size: int, place: tuple[int, int]) -> None:
    params = Params(heads=1, kernel_size=size)
    query, key, value = torch.randn(3, 1, 4, 5, 8).unbind()
    value[0, 1, place[0], place[1]] = float("inf")
    expected = xvolution(params, query, key, value).isfinite()
    with on_cpu():
        y = cuda.CUDA(params, query, key, value)
    assert torch.equal(y.isfinite(), expected)
    assert not bool(expected.all())


@pytest.mark.parametrize("params", [Params(heads=2), Params(heads=2, kernel_size=9), Params(form="A")], ids=str)
def test_images_that_overflow_a_grid_continue_along_its_third_axis(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "MAX_GRID_Y", 2)
    tensors = torch.randn(3 if params.form == "B" else 2, 5, 4, 2, 3).unbind()
    with on_cpu():
        y = cuda.CUDA(params, *tensors)
    torch.testing.assert_close(y, xvolution(params, *tensors))


def attention(x: Nchw, params: Params, dtype: torch.dtype = torch.float32) -> Launch:
    launch = cuda.attend.plan(params, dtype, *[torch.Size(x)] * 4)
    assert launch is not None
    return launch


def test_a_new_image_size_compiles_nothing_new() -> None:
    shapes = [Nchw(*shape) for shape in ((32, 256, 28, 28), (1, 256, 28, 28), (7, 256, 3, 56), (2, 256, 100, 168))]
    assert {attention(shape, Params()).kernel for shape in shapes} == {"attend<float, 3, 4, 2, 4>"}
    assert attention(Nchw(32, 256, 14, 14), Params()).kernel == "attend<float, 3, 2, 4, 4>"
    assert attention(Nchw(32, 512, 7, 7), Params()).kernel == "attend<float, 3, 1, 4, 8>"
    assert attention(Nchw(32, 256, 14, 14), Params(kernel_size=7)).kernel == "attend<float, 7, 2, 1, 2>"


@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize("plan", [cuda.attend.plan, cuda.attend_backward.plan])
def test_slices_are_equal_and_their_sums_fit_a_block(size: int, plan: Callable[..., Launch]) -> None:
    for head_width in (1, 8, 12, 16, 24, 32, 63, 64, 512):
        for width in (7, 14, 28):
            x = torch.Size((2, head_width, 5, width))
            launch = plan(Params(heads=1, kernel_size=size), torch.float32, *[x] * 4)
            lanes, slices, _ = launch.block
            assert lanes == 32
            assert slices <= 8
            assert head_width % slices == 0
            assert launch.shared_bytes <= 48 << 10
            together = int(launch.kernel.rstrip(">").split(", ")[-2])
            assert head_width // slices % together == 0


def test_images_beyond_31_bits_are_refused() -> None:
    large = torch.Size((1, 16, 8192, 8192))
    cuda.attend.plan(Params(), torch.float32, *[large] * 4)
    cuda.multiply.plan(Params(form="A"), torch.float32, torch.Size((9, 4, 8192, 8192)), large, large)
    products = torch.Size((1, 64, 8192, 8192))
    with pytest.raises(Unsupported, match="64 planes of 8192x8192"):
        cuda.multiply.plan(Params(form="A"), torch.float32, large, large, products)


def test_a_shift_beyond_the_image_is_shortened_to_it() -> None:
    launch = cuda.multiply.plan(
        Params(form="A", shift=2**40), torch.float32, *[torch.Size((1, 4, 3, 8))] * 2, torch.Size((1, 16, 3, 8))
    )
    assert launch is not None
    assert launch.scalars[-1] == 8
