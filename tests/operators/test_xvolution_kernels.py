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

SEVEN = Params(heads=2, scale="head_width"), Nchw(1, 64, 7, 7)
FOURTEEN = Params(heads=2, scale="head_width"), Nchw(1, 32, 14, 14)

BUGS_ON_PLANES = {
    "a value is read before it has come": ("planes.cuh", "  wait_for_copies<0>();\n", "", *SEVEN),
    "other threads' copies are not awaited": (
        "planes.cuh",
        "  wait_for_copies<0>();\n  __syncthreads();",
        "  wait_for_copies<0>();",
        *SEVEN,
    ),
    "half rows are never shifted": ("planes.cuh", "number % 2 ? NEXT : BETWEEN", "NEXT", *FOURTEEN),
    "a segment's odd pixel is never stored": (
        "planes.cuh",
        "  run.words[upper ? 1 : SEGMENT - 1] = alone;\n",
        "",
        *SEVEN,
    ),
    "the odd pixel is always the last": ("planes.cuh", "upper ? 1 : SEGMENT - 1", "SEGMENT - 1", *SEVEN),
    "slices are added but once": ("planes.cu", "distance *= 2", "distance *= 4", *SEVEN),
    "affinities are not scaled": ("planes.cu", "  if (shape.scale == 1) return;", "  return;", *SEVEN),
    "slices take neighbouring channels": (
        "planes.cu",
        "          slice * plane + number",
        "          number",
        *FOURTEEN,
    ),
    "results go back before all are there": (
        "planes.cu",
        "place.exists);\n  __syncthreads();\n  copy_out(static_cast<T*>(p.y)",
        "place.exists);\n  copy_out(static_cast<T*>(p.y)",
        *SEVEN,
    ),
    "affinities are turned before all are there": (
        "planes.cu",
        "  keep_affinities(kept, affinities, place);\n  __syncthreads();\n",
        "  keep_affinities(kept, affinities, place);\n",
        *FOURTEEN,
    ),
    "a gradient overwrites queries that others read": (
        "planes.cu",
        "  add_slices(others, p.shape);\n  __syncthreads();\n",
        "  add_slices(others, p.shape);\n",
        *FOURTEEN,
    ),
    "a gradient overwrites keys that others read": (
        "planes.cu",
        "place.exists);\n  __syncthreads();\n  // and",
        "place.exists);\n  // and",
        *FOURTEEN,
    ),
    "gradients go back before all are there": (
        "planes.cu",
        "place.exists);\n  __syncthreads();\n  copy_out(static_cast<T*>(p.grad_query)",
        "place.exists);\n  copy_out(static_cast<T*>(p.grad_query)",
        *FOURTEEN,
    ),
    "affinities are not turned": ("planes.cu", "(TAPS - 1 - tap) * place.plane", "tap * place.plane", *FOURTEEN),
    "turned affinities come from the other half row": (
        "planes.cu",
        "place.number % 2 == (column < 0)",
        "place.number % 2 != (column < 0)",
        *FOURTEEN,
    ),
    "half of the channels go back": (
        "planes.cu",
        "p.grad_key) + place.head, shared + value, place.values)",
        "p.grad_key) + place.head, shared + value, place.values / 2)",
        *FOURTEEN,
    ),
}


@pytest.mark.parametrize("bug", BUGS_ON_PLANES)
def test_planted_bugs_are_seen_on_planes(bug: str, mutant: Callable[..., Any]) -> None:
    file, old, new, params, shape = BUGS_ON_PLANES[bug]
    changed = mutant("xvolution", file, old, new)
    assert any(changed.failures(params, shape, "float16", order) for order in ("forward", "reverse"))


@pytest.mark.parametrize(("row", "column", "width"), [(0, 0, 7), (6, 3, 7), (3, 6, 14), (6, 7, 14)])
def test_an_infinite_gradient_reaches_the_windows_it_is_in_and_no_others(row: int, column: int, width: int) -> None:
    # On planes: affinities of other rows stand where those of rows beyond the image would.
    gradient, *tensors = torch.randn(4, 1, 16, 7, width).half().unbind()
    gradient[0, 2, row, column] = float("inf")
    with on_cpu() as launched:
        of_query, of_key, of_value = cuda.backward(Params(heads=1), (True, True, True), gradient, *tensors)
    assert launched == [f"attend_planes_backward<float16, {width // 7}>"]
    rows, columns = torch.arange(7)[:, None], torch.arange(width)
    window = ((rows - row).abs() <= 1) & ((columns - column).abs() <= 1)
    assert of_query is not None
    assert of_key is not None
    assert of_value is not None
    assert torch.equal(~of_query.isfinite().all(1)[0], (rows == row) & (columns == column))
    assert torch.equal(~of_key.isfinite().all(1)[0], window)
    assert torch.equal(~of_value.isfinite()[0, 2], window)


def test_planes_without_bugs_pass(mutant: Callable[..., Any]) -> None:
    shipped = mutant("xvolution", "planes.cu", "struct Shape", "struct Shape")
    for params, shape in (SEVEN, FOURTEEN):
        assert not shipped.failures(params, shape, "float16", sanitize=True)
    assert not shipped.failures(*SEVEN, "float32", sanitize=True)


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


def test_images_on_planes_that_overflow_a_grid_continue_along_its_third_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "MAX_GRID_Y", 2)
    tensors = torch.randn(3, 5, 32, 2, 7).half().unbind()
    with on_cpu() as launched:
        y = cuda.CUDA(Params(heads=2), *tensors)
    assert launched == ["attend_planes<float16, 1>"]
    torch.testing.assert_close(y, xvolution(Params(heads=2), *tensors), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("height", [0, 7])
def test_nothing_is_asked_of_images_without_pixels(height: int) -> None:
    nothing = torch.randn(2 if height == 0 else 0, 32, height, 7).half()
    with on_cpu():
        y = cuda.CUDA(Params(heads=2), nothing, nothing, nothing)
    assert y.shape == nothing.shape


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
            if "planes" in launch.kernel:
                continue
            lanes, slices, _ = launch.block
            assert lanes == 32
            assert slices <= 8
            assert head_width % slices == 0
            assert launch.shared_bytes <= 48 << 10
            together = int(launch.kernel.rstrip(">").split(", ")[-2])
            assert head_width // slices % together == 0


@pytest.mark.parametrize("plan", [cuda.attend.plan, cuda.attend_backward.plan])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_heads_on_planes_fit_a_block(plan: Callable[..., Launch], dtype: torch.dtype) -> None:
    for head_width in (8, 16, 24, 32, 63, 64, 128, 512):
        for height in (1, 7, 14, 100):
            for width in (7, 14):
                x = torch.Size((2, 2 * head_width, height, width))
                launch = plan(Params(heads=2), dtype, *[x] * 4)
                if "planes" not in launch.kernel:
                    continue
                _, _, width_of_head, slices, *_ = launch.scalars
                assert launch.block[0] <= 128
                assert launch.block[0] % 32 == 0
                assert launch.block[0] >= slices * height * width // 7
                assert launch.shared_bytes <= 64 << 10
                assert width_of_head == head_width
                assert head_width % slices == 0


def test_half_precision_on_small_maps_goes_through_shared_memory() -> None:
    launch = attention(Nchw(32, 256, 14, 14), Params(), torch.float16)
    assert launch.kernel == "attend_planes<float16, 2>"
    # Four slices of eight channels for each of 28 half rows, in four warps; a head of query, key and value.
    assert launch.block == (128, 1, 1)
    assert launch.grid == (8, 32, 1)
    assert launch.shared_bytes == 64 + 3 * 32 * 196 * 2
    assert attention(Nchw(32, 512, 7, 7), Params(), torch.float16).kernel == "attend_planes<float16, 1>"


@pytest.mark.parametrize(
    ("width", "kernel"), [(7, "attend_planes_backward<float, 1>"), (14, "attend_backward<float, 3, 2, 1, 4>")]
)
def test_in_single_precision_only_odd_rows_go_through_shared_memory(width: int, kernel: str) -> None:
    launch = cuda.attend_backward.plan(Params(), torch.float32, *[torch.Size((32, 256, 7, width))] * 4)
    assert launch is not None
    assert launch.kernel == kernel
    assert attention(Nchw(32, 256, 7, width), Params()).kernel.startswith("attend<")


@pytest.mark.parametrize(
    ("shape", "params"),
    [
        (Nchw(2, 64, 7, 7), Params(heads=8)),
        (Nchw(2, 512, 14, 14), Params(heads=2)),
        (Nchw(2, 24, 7, 7), Params(heads=2)),
        (Nchw(2, 256, 14, 14), Params(kernel_size=5)),
        (Nchw(2, 256, 21, 21), Params()),
    ],
)
def test_what_does_not_suit_planes_goes_through_registers(shape: Nchw, params: Params) -> None:
    assert attention(shape, params, torch.float16).kernel.startswith("attend<")


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
