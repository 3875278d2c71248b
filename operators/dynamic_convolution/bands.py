"""Plans of the kernels in `bands.cu`: 3x3 windows at stride 1 in 16 bits, which see pixels kept in shared memory."""

from __future__ import annotations

import torch

from opbench.cuda import Launch, Operations, Source, ceil_div, tiles
from opbench.cuda.views import divisor

from .reference import Params

SOURCE = Source.beside(__file__, "bands.cu")

ROWS, COLUMNS, CHANNELS = 32, 256, 16
"""Of a tile, and channels that are multiplied at a time."""
MOST_SHARED = 48 << 10
"""Bytes of shared memory that leave room for two blocks, and four images' filters, on every device."""
SEVERAL = (4, 1)
"""Images of a block: several where each has so few pixels that they fill it together."""

USUAL = 4
"""Experts that kernels are made for, the paper's number; for others the same kernels count them as they run."""


def plan(
    p: Params,
    name: str,
    dtype: torch.dtype,
    *,
    x: torch.Size,
    y: torch.Size,
    view: tuple[int, ...],
) -> Launch | None:
    """A launch that convolves x [N, G * channels, ...] to y [N, G * outputs, ...]; None for what these do not do."""
    channels, outputs, pixels = x[1] // p.groups, y[1] // p.groups, y[2] * y[3]
    # Weights are loaded in fours, along the channels or along the outputs.
    fits = channels % CHANNELS == 0 and outputs % 4 == 0
    if dtype == torch.float32 or p.kernel_size != 3 or p.stride != 1 or not fits:
        return None
    # A row more than whole ones where a tile begins within a row, and what its windows see above and below.
    band = min(x[2], (COLUMNS - 1) // y[3] + 2 + 2 * p.dilation)
    for images in SEVERAL:
        rows = x[2] if images > 1 else band
        shared_bytes = 16 + images * (2 * CHANNELS * (rows * x[3] + 9 * ROWS) + 4 * p.experts)
        if (images == 1 or pixels <= COLUMNS // images) and shared_bytes <= MOST_SHARED:
            break
    else:
        return None
    number = ceil_div(outputs, ROWS) * p.groups * ceil_div(x[0], images) * ceil_div(pixels, COLUMNS // images)
    tiles.require(blocks=number)
    usual = USUAL if p.experts == USUAL else 0
    return SOURCE.launch(
        tiles.name(name, dtype, usual, images),
        grid=(number,),
        block=(COLUMNS,),
        shared_bytes=shared_bytes,
        scalars=(*view, p.experts, x[0], p.groups, channels, outputs, rows, *divisor(rows * x[3])),
        operations=Operations(outputs=y.numel(), products=number * ROWS * COLUMNS * channels * 9 // (16 * 8 * 16)),
        alternatives=tuple(tiles.name(name, dtype, usual, other) for other in SEVERAL),
    )
