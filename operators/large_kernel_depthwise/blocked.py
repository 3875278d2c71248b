"""Kernels for a stride of one in float32 beyond seven taps per side: when to launch which instance, over what grid."""

from __future__ import annotations

import functools

import torch

from opbench.cuda import Launch, Operations, Source, ceil_div

from . import short
from .reference import Params
from .stacks import SHARED_BYTES, Stack, access_bytes, splits_of, stack_of

SOURCE = Source.beside(__file__, "blocked.cu")
GRADIENT = Source.beside(__file__, "blocked_gradient.cu")

MAX_KERNEL = 65
"""Taps per side whose filter leaves shared memory for an image."""
_MOST_COLUMNS = 64
_SIDE, _WIDE = 4, 8
"""Rows and columns of outputs of a thread."""
_PATCH_ROWS = (3, 4, 5, 7)
"""Rows of the filter that a warp of the gradient may have; it has eight taps of each."""
_SEGMENT = 7
"""Rows of an image that a lane of the gradient walks at a time."""


def covers(p: Params, dtype: torch.dtype) -> bool:
    """Whether these kernels compute the convolution and its gradients."""
    return p.stride == p.dilation == 1 and short.MAX_KERNEL < p.kernel_size <= MAX_KERNEL and dtype == torch.float32


def convolve(p: Params, dtype: torch.dtype, x: torch.Size, *, turned: bool) -> Launch | None:
    """[N, C, H, W] -> [N, C, H, W]; with the filter turned, from the output's gradient to the input's."""
    if not x.numel():
        return None
    batch, channels, height, width = x
    k = p.kernel_size
    columns, column_tiles = _columns(width, _WIDE)
    stride = _multiple(columns + k + _shift(p) - 1, 4)

    def shared_bytes(stack: Stack) -> int:
        return 4 * ((1 + stack.images * stack.held) * stride + k * 8 * ceil_div(k + _shift(p), 8))

    most_rows = 256 * _SIDE // (columns // _WIDE)
    stack = stack_of(batch, channels, height, column_tiles, k, shared_bytes, most_rows=most_rows)
    blocks = stack.images * ceil_div(stack.rows, _SIDE) * (columns // _WIDE)
    threads = min(256, 32 * ceil_div(blocks, 32))
    return SOURCE.launch(
        f"convolve_blocked<{k % 8}>",
        grid=(stack.units * channels,),
        block=(threads,),
        shared_bytes=shared_bytes(stack),
        scalars=(
            *(batch, channels, height, width, k, int(turned), access_bytes(dtype, width)),
            *(stack.images, stack.rows, stack.held, stack.row_tiles, column_tiles, columns, stride),
        ),
        operations=Operations(
            outputs=x.numel(),
            multiply_adds=stack.units // stack.row_tiles * stack.tap_rows * channels * blocks * _SIDE * _WIDE * k,
        ),
    )


def weight_parts(p: Params, dtype: torch.dtype, x: torch.Size, parts: torch.Size) -> Launch | None:
    """[N, C, H, W], [N, C, H, W] -> [splits, C, k * k and the bias]."""
    if not parts.numel():
        return None
    batch, channels, height, width = x
    k, rows, stack = p.kernel_size, _patch_rows(p), _gradient_stack(p, x)
    columns, column_tiles = _columns(width)
    patches, sharing = _warps(p)
    quads = ceil_div(stack.rows, _SEGMENT) * (columns // 4) * stack.images * stack.units
    return GRADIENT.launch(
        f"weight_parts_blocked<{rows}>",
        grid=(_parcels(p) * channels * parts[0],),
        block=(32 * patches * sharing,),
        shared_bytes=_gradient_bytes(p, width, stack),
        scalars=(
            *(batch, channels, height, width, k, parts[2] - k * k, access_bytes(dtype, width)),
            *(stack.images, stack.rows, stack.held, stack.row_tiles, column_tiles, columns, _gradient_stride(p, width)),
            *(stack.units, parts[0], patches),
        ),
        operations=Operations(
            outputs=x.numel(), multiply_adds=quads * 4 * _SEGMENT * rows * 8 * _patches(p) * channels
        ),
    )


def splits(p: Params, x: torch.Size) -> int:
    """Parts of the weight gradient of an input."""
    if not x.numel():
        return 0
    return splits_of(_gradient_stack(p, x), _parcels(p))


def _shift(p: Params) -> int:
    """Columns more than the padding that precede an image, so that its rows are aligned."""
    return -(p.kernel_size // 2) % 4


def _columns(width: int, wide: int = 4) -> tuple[int, int]:
    """Columns of a block's outputs, a multiple of a thread's, and how many such blocks a row takes."""
    tiles = ceil_div(width, _MOST_COLUMNS)
    columns = _multiple(ceil_div(width, tiles), wide)
    return columns, ceil_div(width, columns)


def _multiple(extent: int, step: int) -> int:
    return step * ceil_div(extent, step)


def _patch_rows(p: Params) -> int:
    """Rows of a patch of the filter, so that few are computed in vain; the more, the more multiply-adds per load."""
    return min(_PATCH_ROWS, key=lambda rows: ceil_div(p.kernel_size, rows) * (rows + 0.5))


def _patches(p: Params) -> int:
    return ceil_div(p.kernel_size, _patch_rows(p)) * ceil_div(p.kernel_size + _shift(p), 8)


def _parcels(p: Params) -> int:
    """Blocks that share the patches of a filter."""
    return ceil_div(_patches(p), _most_warps(p))


def _most_warps(p: Params) -> int:
    return 4 if _patch_rows(p) == 7 else 8


def _warps(p: Params) -> tuple[int, int]:
    """Patches of a block, and warps that share the columns of one patch."""
    patches = ceil_div(_patches(p), _parcels(p))
    return patches, _most_warps(p) // patches


@functools.lru_cache(1024)
def _gradient_stack(p: Params, x: torch.Size) -> Stack:
    """The images of a unit: as many as leave few lanes without a walk, in half of shared memory if more than one."""
    batch, channels, height, width = x
    columns, column_tiles = _columns(width)
    lanes = 32 * _warps(p)[1]
    rows = height
    while _gradient_bytes(p, width, stack := Stack(batch, channels, height, column_tiles, p.kernel_size, 1, rows)) > (
        SHARED_BYTES
    ):
        rows = _SEGMENT * ceil_div(rows, 2 * _SEGMENT)
    best = 0.0
    for images in range(1, batch + 1 if rows == height else 2):
        more = Stack(batch, channels, height, column_tiles, p.kernel_size, images, rows)
        if images > 1 and _gradient_bytes(p, width, more) > SHARED_BYTES // 2:
            break
        walks = images * ceil_div(rows, _SEGMENT) * (columns // 4)
        filled = walks / (lanes * ceil_div(walks, lanes))
        if filled > best:
            best, stack = filled, more
    return stack


def _gradient_stride(p: Params, width: int) -> int:
    return _columns(width)[0] + 8 * ceil_div(p.kernel_size + _shift(p), 8)


def _gradient_bytes(p: Params, width: int, stack: Stack) -> int:
    stride = _gradient_stride(p, width)
    held = (1 + stack.images * stack.held) * stride + stack.images * stack.rows * _columns(width)[0]
    patches, sharing = _warps(p)
    return 4 * max(held, patches * sharing * (8 * _patch_rows(p) + 1))
