"""Tensor-core kernels for a stride of one in 16 bits: when to launch which instance, over what grid."""

from __future__ import annotations

import torch

from opbench.cuda import TYPE_NAMES, Launch, Operations, Source, ceil_div

from .reference import Params
from .stacks import Stack, stack_of

SOURCE = Source.beside(__file__, "banded.cu")

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


def access(dtype: torch.dtype, width: int) -> int:
    """Bytes of the widest access that every row of a plane begins at a multiple of."""
    row = width * dtype.itemsize
    return min(16, row & -row)


def convolve(p: Params, dtype: torch.dtype, x: torch.Size, *, turned: bool) -> Launch | None:
    """[N, C, H, W] -> [N, C, H, W]; with the filter turned, from the output's gradient to the input's."""
    if not x.numel():
        return None
    batch, channels, height, width = x
    k, spans = p.kernel_size, bands(p)
    tiles = min(_TILES, key=lambda tiles: (ceil_div(width, 8 * tiles) * tiles, -tiles))
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
            *(batch, channels, height, width, k, int(turned), access(dtype, width)),
            *(stack.images, stack.rows, stack.held, stack.row_tiles, column_tiles),
        ),
        operations=Operations(
            outputs=x.numel(),
            products=stack.groups * channels * column_tiles * stack.tap_rows * stack.strips * tiles * spans,
        ),
    )
