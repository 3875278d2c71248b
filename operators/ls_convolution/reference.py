"""The aggregation of LS convolution in plain PyTorch: the meaning every implementation is held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from opbench.api import Unsupported, Window, check_params, param, taps


@dataclass(frozen=True)
class Params:
    """What an LS convolution layer is built from."""

    large_kernel_size: int = param(7, help="taps per side that the kernels are generated from", at_least=1, odd=True)
    small_kernel_size: int = param(3, help="taps per side that are aggregated", at_least=1, odd=True)
    group_channels: int = param(8, help="channels that share one kernel", at_least=1)
    mapping: Literal["interleaved", "contiguous"] = param(
        "interleaved",
        help="which channels share a kernel: those G apart, as in the official code, or neighbours, as in the paper",
    )

    def __post_init__(self) -> None:
        check_params(self)

    @property
    def large_window(self) -> Window:
        """The window that the generator sees, on either axis."""
        return Window.half(self.large_kernel_size)

    @property
    def small_window(self) -> Window:
        """The window that is aggregated, on either axis."""
        return Window.half(self.small_kernel_size)

    def groups(self, channels: int) -> int:
        """Kernels per pixel; Unsupported when the channels do not fall into whole groups."""
        if channels % self.group_channels:
            raise Unsupported(f"{channels} channels are not a multiple of group_channels {self.group_channels}")
        return channels // self.group_channels

    def hidden(self, channels: int) -> int:
        """Channels inside the kernel generator: half of them; Unsupported when they have no half."""
        if channels % 2:
            raise Unsupported(f"the kernel generator works on half of the channels, and {channels} is odd")
        return channels // 2


def small_kernel_aggregation(p: Params, x: Tensor, weight: Tensor) -> Tensor:
    """[N, C, H, W], [N, G, k, k, H, W] -> [N, C, H, W].

    Channel c uses the kernel of group c % G when interleaved, c // (C / G) when contiguous.
    """
    groups = weight.shape[1]
    split, within = ((-1, groups), 1) if p.mapping == "interleaved" else ((groups, -1), 2)
    wide = torch.promote_types(x.dtype, torch.float32)
    kernels = weight.to(wide).flatten(2, 3).unbind(2)
    y: Tensor = torch.zeros_like(x, dtype=wide).unflatten(1, split)
    # In place and in at least float32: sums dropped one after another would leave a CPU's heap in pieces.
    for kernel, seen in zip(kernels, taps(x.to(wide), p.small_window, p.small_window), strict=True):
        y.addcmul_(kernel.unsqueeze(within), seen.unflatten(1, split))
    return y.flatten(1, 2).to(x.dtype)
