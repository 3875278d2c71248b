"""Tensor-core kernels for a stride of one in 16 bits: when to launch which instance, over what grid."""

from __future__ import annotations

import functools

import torch

from opbench.cuda import TYPE_NAMES, Launch, Operations, Source, ceil_div

from .reference import Params
from .stacks import Stack, access_bytes, splits_of, stack_of

SOURCE = Source.beside(__file__, "banded.cu")
GRADIENT = Source.beside(__file__, "banded_gradient.cu")

MAX_KERNEL = 65
"""Taps per side that nine bands of eight columns span."""
_TILES = (1, 2, 4, 7)
"""Columns of outputs that a block may have, in eights."""


def covers(p: Params, dtype: torch.dtype) -> bool:
    """Whether these kernels compute the convolution and its gradients."""
    plain = p.stride == p.dilation == 1 and 1 < p.kernel_size <= MAX_KERNEL
    return plain and dtype in (torch.float16, torch.bfloat16)


def bands(p: Params) -> int:
    """Steps of eight columns that eight columns of outputs see."""
    return 2 * ceil_div(p.kernel_size // 2, 8) + 1


def convolve(p: Params, dtype: torch.dtype, x: torch.Size, *, turned: bool) -> Launch | None:
    """[N, C, H, W] -> [N, C, H, W]; with the filter turned, from the output's gradient to the input's."""
    if not x.numel():
        return None
    batch, channels, height, width = x
    k, spans = p.kernel_size, bands(p)
    # A row of taps costs products, loads of what the tiles see together, and some steps of its own.
    tiles = min(_TILES, key=lambda tiles: ceil_div(width, 8 * tiles) * (tiles * spans + tiles + spans + 6))
    column_tiles = ceil_div(width, 8 * tiles)
    stride, output_stride = 8 * ((tiles + spans - 1) | 1), 8 * (tiles | 1)

    def shared_bytes(stack: Stack) -> int:
        planes = (1 + stack.images * stack.held) * stride
        return 2 * (planes + k * 2 * (8 * spans + 8) + stack.strips * 16 * output_stride)

    stack = stack_of(batch, channels, height, column_tiles, k, shared_bytes)
    return SOURCE.launch(
        f"convolve_banded<{TYPE_NAMES[dtype]}, {spans}, {tiles}>",
        grid=(stack.units * channels,),
        block=(32 * stack.strips,),
        shared_bytes=shared_bytes(stack),
        scalars=(
            *(batch, channels, height, width, k, int(turned), access_bytes(dtype, width)),
            *(stack.images, stack.rows, stack.held, stack.row_tiles, column_tiles),
        ),
        operations=Operations(
            outputs=x.numel(),
            products=stack.groups * channels * column_tiles * stack.tap_rows * stack.strips * tiles * spans,
        ),
    )


def weight_parts(p: Params, dtype: torch.dtype, x: torch.Size, parts: torch.Size) -> Launch | None:
    """[N, C, H, W], [N, C, H, W] -> [splits, C, k * k and the bias]."""
    if not parts.numel():
        return None
    batch, channels, height, width = x
    k, spans, tiles, warps = p.kernel_size, bands(p), _gradient_tiles(width), _warps(p)
    stack = _gradient_stack(p, x)
    return GRADIENT.launch(
        f"weight_parts_banded<{TYPE_NAMES[dtype]}, {spans}, {tiles}>",
        grid=(ceil_div(k, warps) * channels * parts[0],),
        block=(32 * warps,),
        shared_bytes=_gradient_bytes(p, tiles, stack),
        scalars=(
            *(batch, channels, height, width, k, parts[2] - k * k, access_bytes(dtype, width)),
            *(stack.images, stack.rows, stack.held, stack.row_tiles, stack.column_tiles, stack.units, parts[0]),
        ),
        operations=Operations(
            outputs=x.numel(),
            products=stack.groups * channels * stack.column_tiles * stack.tap_rows * stack.strips * tiles * (spans + 1),
        ),
    )


def splits(p: Params, x: torch.Size) -> int:
    """Parts of the weight gradient of an input."""
    if not x.numel():
        return 0
    return splits_of(_gradient_stack(p, x), ceil_div(p.kernel_size, _warps(p)))


def _warps(p: Params) -> int:
    """Warps of a block, one row of the filter each; a large filter is shared out evenly among several blocks."""
    most = 13 if bands(p) == 3 else 11
    return ceil_div(p.kernel_size, ceil_div(p.kernel_size, most))


def _gradient_tiles(width: int) -> int:
    return next((tiles for tiles in (1, 2) if width <= 16 * tiles), 4)


@functools.lru_cache(1024)
def _gradient_stack(p: Params, x: torch.Size) -> Stack:
    tiles = _gradient_tiles(x[3])
    shared_bytes = functools.partial(_gradient_bytes, p, tiles)
    return stack_of(x[0], x[1], x[2], ceil_div(x[3], 16 * tiles), p.kernel_size, shared_bytes)


def _gradient_bytes(p: Params, tiles: int, stack: Stack) -> int:
    seen = 2 * (tiles - 1) + bands(p) + 1
    planes = (1 + stack.images * stack.held) * 8 * (seen | 1)
    gradient = stack.strips * 16 * 8 * (2 * tiles | 1)
    scratch = _warps(p) * 8 * (8 * (bands(p) + 1) + 1)
    return max(2 * (planes + gradient) + 8 * stack.strips * 16, 4 * scratch)
