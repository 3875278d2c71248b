"""Local attention by NATTEN, whose windows move inwards at borders: given a margin, no window that counts has to.

What NATTEN does not have is told by further channels of queries and keys. A position's logit: the query holds what each
row and column of its window adds, the key which row and column it is, both modulo the window, in which no two are the
same. A key that is left out: one number below every logit.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from opbench.api import Unsupported

from .flex import query_positions
from .reference import Params

LEFT_OUT = -3e4
"""Finite in float16."""


def neighborhood_attention(p: Params, q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """q, k, v [N, h, dh, H, W], rel_h, rel_w [dh/2, k] or [h, dh/2, k] -> [N, h, dh, H, W].

    Raises:
        Unsupported: NATTEN is not installed, or it would be asked for an empty batch, a window of one, or gradients in
            16 bits, which the channels for positions do not carry exactly.
    """
    natten = _natten()
    if q.numel() == 0 or p.kernel_size == 1:
        raise Unsupported("NATTEN takes no empty batch and no window of one")
    trains = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (q, k, v, rel_h, rel_w))
    if trains and q.dtype in (torch.float16, torch.bfloat16):
        raise Unsupported("NATTEN would round the gradients of positions' logits to 16 bits; float32 has gradients")
    window, radius = p.kernel_size, p.kernel_size // 2
    channels, height, width = q.shape[2:]
    outside = F.pad(q.new_zeros(height, width), (radius,) * 4, value=LEFT_OUT if p.border == "mask" else 0.0)
    rows, columns = (torch.arange(extent + 2 * radius, device=q.device) for extent in (height, width))
    places = torch.cat(
        [
            F.one_hot(rows % window, window).T[:, :, None].expand(-1, -1, len(columns)),
            F.one_hot(columns % window, window).T[:, None, :].expand(-1, len(rows), -1),
        ]
    ).to(q.dtype)
    places = torch.cat([places, places, outside[None]])
    keys = torch.cat([F.pad(k, (radius,) * 4), places.expand(*k.shape[:2], -1, -1, -1)], dim=2)

    # The window of the query at row y begins, with the margin, at row y: tap a is at place (y + a) modulo the window.
    position = torch.cat(
        [
            _by_place(logits, first[None, :] if along_row else first[:, None], height, width)
            for logits, first, along_row in zip(
                query_positions(p, q, rel_h, rel_w), (rows[:height], columns[:width]), (False, True), strict=True
            )
        ],
        dim=2,
    )
    # Rounded to 16 bits a logit is not what the reference has: a second channel holds what the first one lost.
    rounded = position.to(q.dtype)
    lost = (position - rounded).detach().to(q.dtype)
    queries = F.pad(torch.cat([q, rounded, lost, torch.ones_like(q[:, :, :1])], dim=2), (radius,) * 4)
    values = F.pad(v, (radius,) * 4)

    full = 1 << (queries.shape[2] - 1).bit_length()
    layouts = [
        F.pad(tensor, (0, 0, 0, 0, 0, full - tensor.shape[2])).permute(0, 3, 4, 1, 2).contiguous()
        for tensor in (queries, keys, values)
    ]
    y: Tensor = natten.functional.na2d(*layouts, kernel_size=(window, window), scale=1.0)
    return y[:, radius : radius + height, radius : radius + width, :, :channels].permute(0, 3, 4, 1, 2)


def _by_place(logits: Tensor, first: Tensor, height: int, width: int) -> Tensor:
    """[N, h, H * W, k] by tap -> [N, h, k, H, W] by place; tap 0 of each pixel is at place `first` modulo k."""
    window = logits.shape[-1]
    first = first.expand(height, width)
    taps = (torch.arange(window, device=logits.device)[:, None, None] - first) % window
    logits = logits.mT.unflatten(-1, (height, width))
    return logits.gather(2, taps.expand(*logits.shape[:2], -1, -1, -1))


def _natten() -> Any:
    try:
        return importlib.import_module("natten")
    except ImportError:
        raise Unsupported("the package natten is not installed") from None
