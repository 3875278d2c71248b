"""Launches of the tensor-core kernels for small maps: 16-bit values, 16 channels in a group, stride 1, narrow rows."""

from __future__ import annotations

import torch

from opbench.cuda import TYPE_NAMES, Launch, Operations, Source, ceil_div
from opbench.cuda.plan import MAX_GRID

from . import banded
from .reference import Params

SOURCE = Source.beside(__file__, "planar.cu")

CHANNELS = 16
KERNEL_SIZES = (3, 5, 7)
MOST_COLUMNS = 14
MOST_ROWS, MOST_REACHED = 14, 24
"""Rows of a block, and those that its taps reach where it takes several groups: what keeps its shared memory below
64 KiB."""
CHUNK, MARGIN = 136, 32
"""Values of 16 channels of eight columns, and of what lies around the taps; as in planar.cuh."""
ITEM_BYTES = 2


def covers(p: Params, dtype: torch.dtype, height: int, width: int) -> bool:
    """Whether these kernels compute an involution of images of that size."""
    small = width <= MOST_COLUMNS and ceil_div(height, MOST_ROWS) <= MAX_GRID[1]
    return small and banded.covers(p, dtype) and p.kernel_size in KERNEL_SIZES and p.stride == 1


def forward(p: Params, dtype: torch.dtype, weight: torch.Size) -> Launch:
    """A warp for every kernel row."""
    cut = _Cut(p, weight)
    return _launch("planar_forward", p, dtype, weight, cut, cut.taps, weight[0] * weight[1] * CHANNELS)


def input_gradient(p: Params, dtype: torch.dtype, weight: torch.Size) -> Launch:
    """As the forward."""
    cut = _Cut(p, weight)
    return _launch("planar_input_gradient", p, dtype, weight, cut, cut.taps, weight[0] * weight[1] * CHANNELS)


def weight_gradient(p: Params, dtype: torch.dtype, weight: torch.Size) -> Launch:
    """As many warps, which take rows of pixels in turn."""
    cut = _Cut(p, weight)
    k = p.kernel_size
    own = cut.together * cut.rows * cut.tiles * CHUNK
    taps = k * k * (120 if cut.tiles == 1 else 200)
    return _launch("planar_weight_gradient", p, dtype, weight, cut, own + taps, weight[:4].numel())


class _Cut:
    """How planes are cut: so many go together in a block, or each into so many strips of rows."""

    def __init__(self, p: Params, weight: torch.Size) -> None:
        *_, height, width = weight
        pad = p.kernel_size // 2
        self.tiles = ceil_div(width, 8)
        self.unit = 2 - width % 2
        self.together = max(min(MOST_ROWS // height, (MOST_REACHED - pad) // (height + pad)), 1)
        self.strips = ceil_div(height, MOST_ROWS)
        self.rows = ceil_div(height, self.strips)
        self.reached = self.together * (self.rows + pad) + pad
        # As in planar.cuh.
        columns, padding = (8, 8 * (3 - self.unit)) if self.tiles == 1 else (14, 8 * (self.unit - 1))
        taps = self.together * self.rows * (p.kernel_size * columns * 8 + padding)
        self.taps = 2 * MARGIN + taps + (ceil_div(taps, 64) * 64 + 32 if self.tiles == 2 else 0)


def _launch(
    name: str, p: Params, dtype: torch.dtype, weight: torch.Size, cut: _Cut, values: int, planes: int
) -> Launch:
    n, groups, k, _, height, width = weight
    grid = ceil_div(n * groups, cut.together), cut.strips
    loaded = height if cut.strips == 1 else cut.reached  # of one group
    # Two rows of at most eight columns share a product; wider ones need two.
    products = n * groups * height * (k // 2 + 1 if cut.tiles == 1 else 2 * k)
    return SOURCE.launch(
        f"{name}<{TYPE_NAMES[dtype]}, {k}, {cut.tiles}, {cut.unit}>",
        grid=grid,
        block=(32 * k,),
        shared_bytes=(values + cut.reached * cut.tiles * CHUNK) * ITEM_BYTES,
        scalars=(
            *(height, width, n * groups, cut.together, cut.rows, loaded),
            *(ceil_div(1 << 16, cut.rows), ceil_div(1 << 16, loaded), ceil_div(1 << 21, cut.rows * width)),
        ),
        operations=Operations(outputs=planes * height * width, products=products),
    )
