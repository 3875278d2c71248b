"""Tensor-core kernels for a stride of one in 16 bits: when to launch which instance, over what grid."""

from __future__ import annotations

import functools

import torch

from opbench.cuda import TYPE_NAMES, Launch, Operations, Source, ceil_div

from .reference import Params
from .stacks import IDLE_WARPS, SHARED_BYTES, Stack, access_bytes, busiest, splits_of, stack_of

SOURCE = Source.beside(__file__, "banded.cu")
GRADIENT = Source.beside(__file__, "banded_gradient.cu")

MAX_KERNEL = 65
"""Taps per side that nine bands of eight columns span."""
_TILES = (1, 2, 4, 7)
"""Columns of outputs that a block may have, in eights, where they are an image's whole width."""
_WIDE_TILES = (4, 7)
"""Those where they are not."""
_MOST_ROWS = 128
"""Rows of a block's stack, 16 of which a warp has."""
_MOST_TURNS = 8
_WAITING_WARPS = 8
"""Warps that would fit beside the others where values are copied one by one, through registers."""
_WARPS = 28
"""Warps of the convolution that a multiprocessor holds."""


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
    k, (spans, tiles) = p.kernel_size, _columns(p, width)
    stack, turns = _in_turns(p, x)
    splits = ceil_div(stack.units, turns)
    whole = stack.column_tiles == 1
    return SOURCE.launch(
        f"convolve_banded<{TYPE_NAMES[dtype]}, {spans}, {tiles}, {'true' if whole else 'false'}>",
        grid=(splits * channels,),
        block=(32 * stack.strips,),
        shared_bytes=_shared_bytes(p, width, stack, turns),
        scalars=(
            *(batch, channels, height, width, k, int(turned), access_bytes(dtype, width)),
            *(stack.images, stack.rows, _held(p, width, stack), stack.row_tiles, stack.column_tiles),
            *(stack.units, splits),
        ),
        operations=Operations(
            outputs=x.numel(),
            products=stack.groups
            * channels
            * stack.column_tiles
            * _products(spans, tiles, whole=whole)
            * (stack.tap_rows + stack.row_tiles * (tiles == 1))
            // (1 + (tiles == 1))
            * stack.strips
            * _stacks(width),
        ),
    )


@functools.lru_cache(1024)
def _in_turns(p: Params, x: torch.Size) -> tuple[Stack, int]:
    """What a block holds of every `_stacks`-th image at a time, and how many of those it takes one after the other."""
    channels, height, width = x[1:]
    batch, column_tiles = ceil_div(x[0], _stacks(width)), ceil_div(width, 8 * _columns(p, width)[1])
    stacks = [
        stack
        for images in range(1, min(batch, _MOST_ROWS // height) + 1)
        if column_tiles == 1
        and _shared_bytes(p, width, stack := Stack(batch, *x[1:3], 1, p.kernel_size, images, height), 2) <= SHARED_BYTES
    ]
    if not stacks:
        # Units of different places in an image have their zeros in different places.
        shared_bytes = functools.partial(_shared_bytes, p, width, turns=1)
        return stack_of(batch, channels, height, column_tiles, p.kernel_size, shared_bytes), 1

    spans, tiles = _columns(p, width)
    together = 2 if tiles == 1 else 1
    # Instructions of a warp, read off the machine code: of a unit, and before the first.
    row_of_taps = 10 + _stacks(width) * _products(spans, tiles, whole=True)
    unit = 90 + 45 * _stacks(width) + ceil_div(p.kernel_size, together) * row_of_taps
    filter_values = p.kernel_size * 2 * (8 * spans + 8)

    def cost(stack: Stack, turns: int) -> tuple[float, int]:
        blocks, shared = channels * ceil_div(stack.units, turns), _shared_bytes(p, width, stack, turns)
        setup = (280 + 24 * ceil_div(filter_values, 32 * stack.strips)) / unit
        idle = _WAITING_WARPS if access_bytes(torch.float16, width) == 2 else IDLE_WARPS
        return (
            busiest(blocks, stack.strips, turns, setup, most_warps=_WARPS, shared_bytes=shared, idle_warps=idle),
            blocks,
        )

    every = [(stack, turns) for stack in stacks for turns in range(1, min(stack.units, _MOST_TURNS) + 1)]
    return min(every, key=lambda choice: cost(*choice))


def _columns(p: Params, width: int) -> tuple[int, int]:
    """Bands and tiles of a block: of the tiles that have the whole width the fewest, or those that cost least."""
    spans = bands(p)
    for tiles in _TILES:
        if width <= 8 * tiles:
            return min(spans, 2 * tiles - 1), tiles
    # A row of taps costs products, loads of what the tiles see together, and some steps of its own.
    tiles = min(_WIDE_TILES, key=lambda tiles: ceil_div(width, 8 * tiles) * (tiles * spans + tiles + spans + 6))
    return spans, tiles


def _stacks(width: int) -> int:
    """Stacks of images of which a warp has 16 rows each: with few columns more of them."""
    return 4 if width <= 8 else 2 if width <= 16 else 1


def _held(p: Params, width: int, stack: Stack) -> int:
    """Rows of a buffer: rows of zeros around images; of a single step of columns, which takes rows by two, one more."""
    padding = p.kernel_size // 2
    pitch = stack.rows + (2 if stack.row_tiles > 1 else 1) * padding + (width <= 8)
    return padding + _stacks(width) * stack.images * pitch


def _shared_bytes(p: Params, width: int, stack: Stack, turns: int) -> int:
    spans, tiles = _columns(p, width)
    steps = tiles if stack.column_tiles == 1 else tiles + spans - 1
    planes = min(2, turns) * _held(p, width, stack) * 8 * (steps | 1)
    filters = (p.kernel_size + (width <= 8)) * 2 * (8 * spans + 8)
    return 2 * (planes + filters + stack.strips * _stacks(width) * 16 * 8 * (tiles | 1))


def _products(spans: int, tiles: int, *, whole: bool) -> int:
    """Tensor-core instructions of a warp for a row of taps, two steps of columns in one where they are a pair."""
    steps, lead = (tiles, spans // 2) if whole else (tiles + spans - 1, 0)
    pairs = {(tile, step // 2) for tile in range(tiles) for step in range(steps) if 0 <= step + lead - tile < spans}
    return len(pairs)


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
