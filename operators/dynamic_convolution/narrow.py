"""Plans of the kernels in `narrow.cu`: groups of few channels, and the last sums of the gradients."""

from __future__ import annotations

import torch

from opbench.cuda import Launch, Operations, Source, ceil_div, kernel, tiles
from opbench.cuda.views import divisor

from .reference import Params

SOURCE = Source.beside(__file__, "narrow.cu")

FEW = 16
"""Filters of a group, its inputs times its outputs, up to which a matrix product would be mostly padding."""
EACH = 4
"""Pixels of a thread of `convolve`."""
BLOCKS = 1056
"""Blocks of 256 threads that an H200 holds at a time."""
WARPS = 8
"""Warps of a block, each of which has a filter, or a weight, of its own in `weigh`."""


def is_narrow(p: Params, weight: torch.Size) -> bool:
    """Whether the kernels of this file convolve better than matrix products."""
    return p.groups > 1 and weight[1] // p.groups * weight[2] <= FEW


@kernel
def convolve(
    p: Params,
    dtype: torch.dtype,
    x: torch.Size,
    weight: torch.Size,
    bias: torch.Size | None,
    attention: torch.Size,
    y: torch.Size,
) -> Launch:
    """[N, C, H, W], [K, O, C/g, k, k], [K, O] or none, [N, K] -> [N, O, Ho, Wo]."""
    return _planes(
        p, tiles.name("narrow_forward", dtype, _made_for(p)), y, weight[2:].numel(), _geometry(p, weight, x, y)
    )


@kernel
def convolve_back(
    p: Params, dtype: torch.dtype, go: torch.Size, weight: torch.Size, attention: torch.Size, gx: torch.Size
) -> Launch:
    """[N, O, Ho, Wo], [K, O, C/g, k, k], [N, K] -> [N, C, H, W]."""
    filters = weight[1] // p.groups * p.kernel_size**2
    name = tiles.name("narrow_input_gradient", dtype, _made_for(p), p.stride > 1)
    return _planes(p, name, gx, filters, _geometry(p, weight, gx, go))


@kernel
def weigh(
    p: Params,
    dtype: torch.dtype,
    go: torch.Size,
    x: torch.Size,
    weight: torch.Size,
    attention: torch.Size,
    result: torch.Size | None,
    products: torch.Size | None,
) -> Launch:
    """[N, O, Ho, Wo], [N, C, H, W], [K, O, C/g, k, k], [N, K] -> [splits, K, O, C/g, k, k], [N, K, tiles]."""
    splits, number = count_splits(p, weight, x[0]), count_tiles(p, weight)
    chunks = ceil_div(p.experts, 32)
    return _launch(
        tiles.name("narrow_weight_gradient", dtype, _made_for(p)),
        blocks=number * splits * chunks,
        shared_bytes=4 * 32 * WARPS,
        scalars=(*_geometry(p, weight, x, go), x[0], ceil_div(max(1, x[0]), splits), number, splits),
        operations=Operations(
            outputs=weight.numel(), multiply_adds=chunks * weight[1:].numel() * x[0] * ceil_div(go[2:].numel(), 32) * 32
        ),
    )


@kernel
def add_up(p: Params, dtype: torch.dtype, result: torch.Size, partials: torch.Size) -> Launch:
    """[splits, ...] -> [...], in the order of the splits."""
    return _launch(
        tiles.name("add_partials", dtype),
        blocks=ceil_div(result.numel(), 256),
        scalars=(partials[0], result.numel()),
        operations=Operations(outputs=result.numel()),
    )


@kernel
def sum_planes(p: Params, dtype: torch.dtype, go: torch.Size, sums: torch.Size) -> Launch:
    """[N, O, Ho, Wo] -> [N, O]."""
    return _launch(
        tiles.name("plane_sums", dtype),
        blocks=ceil_div(sums.numel(), WARPS),
        scalars=(sums.numel(), go[2:].numel()),
        operations=Operations(outputs=sums.numel()),
    )


@kernel
def bias_back(p: Params, dtype: torch.dtype, attention: torch.Size, sums: torch.Size, result: torch.Size) -> Launch:
    """[N, K], [N, O] -> [K, O]."""
    return _launch(
        tiles.name("bias_gradient", dtype),
        blocks=ceil_div(result.numel(), 256),
        scalars=(*attention, result[1]),
        operations=Operations(outputs=result.numel(), multiply_adds=result.numel() * attention[0]),
    )


@kernel
def attention_back(
    p: Params,
    dtype: torch.dtype,
    result: torch.Size,
    bias: torch.Size | None,
    products: torch.Size,
    sums: torch.Size | None,
) -> Launch:
    """[K, O] or none, [N, K, tiles], [N, O] or none -> [N, K]."""
    return _launch(
        tiles.name("attention_gradient", dtype),
        blocks=ceil_div(result.numel(), WARPS),
        scalars=(result.numel(), p.experts, 0 if bias is None else bias[1], products[2]),
        operations=Operations(outputs=result.numel()),
    )


def count_tiles(p: Params, weight: torch.Size) -> int:
    """Blocks that one expert's filters are spread over in `weigh`."""
    return ceil_div(weight[1:].numel(), WARPS * max(1, _made_for(p) ** 2))


def count_splits(p: Params, weight: torch.Size, images: int) -> int:
    """Into how many partial sums, of some images each, the experts' gradient is best split."""
    share = ceil_div(max(1, images), max(1, min(images, ceil_div(BLOCKS, count_tiles(p, weight)))))
    return ceil_div(max(1, images), share)


def _made_for(p: Params) -> int:
    """Taps per side where kernels are made for so many, else 0."""
    return p.kernel_size if p.kernel_size in (3, 5) else 0


def _planes(p: Params, name: str, result: torch.Size, filters: int, geometry: tuple[int, ...]) -> Launch:
    """A launch with a thread for some values of a result, and for each block so many mixed weights."""
    pixels = result[2:].numel()
    threads = min(256, ceil_div(ceil_div(pixels, EACH), 32) * 32)
    chunks = ceil_div(pixels, threads * EACH)
    return _launch(
        name,
        blocks=result[0] * result[1] * chunks,
        threads=threads,
        shared_bytes=4 * filters,
        scalars=(*geometry, chunks),
        operations=Operations(
            outputs=result.numel(),
            multiply_adds=(result.numel() + result[0] * result[1] * chunks * p.experts) * filters,
        ),
    )


def _geometry(p: Params, weight: torch.Size, x: torch.Size, y: torch.Size) -> tuple[int, ...]:
    return (
        *(x[2], *divisor(x[3]), y[2], *divisor(y[3])),
        *(p.kernel_size, p.stride, p.window.padding, p.dilation),
        *(p.groups, weight[2], weight[1] // p.groups, p.experts),
    )


def _launch(
    name: str,
    *,
    blocks: int,
    scalars: tuple[int, ...],
    operations: Operations,
    shared_bytes: int = 0,
    threads: int = 32 * WARPS,
) -> Launch:
    tiles.require(blocks=blocks)
    return SOURCE.launch(
        name, grid=(blocks,), block=(threads,), shared_bytes=shared_bytes, scalars=scalars, operations=operations
    )
