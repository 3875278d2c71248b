"""RepLKNet: pairs of a block around a very large depthwise kernel, the slot, and a feed-forward block.

Ding et al., Scaling Up Your Kernels to 31x31: Revisiting Large Kernel Design in CNNs, CVPR 2022, arXiv 2203.06717.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from opbench.networks.merging import merge
from opbench.networks.slot import Filling


def build(
    fill: Filling,
    *,
    widths: Sequence[int],
    kernels: Sequence[int],
    blocks: Sequence[int] = (2, 2, 18, 2),
    widening: float = 1,
    classes: int = 1000,
    fused: bool = False,
) -> RepLKNet:
    """Build a RepLKNet.

    Args:
        fill: fills the slots, whose kernel size is each stage's own.
        widths: channels of each stage.
        kernels: taps per side of each stage's large kernel.
        blocks: pairs of blocks of each stage.
        widening: channels of a slot, for each channel of its block.
        classes: of the classifier.
        fused: the deployed form, small kernels and batch norms merged into the convolutions before them.
    """
    network = RepLKNet(fill, widths, kernels, blocks, widening, classes)
    if fused:
        merge(network)
    return network


class RepLKNet(nn.Module):
    """[N, 3, H, W] -> [N, classes]."""

    def __init__(
        self,
        fill: Filling,
        widths: Sequence[int],
        kernels: Sequence[int],
        blocks: Sequence[int],
        widening: float,
        classes: int,
    ) -> None:
        super().__init__()
        channels = widths[0]
        self.stem = nn.Sequential(
            _convolution_norm(3, channels, 3, nn.ReLU(), stride=2),
            _convolution_norm(channels, channels, 3, nn.ReLU(), groups=channels),
            _convolution_norm(channels, channels, 1, nn.ReLU()),
            _convolution_norm(channels, channels, 3, nn.ReLU(), stride=2, groups=channels),
        )
        self.stages = nn.Sequential()
        for stage, (kernel, width, count) in enumerate(zip(kernels, widths, blocks, strict=True)):
            chain: list[nn.Module] = []
            if stage:
                chain += [
                    _convolution_norm(channels, width, 1, nn.ReLU()),
                    _convolution_norm(width, width, 3, nn.ReLU(), stride=2, groups=width),
                ]
            for _ in range(count):
                chain += [Spatial(fill.varied(kernel_size=kernel), width, int(width * widening)), FeedForward(width)]
            self.stages.append(nn.Sequential(*chain))
            channels = width
        self.norm = nn.BatchNorm2d(channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, classes]."""
        logits: Tensor = self.head(self.pool(self.norm(self.stages(self.stem(x)))).flatten(1))
        return logits


class Spatial(nn.Module):
    """[N, C, H, W] -> the same: norm, 1x1, the slot, 1x1, added to the input."""

    def __init__(self, fill: Filling, channels: int, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.reduce = _convolution_norm(channels, width, 1, nn.ReLU())
        # The large kernel's layer ends in a norm of its own, which any other operator gets here.
        norm = nn.Identity() if fill.own else nn.BatchNorm2d(width)
        self.spatial = nn.Sequential(OrderedDict(slot=fill(width), norm=norm, activation=nn.ReLU()))
        self.expand = _convolution_norm(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        y: Tensor = x + self.expand(self.spatial(self.reduce(self.norm(x))))
        return y


class FeedForward(nn.Module):
    """[N, C, H, W] -> the same: norm, 1x1 to four times the channels, 1x1 back, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.expand = _convolution_norm(channels, 4 * channels, 1)
        self.activation = nn.GELU()
        self.reduce = _convolution_norm(4 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        y: Tensor = x + self.reduce(self.activation(self.expand(self.norm(x))))
        return y


def _convolution_norm(
    channels: int, outputs: int, kernel: int, *activation: nn.Module, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    convolution = nn.Conv2d(channels, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), *activation)
