"""The attention branch of X-volution in plain PyTorch: the meaning every implementation is held to."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from opbench.api import Unsupported, Window, check_params, param, taps

STEPS = tuple(product((-1, 0, 1), repeat=2))
"""(rows, columns) from a pixel to the taps of a 3x3 window around it, row by row."""


@dataclass(frozen=True)
class Params:
    """What an X-volution layer is built from."""

    form: Literal["B", "A"] = param(
        "B", help="attention branch: 'B' the paper's merge equation, 'A' its shifted products"
    )
    kernel_size: int = param(
        3, help="side of the convolution and of the attention window of form B", at_least=1, odd=True
    )
    heads: int = param(8, help="form B: contiguous channel groups with affinities of their own", at_least=1)
    scale: Literal["none", "head_width"] = param("none", help="form B: what an affinity is divided by")
    shift: int = param(1, help="form A: pixels between the partners of a product", at_least=1)
    directions: Literal[4, 8] = param(4, help="form A: shifts along the axes, or along the diagonals as well")
    convolution: Literal["dense", "depthwise"] = param("dense", help="the convolution branch")

    def __post_init__(self) -> None:
        check_params(self)

    @property
    def window(self) -> Window:
        """The window of the convolution and of form B, along either axis."""
        return Window.half(self.kernel_size)

    @property
    def shifts(self) -> Window:
        """The window that form A's shifts are taps of, along either axis."""
        return Window.half(3, dilation=self.shift)

    @property
    def directed_steps(self) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of each direction of form A, in multiples of the shift, in the order of the products."""
        farthest = 1 if self.directions == 4 else 2
        return tuple((down, right) for down, right in STEPS if 0 < abs(down) + abs(right) <= farthest)

    def head_width(self, channels: int) -> int:
        """Channels of a head; Unsupported when the heads do not divide the channels."""
        if channels % self.heads:
            raise Unsupported(f"{self.heads} heads do not divide {channels} channels")
        return channels // self.heads


def xvolution(p: Params, *tensors: Tensor) -> Tensor:
    """Form B: q, k, v [N, C, H, W] -> [N, C, H, W]; form A: q, k [N, C, H, W] -> [N, directions * C, H, W]."""
    result = tensors[0].dtype
    # Cubic in the activations and without a normaliser: 16-bit inputs are multiplied and summed in float32.
    wide = [tensor.to(torch.promote_types(result, torch.float32)) for tensor in tensors]
    y = linear_attention(p, *wide) if p.form == "B" else shifted_products(p, *wide)
    return y.to(result)


def linear_attention(p: Params, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """[N, C, H, W] three times -> [N, C, H, W]: values summed by their affinity, which no softmax normalises."""
    heads = (p.heads, p.head_width(q.shape[1]))
    scale = 1 if p.scale == "none" else 1 / heads[1]
    y: Tensor = torch.zeros_like(v).unflatten(1, heads)
    for key, value in zip(taps(k, p.window, p.window), taps(v, p.window, p.window), strict=True):
        affinity = scale * (q * key).unflatten(1, heads).sum(2, keepdim=True)
        y.addcmul_(affinity, value.unflatten(1, heads))
    return y.flatten(1, 2)


def shifted_products(p: Params, q: Tensor, k: Tensor) -> Tensor:
    """[N, C, H, W] twice -> [N, directions * C, H, W]: each query times the key one shift away, element by element."""
    shifted = zip(STEPS, taps(k, p.shifts, p.shifts), strict=True)
    return torch.cat([q * key for step, key in shifted if step in p.directed_steps], dim=1)
