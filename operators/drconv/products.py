"""Plans of the kernels in `kernel.cu`: DRConv as matrix products, each over pixels of one region."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from opbench.cuda import TYPE_NAMES, Launch, Source, ceil_div, kernel, tiles
from opbench.cuda.views import divisor, forward_view

from . import narrow
from .reference import Params

SOURCE = Source.beside(__file__)

COLUMNS = (16, 32, 64)
"""Pixels of a tile: a region has few of a deep layer's map, and a wider tile would mostly be padding."""

MOST_SEEN = 8 << 20
"""Gradients of what outputs see that are written out at a time: 32 MiB, which a large GPU's cache holds."""

SMALL = 15
"""Taps per side up to which windows are gathered the quicker way."""


@kernel
def filtered(
    p: Params, dtype: torch.dtype, x: torch.Size, filters: torch.Size, places: torch.Size, y: torch.Size
) -> Launch:
    """[N, C, H, W], [N, m, O, C/g, k, k], regions -> [N, O, Ho, Wo]."""
    outputs, depth = y[1] // p.groups, filters[3:].numel()
    return _over_shares(
        p,
        "forward",
        dtype,
        (tiles.whole_vector(dtype, depth), _positions(p, 1)),
        extents=(outputs, depth),
        seen=y,
        scalars=_geometry(p, forward_view(p.window, p.window, *x[2:]), x, y),
        result=y,
    )


def filtered_back(p: Params, gradient: Tensor, filters: Tensor, places: Tensor, grad_x: Tensor) -> None:
    """[N, O, Ho, Wo], [N, m, O, C/g, k, k], regions -> [N, C, H, W]."""
    if is_pointwise(p):
        taps_back(p, gradient, filters, places, grad_x)
        return
    # What each output sees through each tap has its gradient written out, of some images at a time, in float32.
    seen = (grad_x.shape[1], p.kernel_size, p.kernel_size, *gradient.shape[2:])
    images = max(1, min(len(grad_x), MOST_SEEN // math.prod(seen)))
    room = torch.empty(images, *seen, dtype=torch.float32, device=grad_x.device)
    for first in range(0, len(grad_x), images):
        some = slice(first, first + images)
        taps = room[: len(grad_x[some])]
        taps_back(p, gradient[some], filters[some], places[some], taps)
        narrow.add_taps(p, grad_x[some], taps)


@kernel
def taps_back(
    p: Params, dtype: torch.dtype, go: torch.Size, filters: torch.Size, places: torch.Size, taps: torch.Size
) -> Launch:
    """[N, O, Ho, Wo], [N, m, O, C/g, k, k], regions -> [N, C, k, k, Ho, Wo], or [N, C, H, W] where these are one."""
    outputs, rows, pixels = go[1] // p.groups, filters[3:].numel(), go[2:].numel()
    result = TYPE_NAMES[dtype if is_pointwise(p) else torch.float32]
    view = (*go[2:], 1, 0, 0, 1, 1, *divisor(go[3]), *divisor(pixels), *divisor(1), *divisor(1))
    return _over_shares(
        p,
        "tap_gradients",
        dtype,
        (tiles.whole_vector(dtype, rows),),
        extents=(rows, outputs),
        seen=go,
        scalars=(*view, p.groups, rows, outputs, p.regions),
        result=taps,
        stored=(result,),
    )


@kernel
def filters_back(
    p: Params, dtype: torch.dtype, go: torch.Size, x: torch.Size, places: torch.Size, result: torch.Size
) -> Launch:
    """[N, O, Ho, Wo], [N, C, H, W], regions -> [N, m, O, C/g, k, k]."""
    outputs, depth = go[1] // p.groups, result[3:].numel()
    high = min(outputs, depth) > 64
    # Sums in float32, or two operands of single pixels on their way, leave no registers for 128 x 128.
    tile = 128 if high else 64, 128 if high and dtype != torch.float32 and not is_pointwise(p) else 64
    number = tiles.count(tile, outputs, depth) * p.groups * go[0] * p.regions
    return SOURCE.launch(
        tiles.name("filter_gradient", dtype, *tile, is_pointwise(p)),
        **tiles.blocks(dtype, tile, number, ceil_div(go[2:].numel(), p.regions), result.numel()),
        scalars=_geometry(p, forward_view(p.window, p.window, *x[2:]), x, go),
    )


@kernel
def respond(
    p: Params, dtype: torch.dtype, go: torch.Size, x: torch.Size, filters: torch.Size, shares: torch.Size
) -> Launch:
    """[N, O, Ho, Wo], [N, C, H, W], [N, m, O, C/g, k, k] -> [N, m, Ho, Wo]: the shares of the guide's gradient."""
    pixels, depth, outputs = go[2:].numel(), filters[3:].numel(), go[1] // p.groups
    vector = tiles.whole_vector(dtype, depth)
    high = _rows(outputs, vector)
    tile = high, 128 if high == 128 and pixels > 64 else 64
    positions = _positions(p, tiles.four_or_one(pixels))
    rows = ceil_div(outputs, tile[0]) * p.groups
    return SOURCE.launch(
        tiles.name("responses", dtype, *tile, vector, positions),
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


def _over_shares(
    p: Params,
    name: str,
    dtype: torch.dtype,
    vectors: tuple[int, ...],
    *,
    extents: tuple[int, int],
    seen: torch.Size,
    scalars: tuple[int, ...],
    result: torch.Size,
    stored: tuple[str, ...] = (),
) -> Launch:
    """A launch whose tiles have so many rows and terms, and as columns pixels of one region of what is seen."""
    (rows, depth), pixels = extents, seen[2:].numel()
    high = _rows(rows, vectors[0])
    columns = _columns(p, pixels) if high == 128 else 64
    tile, shares = (high, columns), _shares(p, pixels, columns)
    launch = tiles.blocks(dtype, tile, ceil_div(rows, tile[0]) * shares * p.groups * seen[0], depth, result.numel())
    launch["shared_bytes"] += 1024 if columns < 64 else 0
    return SOURCE.launch(
        tiles.name(name, dtype, *stored, *tile, *vectors),
        **launch,
        scalars=(*scalars, shares),
        alternatives=tuple(
            tiles.name(name, dtype, *stored, high, other, *vectors) for other in (COLUMNS if high == 128 else (64,))
        ),
    )


def _rows(extent: int, vector: int) -> int:
    """Rows of a tile, whose filters come in vectors of so many: the more, the fewer times pixels are gathered."""
    return 128 if extent > 64 and vector > 1 else 64


def _columns(p: Params, pixels: int) -> int:
    """Columns of a tile, for regions of about equal size: most of them should fill one, or several."""
    share = pixels / p.regions
    return 16 if share <= 12 else 32 if share <= 40 else 64


def _shares(p: Params, pixels: int, columns: int) -> int:
    """Shares of a tile's columns that the regions of an image are cut into, at most."""
    return min(pixels, (pixels + p.regions * (columns - 1)) // columns)


def _geometry(p: Params, view: tuple[int, ...], x: torch.Size, y: torch.Size) -> tuple[int, ...]:
    return *view, p.groups, x[1] // p.groups, y[1] // p.groups, p.regions
