"""ConvNeXt: a ResNet's stages with a large depthwise kernel, the slot, in front of each block's 1x1 layers.

Liu et al., A ConvNet for the 2020s, CVPR 2022, arXiv 2201.03545.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from opbench.networks.channel_norm import CalledNorm
from opbench.networks.slot import Filling


def build(fill: Filling, *, widths: Sequence[int], blocks: Sequence[int], classes: int = 1000) -> ConvNeXt:
    """Build a ConvNeXt.

    Args:
        fill: fills the slot of each block.
        widths: channels of each stage.
        blocks: of each stage.
        classes: of the classifier.
    """
    return ConvNeXt(fill, widths, blocks, classes)


class ConvNeXt(nn.Module):
    """[N, 3, H, W] -> [N, classes]."""

    def __init__(self, fill: Filling, widths: Sequence[int], blocks: Sequence[int], classes: int) -> None:
        super().__init__()
        self.stages = nn.Sequential()
        channels = 3
        for width, count in zip(widths, blocks, strict=True):
            chain = (Block(fill, width) for _ in range(count))
            self.stages.append(nn.Sequential(downsampling(channels, width, CalledNorm), *chain))
            channels = width
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, classes]."""
        logits: Tensor = self.head(self.norm(self.stages(x).mean((2, 3))))
        return logits


class Block(nn.Module):
    """[N, C, H, W] -> the same: the slot and the 1x1 layers, added to the input."""

    def __init__(self, fill: Filling, channels: int) -> None:
        super().__init__()
        self.slot = fill(channels)
        self.pointwise = Pointwise(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        y: Tensor = x + self.pointwise(self.slot(x))
        return y


class Pointwise(nn.Module):
    """[N, C, H, W] -> the same: layer norm, 1x1 to four times the channels, GELU, 1x1 back, scaled by channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, 4 * channels)
        self.activation = nn.GELU()
        self.reduce = nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        y: Tensor = self.reduce(self.activation(self.expand(self.norm(x.permute(0, 2, 3, 1)))))
        return (self.scale * y).permute(0, 3, 1, 2)


def downsampling(channels: int, width: int, norm: type[nn.Module]) -> nn.Sequential:
    """[N, channels, H, W] -> [N, width, H / 2, W / 2] before a stage; H / 4 and W / 4 where that is an image."""
    if channels == 3:
        return nn.Sequential(nn.Conv2d(channels, width, 4, 4), norm(width))
    return nn.Sequential(norm(channels), nn.Conv2d(channels, width, 2, 2))
