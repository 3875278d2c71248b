"""InceptionNeXt: ConvNeXt's blocks with a few thin depthwise kernels in place of one large, the slot.

Yu et al., InceptionNeXt: When Inception Meets ConvNeXt, CVPR 2024, arXiv 2303.16900.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from opbench.networks.slot import Filling


def build(
    fill: Filling,
    *,
    widths: Sequence[int],
    blocks: Sequence[int],
    band: int = 11,
    share: int = 8,
    classes: int = 1000,
) -> InceptionNeXt:
    """Build an InceptionNeXt.

    Args:
        fill: fills the slots: the square kernel of the mixers, or instead of its mixer any other operator.
        widths: channels of each stage.
        blocks: of each stage.
        band: length of the thin kernels.
        share: one of so many channels goes through each kernel.
        classes: of the classifier.
    """
    return InceptionNeXt(fill, widths, blocks, band, share, classes)


class InceptionNeXt(nn.Module):
    """[N, 3, H, W] -> [N, classes]."""

    def __init__(
        self, fill: Filling, widths: Sequence[int], blocks: Sequence[int], band: int, share: int, classes: int
    ) -> None:
        super().__init__()
        channels = widths[0]
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 4, 4), nn.BatchNorm2d(channels))
        self.stages = nn.Sequential()
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            chain: list[nn.Module] = []
            if stage:
                chain += [nn.BatchNorm2d(channels), nn.Conv2d(channels, width, 2, 2)]
            expansion = 3 if stage == len(widths) - 1 else 4
            for _ in range(count):
                mixer = Inception(fill, width, band, share) if fill.own else fill(width)
                chain.append(Block(mixer, width, expansion * width))
            self.stages.append(nn.Sequential(*chain))
            channels = width
        self.head = nn.Sequential(
            nn.Linear(channels, 3 * channels),
            nn.GELU(),
            nn.LayerNorm(3 * channels, eps=1e-6),
            nn.Linear(3 * channels, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, classes]."""
        logits: Tensor = self.head(self.stages(self.stem(x)).mean((2, 3)))
        return logits


class Block(nn.Module):
    """[N, C, H, W] -> the same: a mixer of pixels, norm and two 1x1, scaled by channel and added to the input."""

    def __init__(self, mixer: nn.Module, channels: int, hidden: int) -> None:
        super().__init__()
        self.mixer = mixer
        self.norm = nn.BatchNorm2d(channels)
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.activation = nn.GELU()
        self.reduce = nn.Conv2d(hidden, channels, 1)
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        y: Tensor = x + self.scale * self.reduce(self.activation(self.expand(self.norm(self.mixer(x)))))
        return y


class Inception(nn.Module):
    """[N, C, H, W] -> the same: most channels as they are, a few through a square, a row or a column of taps."""

    def __init__(self, fill: Filling, channels: int, band: int, share: int) -> None:
        super().__init__()
        few = channels // share
        self.split = (channels - 3 * few, few, few, few)
        self.square = fill(few)
        self.row = nn.Conv2d(few, few, (1, band), padding=(0, band // 2), groups=few)
        self.column = nn.Conv2d(few, few, (band, 1), padding=(band // 2, 0), groups=few)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        same, square, row, column = x.split(self.split, dim=1)
        return torch.cat((same, self.square(square), self.row(row), self.column(column)), dim=1)
