"""Plans of the kernels in `narrow.cu`: regions, the guide's gradient, and groups of few channels."""

from __future__ import annotations

import torch

from opbench.cuda import Launch, Operations, Source, ceil_div, kernel, tiles

from .reference import Params

SOURCE = Source.beside(__file__, "narrow.cu")

FEW = 16
"""Filters of a group, its inputs times its outputs, up to which a matrix product would be mostly padding."""

MOST_COUNTS = 8192
"""Counts of pixels in the shared memory of a block of `arrange`."""


def is_narrow(p: Params, filters: torch.Size) -> bool:
    """Whether the kernels of this file filter better than matrix products."""
    return p.groups > 1 and filters[2] // p.groups * filters[3] <= FEW


@kernel
def arrange(p: Params, dtype: torch.dtype, guide: torch.Size, places: torch.Size) -> Launch:
    """[N, m, Ho, Wo] -> the region of each pixel, and the pixels of each region."""
    pixels = guide[2:].numel()
    # Each warp counts its pixels of each region in shared memory.
    warps = max(1, min(16, ceil_div(pixels, 32), MOST_COUNTS // p.regions))
    return _launch(
        tiles.name("arrange", dtype),
        blocks=guide[0],
        threads=32 * warps,
        scalars=(p.regions, pixels),
        operations=Operations(outputs=guide[0] * pixels),
        shared_bytes=4 * ((warps + 1) * p.regions + 1),
    )


@kernel
def guide_back(p: Params, dtype: torch.dtype, guide: torch.Size, shares: torch.Size, result: torch.Size) -> Launch:
    """[N, m, Ho, Wo] twice -> [N, m, Ho, Wo]: back through the softmax."""
    pixels = guide[2:].numel()
    chunks = ceil_div(pixels, 256)
    return _launch(
        tiles.name("guide_gradient", dtype),
        blocks=guide[0] * chunks,
        scalars=(p.regions, pixels, chunks),
        operations=Operations(outputs=result.numel(), multiply_adds=result.numel()),
    )


@kernel
def filtered(
    p: Params, dtype: torch.dtype, x: torch.Size, filters: torch.Size, places: torch.Size, y: torch.Size
) -> Launch:
    """[N, C, H, W], [N, m, O, C/g, k, k], regions -> [N, O, Ho, Wo]."""
    chunks = ceil_div(y[2:].numel(), 256)
    return _launch(
        tiles.name("narrow_forward", dtype),
        blocks=y[0] * y[1] * chunks,
        scalars=(*_geometry(p, x, y), chunks),
        operations=Operations(outputs=y.numel(), multiply_adds=y.numel() * filters[3:].numel()),
    )


@kernel
def filtered_back(
    p: Params, dtype: torch.dtype, go: torch.Size, filters: torch.Size, places: torch.Size, gx: torch.Size
) -> Launch:
    """[N, O, Ho, Wo], [N, m, O, C/g, k, k], regions -> [N, C, H, W]."""
    chunks = ceil_div(gx[2:].numel(), 256)
    return _launch(
        tiles.name("narrow_input_gradient", dtype),
        blocks=gx[0] * gx[1] * chunks,
        scalars=(*_geometry(p, gx, go), chunks),
        operations=Operations(outputs=gx.numel(), multiply_adds=go.numel() * filters[3:].numel()),
    )


@kernel
def add_taps(p: Params, dtype: torch.dtype, gx: torch.Size, taps: torch.Size) -> Launch:
    """[N, C, k, k, Ho, Wo] -> [N, C, H, W]: the gradients of what outputs see, added for each pixel that is seen."""
    chunks = ceil_div(gx[2:].numel(), 256)
    y = torch.Size((gx[0], gx[1], *taps[4:]))
    return _launch(
        tiles.name("add_taps", dtype),
        blocks=gx[0] * gx[1] * chunks,
        scalars=(*_geometry(p, gx, y), chunks),
        operations=Operations(outputs=gx.numel(), multiply_adds=gx.numel()),
    )


@kernel
def filters_back(
    p: Params, dtype: torch.dtype, go: torch.Size, x: torch.Size, places: torch.Size, result: torch.Size
) -> Launch:
    """[N, O, Ho, Wo], [N, C, H, W], regions -> [N, m, O, C/g, k, k]."""
    chunks = ceil_div(result[2:].numel(), 8)
    return _launch(
        tiles.name("narrow_filter_gradient", dtype),
        blocks=result[0] * p.regions * chunks,
        scalars=(*_geometry(p, x, go), chunks),
        operations=Operations(outputs=result.numel(), multiply_adds=go.numel() * result[3:].numel()),
    )


@kernel
def respond(
    p: Params, dtype: torch.dtype, go: torch.Size, x: torch.Size, filters: torch.Size, shares: torch.Size
) -> Launch:
    """[N, O, Ho, Wo], [N, C, H, W], [N, m, O, C/g, k, k] -> [N, m, Ho, Wo]: the shares of the guide's gradient."""
    chunks = ceil_div(go[2:].numel(), 256)
    return _launch(
        tiles.name("narrow_responses", dtype),
        blocks=go[0] * p.regions * chunks,
        scalars=(*_geometry(p, x, go), chunks),
        operations=Operations(outputs=shares.numel(), multiply_adds=p.regions * go.numel() * (filters[3:].numel() + 1)),
    )


def _geometry(p: Params, x: torch.Size, y: torch.Size) -> tuple[int, ...]:
    return (
        *(x[2], x[3], y[2], y[3], p.kernel_size, p.stride, p.window.padding, p.dilation),
        *(p.groups, x[1] // p.groups, y[1] // p.groups, p.regions),
    )


def _launch(
    name: str,
    *,
    blocks: int,
    scalars: tuple[int, ...],
    operations: Operations,
    threads: int = 256,
    shared_bytes: int = 0,
) -> Launch:
    tiles.require(blocks=blocks)
    return SOURCE.launch(
        name, grid=(blocks,), block=(threads,), shared_bytes=shared_bytes, scalars=scalars, operations=operations
    )
