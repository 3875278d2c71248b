"""Local attention by torch's flex_attention: the window is its mask, the relative position its change of the score."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from opbench.api import Unsupported

from .reference import Params

SMALLEST_WIDTH = 16
"""Channels of a head that flex_attention's products need at least; fewer are filled up with zeros."""


def flex_attention(p: Params, q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """q, k, v [N, h, dh, H, W], rel_h, rel_w [dh/2, k] or [h, dh/2, k] -> [N, h, dh, H, W].

    Raises:
        Unsupported: an empty batch, or gradients on a CPU, which flex_attention does not have.
    """
    inputs = (q, k, v, rel_h, rel_w)
    if q.numel() == 0:
        raise Unsupported("flex_attention takes no empty batch")
    if q.device.type == "cpu" and torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        raise Unsupported("flex_attention has no backward on the CPU")
    head_width, height, width = q.shape[2:]
    radius = p.kernel_size // 2
    margin = radius if p.border == "zero" else 0
    keys_width = width + 2 * margin
    if margin:
        # Keys outside the image are keys like others: zeros.
        k, v = (F.pad(tensor, (margin,) * 4) for tensor in (k, v))
    by_row, by_column = query_positions(p, q, rel_h, rel_w)

    def moved(score: Tensor, image: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        # Scores outside the window are computed before the mask drops them: any tap does there.
        a, b = _tap(query, key, width, keys_width, radius - margin)
        a, b = a.clamp(0, p.kernel_size - 1), b.clamp(0, p.kernel_size - 1)
        return score + by_row[image, head, query, a] + by_column[image, head, query, b]

    mask = _mask(p.kernel_size, margin, height, width, q.device)
    q, k, v = (_sequence(tensor) for tensor in (q, k, v))
    y: Tensor = _attend(q.device.type)(q, k, v, score_mod=moved, block_mask=mask, scale=1.0)
    return y[..., :head_width].mT.reshape(q.shape[0], q.shape[1], head_width, height, width)


def query_positions(p: Params, q: Tensor, rel_h: Tensor, rel_w: Tensor) -> tuple[Tensor, Tensor]:
    """Return each query times the row and the column embeddings, two of [N, h, H * W, k] in float32 or wider."""
    wide = torch.promote_types(q.dtype, torch.float32)
    whose = "h" if p.embedding == "per_head" else ""
    halves = q.flatten(3).to(wide).chunk(2, dim=2)
    by_row, by_column = (
        torch.einsum(f"nhcp,{whose}ca->nhpa", half, rel.to(wide))
        for half, rel in zip(halves, (rel_h, rel_w), strict=True)
    )
    return by_row, by_column


def _tap(query: Tensor, key: Tensor, width: int, keys_width: int, shift: int) -> tuple[Tensor, Tensor]:
    """Row and column of the window around a query in which a key lies, pixels numbered row by row."""
    return key // keys_width - query // width + shift, key % keys_width - query % width + shift


@functools.lru_cache(maxsize=64)
def _mask(window: int, margin: int, height: int, width: int, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    keys_width, shift = width + 2 * margin, window // 2 - margin

    def inside(_: Tensor, __: Tensor, query: Tensor, key: Tensor) -> Tensor:
        a, b = _tap(query, key, width, keys_width, shift)
        return (a >= 0) & (a < window) & (b >= 0) & (b < window)

    keys = (height + 2 * margin) * keys_width
    return create_block_mask(inside, None, None, height * width, keys, device=device)


def _sequence(x: Tensor) -> Tensor:
    """[N, h, dh, H, W] -> [N, h, H * W, channels], a power of two of them."""
    channels = max(SMALLEST_WIDTH, 1 << (x.shape[2] - 1).bit_length())
    return F.pad(x.flatten(3).mT, (0, channels - x.shape[2])).contiguous()


@functools.cache
def _attend(device: str) -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention as attend

    # Uncompiled it forms all scores: right, and as slow as that is, but a CPU is only asked whether it is right.
    return cast(Callable[..., Any], torch.compile(attend, dynamic=False) if device == "cuda" else attend)
