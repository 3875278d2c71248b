"""Form B on maps of 7 or 14 columns: a head of one image fits a block's shared memory."""

from __future__ import annotations

import torch

from opbench.cuda import TYPE_NAMES, Launch, Operations, Source, ceil_div

from .reference import Params

SOURCE = Source.beside(__file__, "planes.cu")

SEGMENT = 7
"""Pixels of a thread, half a row or a whole one, as `planes.cuh` has it."""
TAPS = 9
VECTOR_BYTES = 16
ZEROS = 32
"""Values that are read in place of rows beyond the image."""
MIN_CHANNELS = 8
"""Channels of a head that make a slice worth its share in adding up the affinities."""
WARP = 32
MAX_THREADS = 128
"""Of a block, as `planes.cu` has it."""
MAX_SHARED_BYTES = 64 << 10
"""What a block may have on every device."""

Grid = tuple[int, int, int]


def attend(p: Params, dtype: torch.dtype, x: torch.Size, grid: Grid, scale: float) -> Launch | None:
    """[N, C, H, W] three times -> [N, C, H, W], heads along the grid's x; None where another kernel must."""
    if dtype.itemsize != 2:
        return None
    return _launch("attend_planes", p, dtype, x, grid, scale, tensors=3, kept_bytes=0, products=2)


def attend_backward(p: Params, dtype: torch.dtype, x: torch.Size, grid: Grid, scale: float) -> Launch | None:
    """[N, C, H, W] four times -> [N, C, H, W] three times; affinities of one kind are kept for all threads."""
    # In float32 memory bounds other kernels too, but for the backward of odd widths.
    if dtype.itemsize != 2 and x[3] != SEGMENT:
        return None
    kept_bytes = TAPS * x[2] * x[3] * 4
    return _launch("attend_planes_backward", p, dtype, x, grid, scale, tensors=4, kept_bytes=kept_bytes, products=5)


def _launch(
    name: str,
    p: Params,
    dtype: torch.dtype,
    x: torch.Size,
    grid: Grid,
    scale: float,
    *,
    tensors: int,
    kept_bytes: int,
    products: int,
) -> Launch | None:
    """One block for a head, one thread for a segment and a slice of its channels."""
    n, channels, height, width = x
    if p.kernel_size**2 != TAPS or width not in (SEGMENT, 2 * SEGMENT) or not x.numel():
        return None
    head_width, plane = channels // p.heads, height * width
    slices = _slices(head_width)
    threads = ceil_div(slices * (plane // SEGMENT), WARP) * WARP
    head_bytes = head_width * plane * dtype.itemsize
    shared_bytes = ZEROS * dtype.itemsize + tensors * head_bytes + kept_bytes
    # A thread goes from channel to channel by whole words.
    whole = head_bytes % VECTOR_BYTES == 0 and slices * plane * dtype.itemsize % 4 == 0
    if not whole or threads > MAX_THREADS or shared_bytes > MAX_SHARED_BYTES:
        return None
    return SOURCE.launch(
        f"{name}<{TYPE_NAMES[dtype]}, {width // SEGMENT}>",
        grid=grid,
        block=(threads,),
        shared_bytes=shared_bytes,
        scalars=(n, p.heads, head_width, slices, height, scale),
        operations=Operations(outputs=x.numel(), multiply_adds=products * TAPS * x.numel()),
    )


def _slices(head_width: int) -> int:
    """Slices that a head's channels are dealt into: equal ones, a power of two, which shuffles add up."""
    most = max(head_width // MIN_CHANNELS, 1)
    return next(slices for slices in (8, 4, 2, 1) if slices <= most and head_width % slices == 0)
