"""Plans of the kernels in `kernel.cu`: dynamic convolution as matrix products, one for each image."""

from __future__ import annotations

import math

import torch

from opbench.cuda import TYPE_NAMES, Launch, Source, ceil_div, kernel, tiles
from opbench.cuda.views import backward_view, flipped_view, forward_view

from . import bands
from .reference import Params

SOURCE = Source.beside(__file__)

TILE = (64, 64)
"""Rows and columns of a tile."""
TILES = 3
"""Tiles of a block, which share the experts' filters; a fourth would ask for more shared memory than some GPUs have.
One less where kernels count the experts in 16 bits, which takes more registers."""
AT_ONCE = 4
"""Experts whose gradients a block of `weigh` keeps, all but one in registers."""
SMALL = 15
"""Taps per side up to which windows are gathered the quicker way."""
BLOCKS = 264
"""Blocks of `weigh` that an H200 holds at a time: two for each of its 132 multiprocessors."""


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
    view = forward_view(p.window, p.window, *x[2:])
    banded = bands.plan(p, "forward", dtype, x=x, y=y, view=view)
    if banded is not None:
        return banded
    pixels, depth = y[2:].numel(), weight[2:].numel()
    positions = tiles.four_or_one(pixels) if is_pointwise(p) else _gathered(p)
    return _launch(
        p,
        "forward",
        dtype,
        weight,
        extents=(weight[1] // p.groups, pixels, depth),
        vectors=(tiles.whole_vector(dtype, depth), positions),
        view=view,
        result=y,
    )


@kernel
def convolve_back(
    p: Params, dtype: torch.dtype, go: torch.Size, weight: torch.Size, attention: torch.Size, gx: torch.Size
) -> Launch:
    """[N, O, Ho, Wo], [K, O, C/g, k, k], [N, K] -> [N, C, H, W]."""
    outputs, channels = weight[1] // p.groups, weight[2]
    if p.stride > 1:
        positions = ceil_div(gx[2], p.stride) * ceil_div(gx[3], p.stride)
        return _launch(
            p,
            "strided_input_gradient",
            dtype,
            weight,
            # The blocks of all residues TILES go through the taps once.
            extents=(channels, positions, ceil_div(outputs * p.kernel_size**2, p.stride**2)),
            vectors=(_gathered(p),),
            view=backward_view(p.window, p.window, *gx[2:]),
            result=gx,
            residues=p.stride**2,
            more=(gx[2], gx[3], p.stride, p.stride // math.gcd(p.stride, p.dilation)),
        )
    view = flipped_view(p.window, p.window, *gx[2:])
    banded = bands.plan(p, "input_gradient", dtype, x=go, y=gx, view=view)
    if banded is not None:
        return banded
    pixels = gx[2:].numel()
    pointwise = tiles.whole_vector(dtype, channels), tiles.four_or_one(pixels)
    return _launch(
        p,
        "input_gradient",
        dtype,
        weight,
        extents=(channels, pixels, outputs * p.kernel_size**2),
        vectors=pointwise if is_pointwise(p) else (1, _gathered(p)),
        view=view,
        result=gx,
    )


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
    splits, pixels = count_splits(p, weight, x[0]), go[2:].numel()
    kind = TYPE_NAMES[dtype if is_whole(p, weight) else torch.float32]
    # Single pixels are as quickly gathered, and in fewer registers.
    positions = 4 if is_pointwise(p) and pixels % 4 == 0 else 0
    share = ceil_div(max(1, x[0]), splits)
    number = count_tiles(p, weight) * ceil_div(p.experts, AT_ONCE) * splits
    launch = tiles.blocks(dtype, TILE, number, ceil_div(pixels, 32) * 32 * share, weight.numel())
    # Sums of each warp, and the tile of the expert that has no registers.
    launch["shared_bytes"] += 64 + 4 * TILE[0] * TILE[1]
    return SOURCE.launch(
        f"weight_gradient<{TYPE_NAMES[dtype]}, {kind}, {positions}>",
        **launch,
        scalars=(*forward_view(p.window, p.window, *x[2:]), *_experts(p, weight, x[0]), share, splits),
    )


def count_tiles(p: Params, weight: torch.Size) -> int:
    """Tiles of one expert's filters."""
    return tiles.count(TILE, weight[1] // p.groups, weight[2:].numel()) * p.groups


def is_whole(p: Params, weight: torch.Size) -> bool:
    """Whether a block of `weigh` has all images, and its result is no partial sum: by the filters, not by the batch."""
    return count_tiles(p, weight) * ceil_div(p.experts, AT_ONCE) >= BLOCKS


def count_splits(p: Params, weight: torch.Size, images: int) -> int:
    """Into how many partial sums, of some images each, the experts' gradient is best split."""
    if is_whole(p, weight):
        return 1
    blocks = count_tiles(p, weight) * ceil_div(p.experts, AT_ONCE)
    share = ceil_div(max(1, images), max(1, min(images, ceil_div(BLOCKS, blocks))))
    return ceil_div(max(1, images), share)


def is_pointwise(p: Params) -> bool:
    """Whether each output sees just its own pixel."""
    return (p.kernel_size, p.stride, p.window.padding) == (1, 1, 0)


def _gathered(p: Params) -> int:
    """How windows are gathered: the quicker way (0), or that for windows of any size (-1)."""
    return 0 if p.kernel_size <= SMALL else -1


def _launch(
    p: Params,
    name: str,
    dtype: torch.dtype,
    weight: torch.Size,
    *,
    extents: tuple[int, int, int],
    vectors: tuple[int, ...],
    view: tuple[int, ...],
    result: torch.Size,
    residues: int = 1,
    more: tuple[int, ...] = (),
) -> Launch:
    """A launch whose blocks work on several images: for each a product of so many rows, columns and terms."""
    rows, columns, depth = extents
    # Large windows leave no registers for more experts at a time.
    usual = bands.USUAL if p.experts == bands.USUAL and vectors[-1] >= 0 else 0
    together = TILES if usual or dtype == torch.float32 else TILES - 1
    number = ceil_div(rows, TILE[0]) * p.groups * residues * ceil_div(result[0] * ceil_div(columns, TILE[1]), together)
    launch = tiles.blocks(dtype, TILE, number * together, depth, result.numel())
    launch |= {"grid": (number,), "block": (2 * TILE[0], together), "shared_bytes": launch["shared_bytes"] * together}
    return SOURCE.launch(
        tiles.name(name, dtype, usual, *vectors),
        **launch,
        scalars=(*view, *_experts(p, weight, result[0]), *more),
    )


def _experts(p: Params, weight: torch.Size, images: int) -> tuple[int, ...]:
    return p.experts, images, p.groups, weight[2], weight[1] // p.groups
