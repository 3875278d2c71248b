"""MobileNetV2: inverted residual blocks, wide inside and narrow outside, with slots for their convolutions.

Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018, arXiv 1801.04381. Dynamic convolution
(Chen et al., CVPR 2020, arXiv 1912.03458) takes the 1x1 convolutions for its slots.
"""

from __future__ import annotations

from torch import Tensor, nn

from opbench.networks.separable import Convolutions, Slots
from opbench.networks.slot import Filling

_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Of each stage: by how much its blocks widen, its channels, its blocks, the stride of its first block."""


def build(fill: Filling, *, width: float = 1.0, slots: Slots = "depthwise", classes: int = 1000) -> MobileNetV2:
    """Build a MobileNetV2.

    Args:
        fill: fills the slots.
        width: by which the channels are multiplied before they are rounded to a multiple of 8.
        slots: which convolutions are slots; the first one never is.
        classes: of the classifier.
    """
    return MobileNetV2(Convolutions(fill, slots), width, classes)


class MobileNetV2(nn.Module):
    """[N, 3, H, W] -> [N, classes]."""

    def __init__(self, make: Convolutions, width: float, classes: int) -> None:
        super().__init__()
        channels = _rounded(32 * width)
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, 2, 1, bias=False), *_norm_activation(channels))
        self.blocks = nn.Sequential()
        for widening, base, count, first_stride in _STAGES:
            outputs = _rounded(base * width)
            for place in range(count):
                self.blocks.append(Block(make, channels, outputs, widening, first_stride if place == 0 else 1))
                channels = outputs
        # The last layer keeps its width in narrow networks.
        last = _rounded(1280 * max(1.0, width))
        self.last = nn.Sequential(make.pointwise(channels, last), *_norm_activation(last))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, classes]."""
        logits: Tensor = self.head(self.pool(self.last(self.blocks(self.stem(x)))).flatten(1))
        return logits


class Block(nn.Module):
    """[N, C, H, W] -> [N, outputs, H / stride, W / stride]: 1x1 to more channels, 3x3 of each by itself, 1x1."""

    def __init__(self, make: Convolutions, channels: int, outputs: int, widening: int, stride: int) -> None:
        super().__init__()
        hidden = channels * widening
        widen = [] if widening == 1 else [make.pointwise(channels, hidden), *_norm_activation(hidden)]
        self.layers = nn.Sequential(
            *widen,
            make.depthwise(hidden, stride),
            *_norm_activation(hidden),
            make.pointwise(hidden, outputs),
            nn.BatchNorm2d(outputs),
        )
        self.residual = stride == 1 and channels == outputs

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, outputs, Ho, Wo]."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


def _norm_activation(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels), nn.ReLU6()


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, but not less than 90 % of the channels."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
