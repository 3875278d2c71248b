"""Plans of the kernels in `kernel.cu`: convolution as matrix products, each block of threads one tile of the result."""

from __future__ import annotations

import math

import torch

from opbench.api import Unsupported
from opbench.cuda import Launch, Source, ceil_div, kernel, tiles
from opbench.cuda.tiles import Tile
from opbench.cuda.views import backward_view, flipped_view, forward_view

from .reference import Params

SOURCE = Source.beside(__file__)

BLOCKS = 264
"""Blocks that keep a large GPU busy: two for each of an H200's 132 multiprocessors."""
LEAST_SHARE = 256
"""Positions a block of a weight gradient sums at least, lest its partial sums outweigh the work."""


@kernel
def convolve(
    p: Params, dtype: torch.dtype, x: torch.Size, weight: torch.Size, bias: torch.Size | None, y: torch.Size
) -> Launch:
    """[N, C, H, W], [O, C/g, kh, kw], [O] or none -> [N, O, Ho, Wo]."""
    return _forward(p, dtype, weight, y, forward_view(*p.windows, x[2], x[3]))


@kernel
def convolve_back(
    p: Params, dtype: torch.dtype, go: torch.Size, swapped: torch.Size, bias: None, gx: torch.Size
) -> Launch:
    """[N, O, Ho, Wo], [C, O/g, kh, kw], none -> [N, C, H, W], for stride 1."""
    return _forward(p, dtype, swapped, gx, flipped_view(*p.windows, gx[2], gx[3]))


def _forward(p: Params, dtype: torch.dtype, weight: torch.Size, y: torch.Size, view: tuple[int, ...]) -> Launch:
    outputs, channels = weight[0] // p.groups, weight[1]
    positions, depth = y[0] * y[2] * y[3], weight[1:].numel()
    filters = tiles.whole_vector(dtype, depth)
    tile, possible = _tiles(dtype, outputs, positions, p.groups, gathered=filters == 1)
    pixels = _vector(dtype, y[2] * y[3]) if _is_pointwise(p) else _gathering(p, dtype, y[3])
    return SOURCE.launch(
        tiles.name("forward", dtype, *tile, filters, pixels),
        **tiles.blocks(dtype, tile, tiles.count(tile, outputs, positions) * p.groups, depth, y.numel()),
        scalars=(*view, y[0], p.groups, channels, outputs),
        alternatives=tuple(tiles.name("forward", dtype, *other, filters, pixels) for other in possible),
    )


@kernel
def convolve_back_strided(p: Params, dtype: torch.dtype, go: torch.Size, weight: torch.Size, gx: torch.Size) -> Launch:
    """The same for any stride."""
    outputs, channels, residues = weight[0] // p.groups, weight[1], p.stride**2
    positions = gx[0] * ceil_div(gx[2], p.stride) * ceil_div(gx[3], p.stride)
    tile, possible = _tiles(dtype, channels, positions, p.groups * residues, gathered=True)
    gathering = _gathering(p, dtype, gx[3])
    # The blocks of all residues together go through the taps once.
    depth = ceil_div(outputs * weight[2:].numel(), residues)
    every = p.stride // math.gcd(p.stride, p.dilation)
    return SOURCE.launch(
        tiles.name("strided_input_gradient", dtype, *tile, gathering),
        **tiles.blocks(dtype, tile, tiles.count(tile, channels, positions) * p.groups * residues, depth, gx.numel()),
        scalars=(
            *backward_view(*p.windows, gx[2], gx[3]),
            *(gx[0], p.groups, channels, outputs, gx[2], gx[3], p.stride, every),
        ),
        alternatives=tuple(tiles.name("strided_input_gradient", dtype, *other, gathering) for other in possible),
    )


@kernel
def weigh(p: Params, dtype: torch.dtype, go: torch.Size, x: torch.Size, partials: torch.Size) -> Launch:
    """[N, O, Ho, Wo], [N, C, H, W] -> [splits, O, C/g, kh, kw], to be added up."""
    splits, outputs, channels = partials[0], partials[1] // p.groups, partials[2]
    positions, depth = go[0] * go[2] * go[3], partials[2:].numel()
    tile, vector, pixels = _weight_way(p, dtype, partials[1:], go)
    share = _share(positions, splits)
    return SOURCE.launch(
        tiles.name("weight_gradient", dtype, *tile, vector, pixels),
        **tiles.blocks(dtype, tile, tiles.count(tile, outputs, depth) * p.groups * splits, share, partials[1:].numel()),
        scalars=(*forward_view(*p.windows, x[2], x[3]), x[0], p.groups, channels, outputs, share),
    )


def splits(p: Params, dtype: torch.dtype, weight: torch.Size, go: torch.Size) -> int:
    """Into how many partial sums a weight gradient is best split: enough blocks, none with too little to do."""
    outputs, depth = weight[0] // p.groups, weight[1:].numel()
    positions = go[0] * go[2] * go[3]
    blocks = tiles.count(_weight_way(p, dtype, weight, go)[0], outputs, depth) * p.groups
    asked = max(1, min(ceil_div(BLOCKS, blocks), positions // LEAST_SHARE))
    return max(1, ceil_div(positions, max(1, _share(positions, asked))))


def require_sizes(p: Params, x: torch.Size, weight: torch.Size, y: torch.Size) -> None:
    """Raise Unsupported for what is too large to be numbered, or no convolution."""
    vertical, horizontal = p.windows
    if 0 in y[2:]:
        raise Unsupported(f"a {vertical.span}x{horizontal.span} window does not fit the padded input")
    given, wanted = tuple(weight), (weight[0], x[1] // p.groups, vertical.kernel, horizontal.kernel)
    if given != wanted or weight[0] % p.groups or x[1] % p.groups:
        raise Unsupported(f"a weight {list(given)} does not fit {x[1]} channels in {p.groups} groups and {p}")
    tiles.require_short(*x[2:], *y[2:], vertical.span, horizontal.span)
    tiles.require(
        pixels_of_all_images=x[0] * (x[2] + p.stride) * (x[3] + p.stride),
        outputs_of_all_images=y[0] * y[2] * y[3],
        values_of_one_image=max(x[1:].numel(), y[1:].numel()),
        weights=weight.numel(),
    )


def _tiles(
    dtype: torch.dtype, rows: int, columns: int, products: int, *, gathered: bool
) -> tuple[Tile, tuple[Tile, ...]]:
    """A tile for so many matrix products, as large as leaves enough of them, and those that other sizes would have.

    Args:
        dtype: of the operands.
        rows: of each product.
        columns: of each product.
        products: how many.
        gathered: whether filters come one by one.
    """
    # Sums in float32 and the operands in flight leave no registers for 128 x 128; nor do gathered filters of so few
    # threads as have 64 rows.
    high = 128, 64 if dtype == torch.float32 else 128
    wide = 64, 64 if dtype == torch.float32 or gathered else 128
    possible = tuple(tile for tile in dict.fromkeys((high, wide, (64, 64))) if tile == (64, 64) or rows > tile[0] // 2)
    fitting = (tile for tile in possible if tiles.count(tile, rows, columns) * products >= BLOCKS // 2)
    return next(fitting, (64, 64)), possible


def _weight_way(p: Params, dtype: torch.dtype, weight: torch.Size, go: torch.Size) -> tuple[Tile, int, int | str]:
    """A weight gradient's tile, values of the output's gradient in one load, and how pixels are gathered."""
    vector = _vector(dtype, go[2] * go[3])
    pixels = vector if _is_pointwise(p) else _gathering(p, dtype, go[3])
    if pixels == "FEW_TAPS":
        pixels = "ANY_TAPS"
    if weight[0] // p.groups <= 64 or (dtype == torch.float32 and vector == 1):
        return (64, 64), vector, pixels
    # Compiled for one architecture or another, these lack a register or two for a tile of 128 x 128.
    tight = dtype == torch.float32 or (pixels == "ANY_TAPS" and vector in (2, 4))
    return (128, 64 if tight or weight[1:].numel() <= 64 else 128), vector, pixels


def _share(positions: int, splits: int) -> int:
    """Positions of each block, in whole steps of the tensor cores."""
    return ceil_div(ceil_div(positions, splits), 32) * 32


def _is_pointwise(p: Params) -> bool:
    """Whether each output sees just its own pixel."""
    return (p.height, p.width, p.stride) == (1, 1, 1) and p.windows[0].paddings == (0, 0)


def _gathering(p: Params, dtype: torch.dtype, width: int) -> str:
    """How kernels gather windows of images of a width: a name that they know."""
    horizontal = p.windows[1]
    beside = (horizontal.kernel, p.stride, p.dilation, *horizontal.paddings) == (3, 1, 1, 1, 1)
    if beside and dtype != torch.float32 and width % 8 == 0:
        return "BESIDE"
    # A bit for each row and each column of taps.
    return "FEW_TAPS" if max(p.height, p.width) <= 15 else "ANY_TAPS"


def _vector(dtype: torch.dtype, extent: int) -> int:
    """The most values that divide an extent and fit a load of 16 bytes."""
    return math.gcd(16 // dtype.itemsize, max(1, extent))
