"""Kernels for a stride of one in float32 and at most seven taps per side: when to launch which, over what grid."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from opbench.cuda import Launch, Operations, Source, ceil_div

from .reference import Params
from .stacks import SHARED_BYTES, access_bytes, busiest

SOURCE = Source.beside(__file__, "short.cu")
GRADIENT = Source.beside(__file__, "short_gradient.cu")

MAX_KERNEL = 7
"""Taps per side whose filter a thread keeps in registers."""
_STRIP = 7
"""Rows of outputs of a thread; it has four columns."""
_MOST_COLUMNS = 64
_MOST_THREADS = 256
_MOST_TURNS = 8
"""Units that a block takes one after the other; with more, beginning it would cost no less to speak of."""
_WARPS = 16
"""Warps of these kernels that a multiprocessor holds."""
_SETUP = 0.25
"""What beginning a block costs, in units of one unit's work, ..."""
_SUMMING = 0.25
"""... and what adding up the sums of its threads does."""


@dataclass(frozen=True)
class Units:
    """How a channel is cut: units of `rows` x `columns` outputs of `images` images, `turns` of them to a block."""

    kernel: int
    batch: int
    channels: int
    height: int
    width: int
    images: int
    rows: int
    columns: int
    turns: int

    @property
    def row_tiles(self) -> int:
        """Units below each other in an image."""
        return ceil_div(self.height, self.rows)

    @property
    def column_tiles(self) -> int:
        """Units beside each other in an image."""
        return ceil_div(self.width, self.columns)

    @property
    def units(self) -> int:
        """Units of a channel."""
        return ceil_div(self.batch, self.images) * self.row_tiles * self.column_tiles

    @property
    def splits(self) -> int:
        """Blocks of a channel."""
        return ceil_div(self.units, self.turns)

    @property
    def strips(self) -> int:
        """Threads of a unit that have outputs."""
        return self.images * ceil_div(self.rows, _STRIP) * (self.columns // 4)

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * ceil_div(self.strips, 32)

    @property
    def stride(self) -> int:
        """Values from a row in shared memory to the next: four columns before it, and after it where there are more."""
        return self.columns + (8 if self.column_tiles > 1 else 4)

    @property
    def buffer(self) -> int:
        """Values of a unit in shared memory: rows of zeros between images, and what a last strip reads below."""
        padding = self.kernel // 2
        below = _STRIP * ceil_div(self.rows, _STRIP) - self.rows
        return (padding + self.images * (self.rows + padding) + below) * self.stride + 4

    @property
    def buffer_bytes(self) -> int:
        """Shared memory of a block's buffers."""
        return 4 * self.buffer * min(2, self.turns)

    def cost(self, setup: float) -> float:
        """Work of the busiest multiprocessor, where a block's setup is worth so much of a unit's."""
        blocks, warps = self.splits * self.channels, self.threads // 32
        return busiest(blocks, warps, self.turns, setup, most_warps=_WARPS, shared_bytes=self.buffer_bytes)

    @property
    def access(self) -> int:
        """Values of an access."""
        return access_bytes(torch.float32, self.width) // 4

    def scalars(self, splits: int) -> tuple[int, ...]:
        """The struct of the kernels, for so many blocks a channel."""
        return (
            *(self.batch, self.channels, self.height, self.width),
            *(self.images, self.rows, self.columns, self.row_tiles, self.column_tiles, self.units, splits),
            *(self.stride, self.buffer),
        )


def covers(p: Params, dtype: torch.dtype) -> bool:
    """Whether these kernels compute the convolution and its gradients."""
    return p.stride == p.dilation == 1 and 1 < p.kernel_size <= MAX_KERNEL and dtype == torch.float32


def convolve(p: Params, dtype: torch.dtype, x: torch.Size, *, turned: bool) -> Launch | None:
    """[N, C, H, W] -> [N, C, H, W]; with the filter turned, from the output's gradient to the input's."""
    if not x.numel():
        return None
    k, units = p.kernel_size, units_of(p.kernel_size, x)
    return SOURCE.launch(
        f"convolve_short<{k}, {units.access}>",
        grid=(units.splits * units.channels,),
        block=(units.threads,),
        shared_bytes=4 * _multiple(k * k, 4) + units.buffer_bytes,
        scalars=(*units.scalars(units.splits), int(turned)),
        operations=Operations(outputs=x.numel(), multiply_adds=_multiply_adds(units)),
    )


def weight_parts(p: Params, dtype: torch.dtype, x: torch.Size, parts: torch.Size) -> Launch | None:
    """[N, C, H, W], [N, C, H, W] -> [splits, C, k * k and the bias]."""
    if not parts.numel():
        return None
    k, units = p.kernel_size, _summed(p, x)
    return GRADIENT.launch(
        f"weight_parts_short<{k}, {units.access}>",
        grid=(parts[0] * units.channels,),
        block=(units.threads,),
        shared_bytes=max(
            4 * units.buffer * (2 if parts[0] < units.units else 1), units.threads // 32 * 4 * (k * k + 1)
        ),
        scalars=(*units.scalars(parts[0]), parts[2] - k * k),
        operations=Operations(outputs=x.numel(), multiply_adds=_multiply_adds(units)),
    )


def splits(p: Params, x: torch.Size) -> int:
    """Parts of the weight gradient of an input."""
    return _summed(p, x).splits if x.numel() else 0


def _summed(p: Params, x: torch.Size) -> Units:
    return units_of(p.kernel_size, x, _SETUP + _SUMMING)


@functools.lru_cache(1024)
def units_of(kernel: int, x: torch.Size, setup: float = _SETUP) -> Units:
    """Units of an input [N, C, H, W] that cost a large device least, by what is known without one."""
    return min(_possible(kernel, *x), key=lambda units: (units.cost(setup), units.splits))


def _possible(kernel: int, batch: int, channels: int, height: int, width: int) -> Iterator[Units]:
    columns = _multiple(ceil_div(width, ceil_div(width, _MOST_COLUMNS)), 4)
    stacks = (
        Units(kernel, batch, channels, height, width, images, height, columns, 2) for images in range(1, batch + 1)
    )
    found = [stack for stack in itertools.takewhile(_fits, stacks) if stack.column_tiles == 1]
    if not found:
        # A plane is too much for a block, which has tiles of it then.
        strips = ceil_div(height, _STRIP)
        rows = (_STRIP * ceil_div(strips, tiles) for tiles in range(1, strips + 1))
        tiled = (Units(kernel, batch, channels, height, width, 1, some, columns, 2) for some in rows)
        found = [next(filter(_fits, tiled))]
    for units in found:
        for turns in range(1, min(units.units, _MOST_TURNS) + 1):
            yield replace(units, turns=turns)


def _fits(units: Units) -> bool:
    return units.threads <= _MOST_THREADS and units.buffer_bytes + 1024 <= SHARED_BYTES


def _multiply_adds(units: Units) -> int:
    """Of all threads with outputs, in the image or not."""
    return units.units * units.channels * units.threads * _STRIP * 4 * units.kernel**2


def _multiple(extent: int, step: int) -> int:
    return step * ceil_div(extent, step)
