"""ShuffleNetV2: blocks that leave half of the channels alone and mix the other half, with slots in that half.

Ma et al., ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design, ECCV 2018, arXiv 1807.11164, as
the code of DRConv builds it (Chen et al., CVPR 2021, arXiv 2003.12243), which takes the 1x1 convolutions for its slots.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from opbench.networks.separable import Convolutions, Slots
from opbench.networks.slot import Filling

_STEM = 24
_BLOCKS = (4, 8, 4)


def build(
    fill: Filling, *, channels: Sequence[int], last: int = 1024, slots: Slots = "depthwise", classes: int = 1000
) -> ShuffleNetV2:
    """Build a ShuffleNetV2.

    Args:
        fill: fills the slots.
        channels: of each of the three stages.
        last: channels of the layer before the classifier.
        slots: which convolutions of the half that is mixed are slots.
        classes: of the classifier.
    """
    return ShuffleNetV2(Convolutions(fill, slots), channels, last, classes)


class ShuffleNetV2(nn.Module):
    """[N, 3, H, W] -> [N, classes]."""

    def __init__(self, make: Convolutions, channels: Sequence[int], last: int, classes: int) -> None:
        super().__init__()
        # The convolutions of the stem and of the last layer have a bias, though a norm follows.
        self.stem = nn.Sequential(nn.Conv2d(3, _STEM, 3, 2, 1), *_norm_activation(_STEM), nn.MaxPool2d(3, 2, 1))
        self.blocks = nn.Sequential()
        inputs = _STEM
        for outputs, count in zip(channels, _BLOCKS, strict=True):
            self.blocks.append(Down(make, inputs, outputs))
            self.blocks.extend(Block(make, outputs) for _ in range(count - 1))
            inputs = outputs
        self.last = nn.Sequential(nn.Conv2d(inputs, last, 1), *_norm_activation(last))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, classes]."""
        logits: Tensor = self.head(self.pool(self.last(self.blocks(self.stem(x)))).flatten(1))
        return logits


class Block(nn.Module):
    """[N, C, H, W] -> the same: the even channels as they are, then what becomes of the odd ones."""

    def __init__(self, make: Convolutions, channels: int) -> None:
        super().__init__()
        self.mix = _mix(make, channels // 2, channels // 2, channels // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same."""
        even, odd = x.unflatten(1, (-1, 2)).movedim(2, 0).contiguous()
        return torch.cat([even, self.mix(odd)], dim=1)


class Down(nn.Module):
    """[N, C, H, W] -> [N, outputs, H / 2, W / 2]: all channels through either way."""

    def __init__(self, make: Convolutions, channels: int, outputs: int) -> None:
        super().__init__()
        self.shrink = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 2, 1, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, channels, 1, bias=False),
            *_norm_activation(channels),
        )
        self.mix = _mix(make, channels, outputs // 2, outputs - channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, outputs, H / 2, W / 2]."""
        return torch.cat([self.shrink(x), self.mix(x)], dim=1)


def _mix(make: Convolutions, channels: int, hidden: int, outputs: int, stride: int) -> nn.Sequential:
    """[N, C, H, W] -> [N, outputs, H / stride, W / stride]: 1x1, 3x3 of each channel by itself, 1x1."""
    return nn.Sequential(
        make.pointwise(channels, hidden),
        *_norm_activation(hidden),
        make.depthwise(hidden, stride),
        nn.BatchNorm2d(hidden),
        make.pointwise(hidden, outputs),
        *_norm_activation(outputs),
    )


def _norm_activation(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels), nn.ReLU()
