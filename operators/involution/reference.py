"""Involution in plain PyTorch: the meaning every implementation is held to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from opbench.api import Unsupported, Window, check_params, param, taps


@dataclass(frozen=True)
class Params:
    """What an involution layer is built from."""

    kernel_size: int = param(7, help="taps per side", at_least=1, odd=True)
    stride: int = param(1, help="step between output pixels", at_least=1)
    dilation: int = param(1, help="step between taps", at_least=1)
    group_channels: int = param(16, help="neighbouring channels that share one kernel", at_least=1)
    reduction: int = param(4, help="input channels per hidden channel of the kernel generator", at_least=1)

    def __post_init__(self) -> None:
        check_params(self)

    @property
    def window(self) -> Window:
        """The window of either axis: ceil(extent / stride) outputs."""
        return Window.half(self.kernel_size, self.stride, self.dilation)

    def groups(self, channels: int) -> int:
        """Kernels per output pixel; Unsupported when the channels do not fall into whole groups."""
        if channels % self.group_channels:
            raise Unsupported(f"{channels} channels are not a multiple of group_channels {self.group_channels}")
        return channels // self.group_channels

    def hidden(self, channels: int) -> int:
        """Channels inside the kernel generator, rounded down; Unsupported when none remain."""
        if channels < self.reduction:
            raise Unsupported(f"reduction {self.reduction} leaves no hidden channel of {channels}")
        return channels // self.reduction


def involution(p: Params, x: Tensor, weight: Tensor) -> Tensor:
    """[N, C, H, W], [N, G, k, k, Ho, Wo] -> [N, C, Ho, Wo]; channel c uses the kernel of group c // (C / G)."""
    groups = weight.shape[1]
    wide = torch.promote_types(x.dtype, torch.float32)
    kernels = weight.to(wide).flatten(2, 3)[:, :, None].unbind(3)
    y = x.new_zeros((len(x), groups, x.shape[1] // groups, *weight.shape[4:]), dtype=wide)
    # In place and in at least float32: sums dropped one after another would leave a CPU's heap in pieces.
    for kernel, seen in zip(kernels, taps(x.to(wide), p.window, p.window), strict=True):
        y.addcmul_(kernel, seen.unflatten(1, (groups, -1)))
    return y.flatten(1, 2).to(x.dtype)
