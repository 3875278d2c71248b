"""How the planes of a channel are shared out among blocks: images stacked one below the other, or rows of one image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from opbench.cuda import ceil_div

MULTIPROCESSORS = 132
"""Multiprocessors of a large device, ..."""
DEVICE_BYTES = 227 << 10
"""... and the shared memory of each."""
IDLE_WARPS = 2
"""Warps whose work would fit beside that of the others were nothing waited for, where copies are asynchronous."""
BLOCKS = 132 * 4
"""Blocks that keep a large device busy; with fewer, smaller ones are better."""
LEAST_ROWS = 32
"""Stacked rows that are not cut further: images of 7 or 14 rows would waste parts of strips."""
SHARED_BYTES = 64 << 10
"""Shared memory that a block has on every device."""


@dataclass(frozen=True)
class Stack:
    """What one block holds: `rows` rows of one channel in each of `images` images, and the rows that their taps see."""

    batch: int
    channels: int
    height: int
    column_tiles: int
    kernel: int
    images: int
    rows: int

    @property
    def held(self) -> int:
        """Rows of an image that the taps of a block's rows see."""
        return min(self.height, self.rows + self.kernel - 1)

    @property
    def row_tiles(self) -> int:
        """Blocks below each other in an image."""
        return ceil_div(self.height, self.rows)

    @property
    def strips(self) -> int:
        """Groups of 16 stacked rows: what a tensor-core product takes at a time."""
        return ceil_div(self.images * self.rows, 16)

    @property
    def groups(self) -> int:
        """Blocks that follow each other in the batch."""
        return ceil_div(self.batch, self.images)

    @property
    def units(self) -> int:
        """Blocks of one channel."""
        return self.groups * self.row_tiles * self.column_tiles

    @property
    def tap_rows(self) -> int:
        """Rows of taps that see the image, summed over the blocks below each other."""
        padding = self.kernel // 2
        tops = range(0, self.height, self.rows)
        return sum(
            min(self.kernel, padding + self.height - top)
            - max(0, padding - (top + min(self.rows, self.height - top) - 1))
            for top in tops
        )


def stack_of(
    batch: int,
    channels: int,
    height: int,
    column_tiles: int,
    kernel: int,
    shared_bytes: Callable[[Stack], int],
    *,
    most_rows: int = 128,
) -> Stack:
    """Choose the largest stack that leaves enough blocks, fits shared memory and fills its last strip well."""
    images = max(
        range(1, max(1, min(batch, most_rows // height)) + 1), key=lambda count: (_filled(count * height), count)
    )
    tiles = ceil_div(height, most_rows)
    rows = height if tiles == 1 else 16 * ceil_div(ceil_div(height, tiles), 16)
    stack = Stack(batch, channels, height, column_tiles, kernel, images, rows)
    while stack.units * channels < BLOCKS or shared_bytes(stack) > SHARED_BYTES:
        if stack.images > 1 and stack.images * stack.rows > LEAST_ROWS:
            stack = replace(stack, images=ceil_div(stack.images, 2))
        elif stack.images == 1 and stack.rows > 16:
            stack = replace(stack, rows=16 * ceil_div(stack.rows, 32))
        else:
            break
    return stack


def busiest(
    blocks: int,
    warps: int,
    turns: int,
    setup: float,
    *,
    most_warps: int,
    shared_bytes: int,
    idle_warps: int = IDLE_WARPS,
) -> float:
    """Work of the busiest multiprocessor of a large device, in that of a warp on one unit.

    Each of the blocks takes `turns` units with so many warps; beginning and ending it is `setup` of one unit's work. A
    multiprocessor holds `most_warps` warps of the kernel, and would work on `idle_warps` more were nothing waited for.
    """
    each = ceil_div(blocks, MULTIPROCESSORS)
    held = warps * max(1, min(most_warps // warps, DEVICE_BYTES // (shared_bytes + 1024), each))
    return each * warps * (turns + setup) * (1 + idle_warps / held)


def splits_of(stack: Stack, parcels: int) -> int:
    """Parts of a weight gradient whose filters take `parcels` blocks each: enough of them, each of as many units."""
    turns = ceil_div(stack.units, ceil_div(BLOCKS, stack.channels * parcels))
    return ceil_div(stack.units, turns)


def access_bytes(dtype: torch.dtype, width: int) -> int:
    """Widest access, up to 16 bytes, that every row of a plane begins at a multiple of."""
    row = width * dtype.itemsize
    return min(16, row & -row)


def _filled(rows: int) -> float:
    return rows / (16 * ceil_div(rows, 16))
