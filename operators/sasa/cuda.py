"""Local attention by our kernels: what is saved, what is computed again, and which path a call takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from opbench.api import Macs, Nchw, Work
from opbench.cuda import CudaCore

from .any_window import any_forward, any_key_backward, any_query_backward, splits_of, sum_embeddings
from .reference import Params
from .small_window import covers, small_forward, small_key_backward, small_query_backward, small_splits
from .tensor_window import (
    covers_in_16_bits,
    tensor_forward,
    tensor_key_backward,
    tensor_query_backward,
    tensor_splits,
)


def forward(p: Params, q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> tuple[Tensor, Tensor]:
    """The output [N, h, dh, H, W], and a number of each softmax [N, h, H, W] in float32.

    It is the highest logit, in units of log 2; in 16 bits on tensor cores the logarithm of the denominator.
    """
    y, statistic = torch.empty_like(q), _per_query(q)
    if covers_in_16_bits(p, q.dtype, q.shape):
        run = tensor_forward
    else:
        run = small_forward if covers(p, q.shape) else any_forward
    run(p, q, k, v, rel_h, rel_w, y, statistic)
    return y, statistic


def backward(
    p: Params,
    wanted: Sequence[bool],
    gradient: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rel_h: Tensor,
    rel_w: Tensor,
    y: Tensor,
    statistic: Tensor,
) -> list[Tensor | None]:
    """Compute the attention again, once for each query, which sums up what keys will need, and once for each key."""
    grad_q, grad_k, grad_v = (
        torch.empty_like(tensor) if asked else None for tensor, asked in zip((q, k, v), wanted, strict=False)
    )
    grad_h = grad_w = None
    inputs = (gradient, q, k, v, rel_h, rel_w)
    outputs: tuple[Tensor, ...] = (y, statistic)
    # What keys need of each query: attention times its gradient, and on float units before it the scale of its shares.
    numbers = 2
    if covers_in_16_bits(p, q.dtype, q.shape):
        numbers, outputs = 1, (statistic,)
        by_query, by_key, splits = tensor_query_backward, tensor_key_backward, tensor_splits(q.shape)
    elif covers(p, q.shape):
        by_query, by_key, splits = small_query_backward, small_key_backward, small_splits(q.shape)
    else:
        by_query, by_key, splits = any_query_backward, any_key_backward, splits_of(p, q.shape)
    sums = None
    # Values alone need no slopes.
    if wanted[0] or wanted[1] or wanted[3] or wanted[4] or numbers == 2:
        sums = _per_query(q, numbers)
        partial = None
        if wanted[3] or wanted[4]:
            shape = (q.shape[0], q.shape[1], splits, q.shape[2], p.kernel_size)
            partial = torch.empty(shape, dtype=torch.float32, device=q.device)
        by_query(p, *inputs, *outputs, grad_q, sums, partial)
        if partial is not None:
            grad_h, grad_w = torch.empty_like(rel_h), torch.empty_like(rel_w)
            sum_embeddings(p, grad_h, grad_w, partial)
    if wanted[1] or wanted[2]:
        by_key(p, *inputs, statistic, sums, grad_k, grad_v)
    return [grad_q, grad_k, grad_v, grad_h if wanted[3] else None, grad_w if wanted[4] else None]


def work(p: Params, q: torch.Size, *_: torch.Size) -> Work:
    """Multiply-adds of q·k, q·r and A·v, and of their gradients with both logits computed again."""
    n, heads, channels, height, width = q
    taps = n * heads * channels * Macs.of_windows(p.window, p.window, height, width)
    positions = Macs.exact(taps.dense) if p.border == "zero" else taps
    return Work(forward=2 * taps + positions, backward=5 * taps + 3 * positions)


def _per_query(q: Tensor, numbers: int = 1) -> Tensor:
    n, heads, _, height, width = q.shape
    several = (numbers,) if numbers > 1 else ()
    return torch.empty(n, heads, *several, height, width, dtype=torch.float32, device=q.device)


CUDA = CudaCore(
    name="sasa",
    params=Params,
    forward=forward,
    backward=backward,
    keeps_output=True,
    work=work,
    cases=(
        (Params(heads=2), Nchw(1, 16, 11, 40)),
        (Params(heads=1, border="mask"), Nchw(1, 8, 19, 68)),
        (Params(heads=2, embedding="per_head"), Nchw(1, 32, 10, 36)),
        (Params(heads=1, border="mask"), Nchw(1, 32, 9, 18)),
        (Params(heads=1), Nchw(1, 64, 7, 7)),
        (Params(heads=1, border="mask"), Nchw(1, 64, 9, 11)),
        (Params(heads=1, embedding="per_head"), Nchw(1, 10, 5, 9)),
        (Params(heads=1, border="mask"), Nchw(1, 12, 5, 8)),
        (Params(kernel_size=9, heads=1, out_channels=6), Nchw(1, 4, 7, 8)),
        (Params(kernel_size=41, heads=1, out_channels=2, border="mask"), Nchw(1, 2, 3, 5)),
    ),
    layers=(
        (Params(), Nchw(32, 64, 56, 56)),
        (Params(), Nchw(32, 128, 28, 28)),
        (Params(), Nchw(32, 256, 14, 14)),
        (Params(), Nchw(32, 512, 7, 7)),
    ),
)
