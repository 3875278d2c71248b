"""Dynamic convolution in plain PyTorch: every image is convolved with its own mixture of K filter sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from opbench.api import Unsupported, Window, check_params, param, windows


@dataclass(frozen=True)
class Params:
    """What a dynamic convolution layer is built from."""

    out_channels: int | None = param(None, help="output channels; as many as the input when none", at_least=1)
    kernel_size: int = param(3, help="taps per side", at_least=1)
    stride: int = param(1, help="step between output pixels", at_least=1)
    padding: int | Literal["half"] = param(
        "half", help="zeros around the image; 'half' is dilation * (kernel_size - 1) // 2", at_least=0
    )
    dilation: int = param(1, help="step between taps", at_least=1)
    groups: int = param(1, help="channel groups that do not see each other", at_least=1)
    bias: bool = param(False, help="one learnable offset per expert and output channel")
    experts: int = param(4, help="filter sets to mix, the paper's K", at_least=1)
    temperature: float = param(30.0, help="what the attention's logits are divided by before training", at_least=1)

    def __post_init__(self) -> None:
        check_params(self)

    @property
    def window(self) -> Window:
        """The window along either axis."""
        if self.padding == "half":
            return Window.half(self.kernel_size, self.stride, self.dilation)
        return Window(self.kernel_size, self.stride, self.padding, self.dilation)

    def weight_shape(self, in_channels: int) -> tuple[int, int, int, int, int]:
        """Extents [K, O, C/g, k, k] for a layer of so many inputs; Unsupported when the groups do not divide them."""
        outputs = in_channels if self.out_channels is None else self.out_channels
        if in_channels % self.groups or outputs % self.groups:
            raise Unsupported(f"{self.groups} groups do not divide {in_channels} input and {outputs} output channels")
        return self.experts, outputs, in_channels // self.groups, self.kernel_size, self.kernel_size


def dynamic_convolution(p: Params, x: Tensor, weight: Tensor, *bias_and_attention: Tensor) -> Tensor:
    """[N, C, H, W], [K, O, C/g, k, k], perhaps [K, O], then [N, K] -> [N, O, Ho, Wo]."""
    *bias, attention = bias_and_attention
    seen = windows(x, p.window, p.window).unflatten(1, (p.groups, -1))
    filters = mixed(weight, attention).unflatten(1, (p.groups, -1))
    y = torch.einsum("ngcabyx,ngocab->ngoyx", seen, filters).flatten(1, 2)
    return y + mixed(bias[0], attention)[..., None, None] if bias else y


def native(p: Params, x: Tensor, weight: Tensor, *bias_and_attention: Tensor) -> Tensor:
    """The same through PyTorch's own convolution, the images side by side as groups of one wide image."""
    *bias, attention = bias_and_attention
    images = len(x)
    if images == 0:
        raise Unsupported("a convolution grouped by image needs at least one image")
    filters = mixed(weight, attention).flatten(0, 1)
    offsets = mixed(bias[0], attention).flatten() if bias else None
    wide = x.reshape(1, -1, *x.shape[2:])
    y: Tensor = F.conv2d(wide, filters, offsets, p.stride, p.window.padding, p.dilation, groups=images * p.groups)
    return y.reshape(images, -1, *y.shape[2:])


def mixed(experts: Tensor, attention: Tensor) -> Tensor:
    """[K, ...], [N, K] -> [N, ...]: the weighted sum of the experts that each image asks for."""
    return torch.einsum("nk,k...->n...", attention, experts)
