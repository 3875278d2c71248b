"""When any_window.cu runs over what grid: local attention for every window, head width and map."""

from __future__ import annotations

import torch

from opbench.api import Unsupported
from opbench.cuda import TYPE_NAMES, Launch, Operations, Source, ceil_div, kernel

from .reference import Params

SOURCE = Source.beside(__file__, "any_window.cu")

THREADS = 256
MAX_SHARED_BYTES = 48 << 10
"""What every device gives a block unasked."""
MAX_BLOCKS = 4096
"""Enough to fill any device; partial sums of embeddings grow with them."""


@kernel
def any_forward(
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
    pixels = block_pixels(p, numbers=1)
    tiles = ceil_div(q[3] * q[4], pixels)
    return SOURCE.launch(
        f"any_forward<{TYPE_NAMES[dtype]}>",
        grid=(blocks(q, tiles),),
        block=(THREADS,),
        shared_bytes=4 * p.kernel_size**2 * pixels,
        scalars=(*extents(p, q), pixels, tiles),
        operations=Operations(outputs=q.numel(), multiply_adds=2 * q.numel() * p.kernel_size**2),
    )


@kernel
def any_query_backward(
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
    pixels = block_pixels(p, numbers=2)
    tiles = ceil_div(q[3] * q[4], pixels)
    splits = splits_of(p, q)
    return SOURCE.launch(
        f"any_query_backward<{TYPE_NAMES[dtype]}>",
        grid=(blocks(q, splits),),
        block=(THREADS,),
        shared_bytes=8 * p.kernel_size**2 * pixels,
        scalars=(*extents(p, q), pixels, tiles, splits),
        operations=Operations(outputs=q.numel(), multiply_adds=3 * q.numel() * p.kernel_size**2),
    )


@kernel
def any_key_backward(
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
    pixels = block_pixels(p, numbers=2)
    tiles = ceil_div(q[3] * q[4], pixels)
    return SOURCE.launch(
        f"any_key_backward<{TYPE_NAMES[dtype]}>",
        grid=(blocks(q, tiles),),
        block=(THREADS,),
        shared_bytes=8 * p.kernel_size**2 * pixels,
        scalars=(*extents(p, q), pixels, tiles),
        operations=Operations(outputs=2 * q.numel(), multiply_adds=4 * q.numel() * p.kernel_size**2),
    )


@kernel
def sum_embeddings(
    p: Params,
    dtype: torch.dtype,
    grad_h: torch.Size,
    grad_w: torch.Size,
    partial: torch.Size,
) -> Launch:
    """[N, h, splits, dh, k] -> gradients of both embeddings."""
    n, heads, splits, channels, window = partial
    per_head = p.embedding == "per_head"
    return SOURCE.launch(
        f"sum_embeddings<{TYPE_NAMES[dtype]}>",
        grid=(channels * window * (heads if per_head else 1),),
        block=(THREADS,),
        shared_bytes=4 * THREADS // 32,
        scalars=(n, heads, splits, channels * window, int(per_head)),
        operations=Operations(outputs=partial.numel()),
    )


def splits_of(p: Params, q: torch.Size) -> int:
    """Blocks that share a map's queries in the backward."""
    tiles = ceil_div(q[3] * q[4], block_pixels(p, numbers=2))
    return min(tiles, ceil_div(MAX_BLOCKS, max(1, q[0] * q[1])))


def block_pixels(p: Params, numbers: int) -> int:
    """Pixels of a block that keeps so many numbers for each of a pixel's taps; a power of two, at most a warp."""
    most = MAX_SHARED_BYTES // (4 * numbers * p.kernel_size**2)
    if not most:
        largest = max(k for k in range(1, p.kernel_size, 2) if 8 * k * k <= MAX_SHARED_BYTES)
        raise Unsupported(f"kernels keep one number or two for each tap of a window: at most {largest}x{largest} taps")
    return min(32, 1 << (most.bit_length() - 1))


def extents(p: Params, q: torch.Size) -> tuple[int, ...]:
    """The scalars that `Extents` in window.cuh holds.

    Raises:
        Unsupported: offsets within a head's map do not fit 32 bits.
    """
    _, heads, channels, height, width = q
    if channels * height * width >= 2**31:
        raise Unsupported(f"a head of {channels} x {height} x {width} values; kernels take fewer than 2^31")
    options = (int(p.border == "mask"), int(p.embedding == "per_head"))
    return heads, channels, height, width, p.kernel_size, *options


def blocks(q: torch.Size, each: int) -> int:
    """Blocks of a grid with so many for each head of each image.

    Raises:
        Unsupported: there would be more than a grid has.
    """
    count = q[0] * q[1] * each
    if count >= 2**31:
        raise Unsupported(f"{q[0]} images of {q[1]} heads take {count} blocks; a grid has fewer than 2^31")
    return count
