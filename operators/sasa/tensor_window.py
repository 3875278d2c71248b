"""When tensor_window.cu runs over what grid: local attention in 16 bits on tensor cores."""

from __future__ import annotations

import torch

from opbench.cuda import TYPE_NAMES, Launch, Operations, Source, ceil_div, kernel

from .any_window import blocks, extents
from .reference import Params
from .small_window import WINDOW

SOURCE = Source.beside(__file__, "tensor_window.cu")

THREADS = 128
HEIGHT, MARGIN = 8, 4
"""Rows of a tile, and columns of keys beyond it on either side."""
WIDTHS = {8: 32, 16: 32, 32: 16, 64: 8}
"""Columns of a tile by channels of a head."""


def covers_forward(p: Params, dtype: torch.dtype, q: torch.Size) -> bool:
    """Whether the forward has an instance for this window and head width; its values are 16 bits."""
    return dtype != torch.float32 and p.kernel_size == WINDOW and q[2] in WIDTHS


@kernel
def tensor_forward(
    p: Params,
    dtype: torch.dtype,
    q: torch.Size,
    k: torch.Size,
    v: torch.Size,
    rel_h: torch.Size,
    rel_w: torch.Size,
    y: torch.Size,
    lse: torch.Size,
) -> Launch:
    """q, k, v, embeddings -> y and the logarithm of the softmax's denominator [N, h, H, W]."""
    channels, height, width = q[2:]
    window = p.kernel_size
    # The widest copy of which every row has a whole number; a copy has 4 bytes at least, or is none.
    vector = 4 if width % 4 == 0 else 2 if width % 2 == 0 else 1
    tile_width = WIDTHS[channels]
    # As `Tile` and the kernel have it: keys and values, embeddings, positions' logits of each warp's 16 queries.
    plane = (HEIGHT + window - 1) * (tile_width + 2 * MARGIN)
    plane += 0 if plane // 8 % 2 else 8
    shared_bytes = 2 * (2 * channels * plane + 2 * channels * 8) + 4 * (THREADS // 32 * 16 * (2 * window + 1))
    across, down = ceil_div(width, tile_width), ceil_div(height, HEIGHT)
    # 16 queries make, for each row of keys, two products with keys and one for each 8 channels with values.
    units = q[0] * q[1] * ceil_div(width, 8) * ceil_div(height, 2)
    steps = max(1, channels // 16)
    products = units * (2 * steps + (window + 1) * (2 * steps + channels // 8))
    return SOURCE.launch(
        f"tensor_forward<{TYPE_NAMES[dtype]}, {channels}, {window}, {vector}>",
        grid=(blocks(q, across * down),),
        block=(THREADS,),
        shared_bytes=shared_bytes,
        scalars=(*extents(p, q), across, across * down),
        operations=Operations(outputs=q.numel(), products=products),
    )
