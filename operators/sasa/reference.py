"""Local self-attention in plain PyTorch: the meaning every implementation is held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from opbench.api import Unsupported, Window, check_params, param, taps, windows


@dataclass(frozen=True)
class Params:
    """What a stand-alone self-attention layer is built from."""

    out_channels: int | None = param(None, help="output channels; as many as the input when none", at_least=1)
    kernel_size: int = param(7, help="keys per side of a query's window", at_least=1, odd=True)
    heads: int = param(8, help="contiguous channel groups that attend on their own", at_least=1)
    stride: Literal[1, 2] = param(1, help="2 averages 2x2 pixels after attention at full resolution")
    border: Literal["zero", "mask"] = param(
        "zero", help="taps outside the image: 'zero' keeps them in the softmax as zero keys, 'mask' leaves them out"
    )
    embedding: Literal["shared", "per_head"] = param("shared", help="whose the relative position embedding is")
    projection: Literal["dense", "grouped"] = param(
        "dense", help="what a head's query, key and value are made of: all input channels, or its own share"
    )

    def __post_init__(self) -> None:
        check_params(self)

    @property
    def window(self) -> Window:
        """The window of keys along either axis."""
        return Window.half(self.kernel_size)

    def outputs(self, in_channels: int) -> int:
        """Output channels for a layer of so many inputs; Unsupported when the heads do not divide either."""
        outputs = in_channels if self.out_channels is None else self.out_channels
        if outputs % (2 * self.heads):
            # Half of a head's width meets the row embedding, the other half the column embedding.
            raise Unsupported(f"{outputs} output channels are not {self.heads} heads of an even width")
        if self.projection == "grouped" and in_channels % self.heads:
            raise Unsupported(f"{self.heads} heads do not divide {in_channels} input channels")
        return outputs

    def embedding_shape(self, in_channels: int) -> tuple[int, ...]:
        """Shape of the row embedding and of the column embedding: [dh/2, k] or [h, dh/2, k]."""
        half = self.outputs(in_channels) // self.heads // 2
        return (half, self.kernel_size) if self.embedding == "shared" else (self.heads, half, self.kernel_size)


def local_attention(p: Params, q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """q, k, v [N, h, dh, H, W], rel_h, rel_w [dh/2, k] or [h, dh/2, k] -> [N, h, dh, H, W].

    Each query meets the keys of the window around it, by what they are and by where they lie; no 1/√dh.
    """
    result = q.dtype
    # The softmax magnifies the rounding of its logits: 16-bit inputs are computed in float32.
    q, k, v, rel_h, rel_w = (x.to(torch.promote_types(result, torch.float32)) for x in (q, k, v, rel_h, rel_w))

    content = torch.stack([(q * key).sum(2) for key in taps(k, p.window, p.window)], dim=2)
    logits = content + position_logits(p, q, rel_h, rel_w)
    if p.border == "mask":
        inside = windows(torch.ones_like(q[:1, :1, 0]), p.window, p.window).flatten(2, 3)
        logits = logits.masked_fill(inside == 0, -torch.inf)
    attention = logits.softmax(2)

    y = torch.zeros_like(v)
    for share, value in zip(attention.unbind(2), taps(v, p.window, p.window), strict=True):
        y.addcmul_(share.unsqueeze(2), value)
    return y.to(result)


def position_logits(p: Params, q: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """[N, h, dh, H, W] and the embeddings -> [N, h, k^2, H, W]: each query times the embedding of each tap.

    Tap (a, b) has row a of rel_h as the first half of its embedding and column b of rel_w as the second.
    """
    embedding = torch.cat(torch.broadcast_tensors(rel_h.unsqueeze(-1), rel_w.unsqueeze(-2)), dim=-3)
    whose = "h" if p.embedding == "per_head" else ""
    return torch.einsum(f"nhcyx,{whose}cab->nhabyx", q, embedding).flatten(2, 3)
