"""When small_window.cu and small_window_backward.cu run over what grid: windows of 7 on float units."""

from __future__ import annotations

import torch

from opbench.cuda import TYPE_NAMES, Launch, Operations, Source, ceil_div, kernel

from .any_window import blocks, extents
from .reference import Params

FORWARD = Source.beside(__file__, "small_window.cu")
BACKWARD = Source.beside(__file__, "small_window_backward.cu")

WINDOW = 7
"""The paper's, and the only one with instances: the sources take it as a parameter, a compiler seconds for each."""
THREADS = 128
STRIP = 4
"""Neighbouring pixels of a thread."""
FORWARD_CHANNELS, BACKWARD_CHANNELS = 8, 4
"""Channels of a thread; the lanes of a warp share the pixels of a head that has more."""


def covers(p: Params, q: torch.Size) -> bool:
    """Whether there is an instance for this window and a warp's lanes can share a head of this width."""
    return p.kernel_size == WINDOW and q[2] <= 32 * BACKWARD_CHANNELS


@kernel
def small_forward(
    p: Params,
    dtype: torch.dtype,
    q: torch.Size,
    k: torch.Size,
    v: torch.Size,
    rel_h: torch.Size,
    rel_w: torch.Size,
    y: torch.Size,
    highest: torch.Size,
) -> Launch:
    """q, k, v, embeddings -> y and the highest logit of each query [N, h, H, W]."""
    shares, window = shares_of(q, FORWARD_CHANNELS), p.kernel_size
    tables, column_logits = 2 * shares * FORWARD_CHANNELS * window, THREADS * STRIP * window
    products = 2 * FORWARD_CHANNELS
    return _launch(FORWARD, "small_forward", p, dtype, q, shares, tables + column_logits, products)


@kernel
def small_query_backward(
    p: Params,
    dtype: torch.dtype,
    gradient: torch.Size,
    q: torch.Size,
    k: torch.Size,
    v: torch.Size,
    rel_h: torch.Size,
    rel_w: torch.Size,
    y: torch.Size,
    highest: torch.Size,
    grad_q: torch.Size | None,
    sums: torch.Size,
    partial: torch.Size | None,
) -> Launch:
    """Gradient of q; sums over taps for the keys [N, h, 2, H, W]; the embeddings' gradient by block."""
    shares, window = shares_of(q, BACKWARD_CHANNELS), p.kernel_size
    tables, column_logits = 2 * shares * BACKWARD_CHANNELS * window, THREADS * STRIP * window
    gathered = 3 * THREADS // shares * STRIP * window
    products = 4 * BACKWARD_CHANNELS
    return _launch(BACKWARD, "small_query_backward", p, dtype, q, shares, tables + column_logits + gathered, products)


@kernel
def small_key_backward(
    p: Params,
    dtype: torch.dtype,
    gradient: torch.Size,
    q: torch.Size,
    k: torch.Size,
    v: torch.Size,
    rel_h: torch.Size,
    rel_w: torch.Size,
    highest: torch.Size,
    sums: torch.Size,
    grad_k: torch.Size | None,
    grad_v: torch.Size | None,
) -> Launch:
    """Gradients of k and v."""
    shares = shares_of(q, BACKWARD_CHANNELS)
    # Two tables where a thread has channels that meet row embeddings and such that meet column embeddings.
    tables = 2 if q[2] // 2 % BACKWARD_CHANNELS else 1
    positions = tables * shares * BACKWARD_CHANNELS * p.kernel_size**2
    return _launch(BACKWARD, "small_key_backward", p, dtype, q, shares, positions, 5 * BACKWARD_CHANNELS, outputs=2)


def small_splits(q: torch.Size) -> int:
    """Blocks that share a map's queries in the backward."""
    return _tiles(q, shares_of(q, BACKWARD_CHANNELS))


def shares_of(q: torch.Size, channels: int) -> int:
    """Lanes that share a strip, each with so many channels: a power of two."""
    return 1 << (ceil_div(q[2], channels) - 1).bit_length()


def _tiles(q: torch.Size, shares: int) -> int:
    """Blocks of a map."""
    return ceil_div(q[3] * ceil_div(q[4], STRIP), THREADS // shares)


def _launch(
    source: Source,
    name: str,
    p: Params,
    dtype: torch.dtype,
    q: torch.Size,
    shares: int,
    shared_floats: int,
    products: int,
    outputs: int = 1,
) -> Launch:
    """Plan a kernel of which each thread multiplies each tap of a pixel so many times."""
    width = q[4]
    # Vectors of pixels where each row has a whole number of them.
    vector = 4 if width % 4 == 0 else 1
    tiles = _tiles(q, shares)
    grid = blocks(q, tiles)
    multiply_adds = grid * THREADS * STRIP * p.kernel_size**2 * products
    return source.launch(
        f"{name}<{TYPE_NAMES[dtype]}, {p.kernel_size}, {vector}>",
        grid=(grid,),
        block=(THREADS,),
        shared_bytes=4 * shared_floats,
        scalars=(*extents(p, q), shares, tiles),
        operations=Operations(outputs=outputs * q.numel(), multiply_adds=multiply_adds),
    )
