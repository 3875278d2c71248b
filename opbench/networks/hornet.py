"""HorNet: ConvNeXt's stages with recursive gated convolution, whose depthwise kernel is the slot.

Rao et al., HorNet: Efficient High-Order Spatial Interactions with Recursive Gated Convolutions, NeurIPS 2022,
arXiv 2207.14284.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from opbench.networks.channel_norm import WrittenNorm
from opbench.networks.convnext import Pointwise, downsampling
from opbench.networks.slot import Filling

_ORDERS = (2, 3, 4, 5)


def build(
    fill: Filling,
    *,
    width: int,
    blocks: Sequence[int] = (2, 3, 18, 2),
    filters: Sequence[int] = (0, 0, 0, 0),
    classes: int = 1000,
) -> HorNet:
    """Build a HorNet.

    Args:
        fill: fills the slot of each block.
        width: channels of the first stage; each of the others has twice as many as the one before.
        blocks: of each stage.
        filters: side of the map that each stage's global filter is learned for; 0 for a stage with slots instead.
        classes: of the classifier.
    """
    return HorNet(fill, width, blocks, filters, classes)


class HorNet(nn.Module):
    """[N, 3, H, W] -> [N, classes]."""

    def __init__(self, fill: Filling, width: int, blocks: Sequence[int], filters: Sequence[int], classes: int) -> None:
        super().__init__()
        self.stages = nn.Sequential()
        channels = 3
        for count, order, side in zip(blocks, _ORDERS, filters, strict=True):
            chain = (Block(fill, width, order, side) for _ in range(count))
            self.stages.append(nn.Sequential(downsampling(channels, width, WrittenNorm), *chain))
            channels, width = width, 2 * width
        self.norm = WrittenNorm(channels)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, classes]."""
        means = self.stages(x).mean((2, 3), keepdim=True)
        logits: Tensor = self.head(self.norm(means).flatten(1))
        return logits


class Block(nn.Module):
    """[N, C, H, W] -> the same: norm and recursive gated convolution, then the 1x1 layers, each added to its input."""

    def __init__(self, fill: Filling, channels: int, order: int, side: int) -> None:
        super().__init__()
        self.norm = WrittenNorm(channels)
        self.gated = GatedConvolution(fill, channels, order, side)
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 1e-6))
        self.pointwise = Pointwise(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        x = x + self.scale * self.gated(self.norm(x))
        y: Tensor = x + self.pointwise(x)
        return y


class GatedConvolution(nn.Module):
    """[N, C, H, W] -> the same: neighbourhoods of ever more channels multiplied onto each other, `order` times."""

    def __init__(self, fill: Filling, channels: int, order: int, side: int) -> None:
        super().__init__()
        self.widths = [channels >> step for step in reversed(range(order))]
        self.project = nn.Conv2d(channels, 2 * channels, 1)
        self.spatial = GlobalFilter(sum(self.widths), side) if side else fill(sum(self.widths))
        self.widen = nn.ModuleList(
            nn.Conv2d(narrow, wide, 1) for narrow, wide in zip(self.widths, self.widths[1:], strict=False)
        )
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        y, rest = self.project(x).split((self.widths[0], sum(self.widths)), dim=1)
        first, *gates = (self.spatial(rest) / 3).split(self.widths, dim=1)
        y = y * first
        for widen, gate in zip(self.widen, gates, strict=True):
            y = widen(y) * gate
        mixed: Tensor = self.mix(y)
        return mixed


class GlobalFilter(nn.Module):
    """[N, C, H, W] -> the same: one half of the channels filtered by a 3x3, the other in frequencies, in turn.

    Args:
        channels: C.
        side: of the map that the filter is learned for; for another size it is interpolated.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        half = channels // 2
        self.first = WrittenNorm(channels)
        self.local = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        self.weight = nn.Parameter(0.02 * torch.randn(half, side, side // 2 + 1, 2))
        self.last = WrittenNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        size = x.shape[2:]
        near, far = self.first(x).chunk(2, dim=1)
        # No Fourier transform has 16 bits.
        wide = torch.promote_types(x.dtype, torch.float32)
        waves = torch.fft.rfft2(far.to(wide), norm="ortho")
        weight = self.weight.to(wide)
        if weight.shape[1:3] != waves.shape[2:]:
            planes = weight.permute(3, 0, 1, 2)
            weight = F.interpolate(planes, tuple(waves.shape[2:]), mode="bilinear", align_corners=True)
            weight = weight.permute(1, 2, 3, 0)
        filtered = torch.fft.irfft2(waves * torch.view_as_complex(weight.contiguous()), s=size, norm="ortho")
        pairs = torch.stack((self.local(near), filtered.to(x.dtype)), dim=2)
        y: Tensor = self.last(pairs.flatten(1, 2))
        return y
