"""The two convolutions that light networks are made of, across pixels and across channels, either of them as a slot."""

from __future__ import annotations

from typing import Literal

from torch import nn

from opbench.networks.slot import Filling

Slots = Literal["depthwise", "pointwise", "all"]
"""Which are slots: the 3x3 convolutions of single channels, the 1x1 convolutions, or both."""


class Convolutions:
    """Makes convolutions without bias, some as slots.

    Where the paper has the operator there, a slot gets the kernel size and the groups of its convolution.
    """

    def __init__(self, fill: Filling, slots: Slots) -> None:
        self.fill, self.slots = fill, slots

    def depthwise(self, channels: int, stride: int) -> nn.Module:
        """[N, C, H, W] -> [N, C, H / stride, W / stride]."""
        if self.slots == "pointwise":
            return nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
        return self.fill.varied(kernel_size=3, groups=channels)(channels, stride=stride)

    def pointwise(self, channels: int, outputs: int) -> nn.Module:
        """[N, C, H, W] -> [N, outputs, H, W]."""
        if self.slots == "depthwise":
            return nn.Conv2d(channels, outputs, 1, bias=False)
        return self.fill.varied(kernel_size=1)(channels, outputs)
