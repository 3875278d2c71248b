"""Plans of the kernels in `kernel.cu`: DRConv as matrix products, each over pixels of one region."""

from __future__ import annotations

import math

import torch

from opbench.cuda import Launch, Source, ceil_div, kernel, tiles
from opbench.cuda.views import backward_view, forward_view

from .reference import Params

SOURCE = Source.beside(__file__)

TILE = (64, 64)
"""A region has few pixels of a deep layer's map: a wider tile would mostly be padding."""

SMALL = 15
"""Taps per side up to which windows are gathered the quicker way."""


@kernel
def filtered(
    p: Params, dtype: torch.dtype, x: torch.Size, filters: torch.Size, places: torch.Size, y: torch.Size
) -> Launch:
    """[N, C, H, W], [N, m, O, C/g, k, k], regions -> [N, O, Ho, Wo]."""
    outputs, depth, shares = y[1] // p.groups, filters[3:].numel(), _shares(p, y)
    return SOURCE.launch(
        tiles.name("forward", dtype, *TILE, tiles.whole_vector(dtype, depth), _positions(p, 1)),
        **tiles.blocks(dtype, TILE, ceil_div(outputs, TILE[0]) * shares * p.groups * y[0], depth, y.numel()),
        scalars=(*_geometry(p, forward_view(p.window, p.window, *x[2:]), x, y), shares),
    )


@kernel
def filtered_back(
    p: Params, dtype: torch.dtype, go: torch.Size, filters: torch.Size, places: torch.Size, gx: torch.Size
) -> Launch:
    """[N, O, Ho, Wo], [N, m, O, C/g, k, k], regions -> [N, C, H, W]."""
    outputs, channels = go[1] // p.groups, gx[1] // p.groups
    rows = ceil_div(channels, TILE[0]) * p.groups * gx[0]
    if is_pointwise(p):
        shares = _shares(p, go)
        return SOURCE.launch(
            tiles.name("pointwise_input_gradient", dtype, *TILE, tiles.whole_vector(dtype, channels)),
            **tiles.blocks(dtype, TILE, rows * shares, outputs, gx.numel()),
            scalars=(*_geometry(p, forward_view(p.window, p.window, *gx[2:]), gx, go), shares),
        )
    residues = p.stride**2
    positions = ceil_div(gx[2], p.stride) * ceil_div(gx[3], p.stride)
    # The blocks of all residues together go through the taps once, here as if each tile saw one region.
    depth = ceil_div(outputs * p.kernel_size**2, residues)
    return SOURCE.launch(
        tiles.name("input_gradient", dtype, *TILE),
        **tiles.blocks(dtype, TILE, rows * ceil_div(positions, TILE[1]) * residues, depth, gx.numel()),
        scalars=(
            *_geometry(p, backward_view(p.window, p.window, *gx[2:]), gx, go),
            *(gx[2], gx[3], p.stride, p.stride // math.gcd(p.stride, p.dilation), gx[0]),
        ),
    )


@kernel
def filters_back(
    p: Params, dtype: torch.dtype, go: torch.Size, x: torch.Size, places: torch.Size, result: torch.Size
) -> Launch:
    """[N, O, Ho, Wo], [N, C, H, W], regions -> [N, m, O, C/g, k, k]."""
    number = tiles.count(TILE, go[1] // p.groups, result[3:].numel()) * p.groups * go[0] * p.regions
    return SOURCE.launch(
        tiles.name("filter_gradient", dtype, *TILE, is_pointwise(p)),
        **tiles.blocks(dtype, TILE, number, ceil_div(go[2:].numel(), p.regions), result.numel()),
        scalars=_geometry(p, forward_view(p.window, p.window, *x[2:]), x, go),
    )


@kernel
def respond(
    p: Params, dtype: torch.dtype, go: torch.Size, x: torch.Size, filters: torch.Size, shares: torch.Size
) -> Launch:
    """[N, O, Ho, Wo], [N, C, H, W], [N, m, O, C/g, k, k] -> [N, m, Ho, Wo]: the shares of the guide's gradient."""
    pixels, depth = go[2:].numel(), filters[3:].numel()
    tile = 64, 128 if pixels > 64 else 64
    positions = _positions(p, tiles.four_or_one(pixels))
    rows = ceil_div(go[1] // p.groups, tile[0]) * p.groups
    return SOURCE.launch(
        tiles.name("responses", dtype, *tile, tiles.whole_vector(dtype, depth), positions),
        **tiles.blocks(dtype, tile, ceil_div(pixels, tile[1]) * p.regions * go[0], depth * rows, shares.numel()),
        scalars=_geometry(p, forward_view(p.window, p.window, *x[2:]), x, go),
    )


def is_pointwise(p: Params) -> bool:
    """Whether each output sees just its own pixel."""
    return (p.kernel_size, p.stride, p.window.padding) == (1, 1, 0)


def _positions(p: Params, pointwise: int) -> int:
    """Neighbouring pixels of one load where each output sees just its own; else how windows are gathered."""
    if is_pointwise(p):
        return pointwise
    return 0 if p.kernel_size <= SMALL else -1


def _shares(p: Params, y: torch.Size) -> int:
    """Shares of a tile's columns that the regions of an image are cut into, at most."""
    pixels = y[2] * y[3]
    return min(pixels, (pixels + p.regions * (TILE[1] - 1)) // TILE[1])


def _geometry(p: Params, view: tuple[int, ...], x: torch.Size, y: torch.Size) -> tuple[int, ...]:
    return *view, p.groups, x[1] // p.groups, y[1] // p.groups, p.regions
