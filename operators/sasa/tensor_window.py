"""When tensor_window.cu and its backwards run over what grid: local attention in 16 bits on tensor cores."""

from __future__ import annotations

import torch

from opbench.cuda import TYPE_NAMES, Launch, Operations, Source, ceil_div, kernel

from .any_window import blocks, extents
from .reference import Params
from .small_window import WINDOW

FORWARD = Source.beside(__file__, "tensor_window.cu")
QUERY_BACKWARD = Source.beside(__file__, "tensor_query_backward.cu")
KEY_BACKWARD = Source.beside(__file__, "tensor_key_backward.cu")

THREADS = 128
HEIGHT, MARGIN = 8, 4
"""Rows of a tile, and columns of keys beyond it on either side."""
WIDTHS = {8: 32, 16: 32, 32: 16, 64: 8}
"""Columns of a tile by channels that an instance has; a head may have fewer."""


def covers_in_16_bits(p: Params, dtype: torch.dtype, q: torch.Size) -> bool:
    """Whether there are instances for this window and head width; values are 16 bits."""
    return dtype != torch.float32 and p.kernel_size == WINDOW and q[2] <= max(WIDTHS)


def channels_of(q: torch.Size) -> int:
    """Channels of the smallest instance that a head fits."""
    return next(channels for channels in WIDTHS if q[2] <= channels)


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
    channels, window = channels_of(q), p.kernel_size
    steps = max(1, channels // 16)
    # Two with the positions of each 16 channels, and for each row of keys two with keys, one with values of 8 channels.
    products = 2 * steps + (window + 1) * (2 * steps + channels // 8)
    return _launch(FORWARD, "tensor_forward", p, dtype, q, _tile_bytes(p, q) + _embeddings_bytes(q), products)


@kernel
def tensor_query_backward(
    p: Params,
    dtype: torch.dtype,
    gradient: torch.Size,
    q: torch.Size,
    k: torch.Size,
    v: torch.Size,
    rel_h: torch.Size,
    rel_w: torch.Size,
    lse: torch.Size,
    grad_q: torch.Size | None,
    weighted: torch.Size,
    partial: torch.Size | None,
) -> Launch:
    """Gradient of q; attention times its gradient, summed [N, h, H, W]; the embeddings' gradient by block."""
    channels, window = channels_of(q), p.kernel_size
    steps = max(1, channels // 16)
    # For each row of keys: two with keys, two with values, and slopes in two parts with keys. Then the embeddings', the
    # sums of slopes in two parts as well.
    rows = (window + 1) * (4 * steps + 2 * (channels // 8))
    products = 2 * steps + rows + 4 + 4 * (channels // 8)
    shared_bytes = _tile_bytes(p, q) + _embeddings_bytes(q)
    return _launch(QUERY_BACKWARD, "tensor_query_backward", p, dtype, q, shared_bytes, products)


@kernel
def tensor_key_backward(
    p: Params,
    dtype: torch.dtype,
    gradient: torch.Size,
    q: torch.Size,
    k: torch.Size,
    v: torch.Size,
    rel_h: torch.Size,
    rel_w: torch.Size,
    lse: torch.Size,
    weighted: torch.Size | None,
    grad_k: torch.Size | None,
    grad_v: torch.Size | None,
) -> Launch:
    """Gradients of k and v."""
    channels = channels_of(q)
    steps = max(1, channels // 16)
    # For each row of queries: with keys, values and positions, the attention with gradients, slopes with queries.
    positions = 4 if channels <= 16 else 2 * steps
    products = (p.kernel_size + 1) * (4 * steps + positions + 3 * (channels // 8))
    shared_bytes = _tile_bytes(p, q) + 8 * _tile_pixels(p, q)
    return _launch(KEY_BACKWARD, "tensor_key_backward", p, dtype, q, shared_bytes, products, outputs=2)


def tensor_splits(q: torch.Size) -> int:
    """Blocks that share a map."""
    return ceil_div(q[4], WIDTHS[channels_of(q)]) * ceil_div(q[3], HEIGHT)


def _tile_bytes(p: Params, q: torch.Size) -> int:
    """Two maps' tiles in 16 bits, as `Tile` has them."""
    plane = _tile_pixels(p, q)
    return 2 * 2 * channels_of(q) * (plane if plane // 8 % 2 else plane + 8)


def _tile_pixels(p: Params, q: torch.Size) -> int:
    return (HEIGHT + p.kernel_size - 1) * (WIDTHS[channels_of(q)] + 2 * MARGIN)


def _embeddings_bytes(q: torch.Size) -> int:
    return 2 * 2 * channels_of(q) * 8


def _launch(
    source: Source,
    name: str,
    p: Params,
    dtype: torch.dtype,
    q: torch.Size,
    shared_bytes: int,
    products: int,
    outputs: int = 1,
) -> Launch:
    """Plan a kernel whose warps make so many tensor-core products of each unit, 8 columns of two rows."""
    channels, height, width = channels_of(q), q[3], q[4]
    splits = tensor_splits(q)
    units = q[0] * q[1] * ceil_div(width, 8) * ceil_div(height, 2)
    return source.launch(
        f"{name}<{TYPE_NAMES[dtype]}, {channels}, {p.kernel_size}>",
        grid=(blocks(q, splits),),
        block=(THREADS,),
        shared_bytes=shared_bytes,
        scalars=(*extents(p, q), ceil_div(width, WIDTHS[channels]), splits),
        operations=Operations(outputs=outputs * q.numel(), products=units * products),
    )
