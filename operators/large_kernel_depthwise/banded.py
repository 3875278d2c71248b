"""Tensor-core kernels for a stride of one in 16 bits: when to launch which instance, over what grid."""

from __future__ import annotations

import functools

import torch

from opbench.cuda import TYPE_NAMES, Launch, Operations, Source, ceil_div

from .reference import Params
from .stacks import IDLE_WARPS, SHARED_BYTES, Stack, access_bytes, busiest, stack_of

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
_MOST_GRADIENT_ROWS = 256
_MOST_TURNS = 8
_WAITING_WARPS = 8
"""Warps that would fit beside the others where values are copied one by one, through registers."""
_MOST_GRADIENT_WARPS = 8
"""Warps of a block of the weight gradient."""
_WARPS, _GRADIENT_WARPS = 28, 16
"""Warps of the convolution and of the weight gradient that a multiprocessor holds."""


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
        and _shared_bytes(p, width, stack := Stack(batch, channels, height, 1, p.kernel_size, images, height), 2)
        <= SHARED_BYTES
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
    return _padded(p, stack, _stacks(width) * stack.images, more=int(width <= 8))


def _padded(p: Params, stack: Stack, images: int, *, more: int = 0) -> int:
    """Rows of so many images with what a filter reaches beyond them, and `more` after each.

    Images share the zeros between them; tiles have pixels above and below.
    """
    padding = p.kernel_size // 2
    if stack.row_tiles > 1:
        return images * (stack.rows + 2 * padding + more)
    return padding + images * (stack.rows + padding + more)


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
    k, (spans, tiles), warps = p.kernel_size, _gradient_columns(p, width), _warps(p, width)
    stack, _ = _gradient_in_turns(p, x)
    whole = _has_all_columns(width)
    return GRADIENT.launch(
        f"weight_parts_banded<{TYPE_NAMES[dtype]}, {spans}, {tiles}, {'true' if whole else 'false'}>",
        grid=(_parcels(p, width) * channels * parts[0],),
        block=(32 * warps,),
        shared_bytes=_gradient_bytes(p, width, stack, 2 if parts[0] < stack.units else 1),
        scalars=(
            *(batch, channels, height, width, k, parts[2] - k * k, access_bytes(dtype, width)),
            *(stack.images, stack.rows, _gradient_held(p, width, stack), stack.row_tiles, stack.column_tiles),
            *(stack.units, parts[0]),
        ),
        operations=Operations(
            outputs=x.numel(),
            products=stack.units
            * channels
            * _parcels(p, width)
            * warps
            * _filter_rows(p, width)
            * stack.strips
            * _gradient_products(spans, tiles, whole=whole),
        ),
    )


def splits(p: Params, x: torch.Size) -> int:
    """Parts of the weight gradient of an input."""
    if not x.numel():
        return 0
    stack, turns = _gradient_in_turns(p, x)
    return ceil_div(stack.units, turns)


def _gradient_columns(p: Params, width: int) -> tuple[int, int]:
    """Bands, and tiles of 16 columns, of which the last of four is half a one where they are the whole width."""
    tiles = next((tiles for tiles in (1, 2) if width <= 16 * tiles), 4)
    return (min(bands(p), 4 * tiles - 1) if _has_all_columns(width) else bands(p)), tiles


def _has_all_columns(width: int) -> bool:
    """Whether a block of the weight gradient has whole rows."""
    return width <= 56


def _filter_rows(p: Params, width: int) -> int:
    """Rows of the filter that a warp has."""
    spans, tiles = _gradient_columns(p, width)
    return 4 if tiles == 1 else 2 if (spans, tiles) == (3, 2) else 1


def _parcels(p: Params, width: int) -> int:
    """Blocks that share the rows of a large filter evenly."""
    rows = _filter_rows(p, width)
    least = ceil_div(p.kernel_size, rows * _MOST_GRADIENT_WARPS)
    return min((least, least + 1), key=lambda parcels: parcels * ceil_div(p.kernel_size, rows * parcels))


def _warps(p: Params, width: int) -> int:
    """Warps of a block."""
    return ceil_div(p.kernel_size, _parcels(p, width) * _filter_rows(p, width))


@functools.lru_cache(1024)
def _gradient_in_turns(p: Params, x: torch.Size) -> tuple[Stack, int]:
    """What a block holds of an input at a time, and how many of those it takes one after the other."""
    batch, channels, height, width = x
    (spans, tiles), warps = _gradient_columns(p, width), _warps(p, width)
    column_tiles, parcels = (1 if _has_all_columns(width) else ceil_div(width, 64)), _parcels(p, width)
    stacks = [
        stack
        for images in range(1, min(batch, _MOST_GRADIENT_ROWS // height) + 1)
        if _gradient_bytes(
            p, width, stack := Stack(batch, channels, height, column_tiles, p.kernel_size, images, height), 2
        )
        <= SHARED_BYTES
        and (images == 1 or _has_all_columns(width))
    ]
    if not stacks:
        shared_bytes = functools.partial(_gradient_bytes, p, width, buffers=2)
        stacks = [stack_of(batch, channels, height, column_tiles, p.kernel_size, shared_bytes)]

    def cost(stack: Stack, turns: int) -> float:
        # Instructions of a warp, read off the machine code: of a strip, of a unit, and before and after the units.
        strip = (
            6
            + tiles
            + _filter_rows(p, width) * (tiles + _gradient_products(spans, tiles, whole=_has_all_columns(width)))
        )
        passes = ceil_div(stack.images, max(1, 16 * warps // stack.rows)) * ceil_div(stack.rows, 16 * warps)
        unit = 120 + 45 * passes + stack.strips * strip
        blocks = parcels * channels * ceil_div(stack.units, turns)
        shared = _gradient_bytes(p, width, stack, min(2, turns))
        idle = _WAITING_WARPS if access_bytes(torch.float16, width) == 2 else IDLE_WARPS
        return unit * busiest(
            blocks, warps, turns, 700 / unit, most_warps=_GRADIENT_WARPS, shared_bytes=shared, idle_warps=idle
        )

    every = [(stack, turns) for stack in stacks for turns in range(1, min(stack.units, _MOST_TURNS) + 1)]
    return min(every, key=lambda choice: cost(*choice))


def _gradient_held(p: Params, width: int, stack: Stack) -> int:
    """Rows of a buffer of the image; the last warp may have rows that the filter has not."""
    return _padded(p, stack, stack.images) + _filter_rows(p, width) - 1


def _gradient_bytes(p: Params, width: int, stack: Stack, buffers: int) -> int:
    (spans, tiles), warps = _gradient_columns(p, width), _warps(p, width)
    columns = 7 if tiles == 4 and _has_all_columns(width) else 2 * tiles
    seen = columns if _has_all_columns(width) else 2 * (tiles - 1) + spans + 1
    planes = _gradient_held(p, width, stack) * 8 * (seen | 1)
    gradient = stack.strips * 16 * 8 * (columns | 1)
    used = 2 if width <= 16 else spans + 1
    scratch = warps * _filter_rows(p, width) * 16 * (8 * used + 1)
    return max(4 * stack.strips * 16 + 2 * buffers * (planes + gradient), 4 * scratch)


def _gradient_products(spans: int, tiles: int, *, whole: bool) -> int:
    """Tensor-core instructions of a warp for 16 rows and a row of taps."""
    lead, seen = (spans // 2, min(2 * tiles, 7)) if whole else (0, 2 * (tiles - 1) + spans + 1)
    return sum(0 <= 2 * tile + step - lead < seen for tile in range(tiles) for step in range(spans + 1))
