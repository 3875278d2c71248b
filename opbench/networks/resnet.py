"""ResNet: a stem, four stages of residual blocks with a spatial slot each, a linear classifier.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016, arXiv 1512.03385, with the stride in the 3x3 (the
slot) as in every current code, not in the 1x1 before it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from opbench.networks.slot import Filling

Stem = Literal["7x7", "3x3", "slot"]
Norm = Literal["batch", "synchronised"]

NORMS: Mapping[Norm, type[nn.Module]] = {"batch": nn.BatchNorm2d, "synchronised": nn.SyncBatchNorm}
"""They compute the same on one device; counters that know modules by their class may know only the first."""

_WIDTHS = (64, 128, 256, 512)
_BRANCH = 0.2
"""What the last norm of a block is scaled by before training. Goyal et al. (2017) begin with zero, which would leave no
gradient to measure; with one, sixteen blocks of products of products triple every rounding sixteen times."""


def build(
    fill: Filling,
    *,
    blocks: Sequence[int],
    block: Literal["bottleneck", "basic"] = "bottleneck",
    stem: Stem = "7x7",
    stem_kernel: int | None = None,
    classes: int | None = 1000,
    norm: Norm = "batch",
) -> ResNet:
    """Build a ResNet with so many blocks in each of its stages.

    Args:
        fill: fills the slot of each block, and of the stem where that has one.
        blocks: of each stage.
        block: 'bottleneck' has its slot between two 1x1 convolutions, 'basic' has two slots.
        stem: '7x7' is the paper's; '3x3' three convolutions (ResNet-C); 'slot' RedNet's, a slot between two 3x3.
        stem_kernel: kernel size of the operator in the stem, where it differs from the blocks'.
        classes: of the classifier; None for a backbone without one.
        norm: batch norm of one device or of all.
    """
    in_stem = fill if stem_kernel is None else fill.varied(kernel_size=stem_kernel)
    make = Bottleneck if block == "bottleneck" else Basic
    return ResNet(fill, blocks, make, _stem(in_stem, stem, NORMS[norm]), classes, NORMS[norm])


class ResNet(nn.Module):
    """[N, 3, H, W] -> [N, classes], or the pooled features where there is no classifier."""

    def __init__(
        self,
        fill: Filling,
        blocks: Sequence[int],
        make: type[Bottleneck] | type[Basic],
        stem: nn.Module,
        classes: int | None,
        norm: type[nn.Module],
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList()
        channels = _WIDTHS[0]
        for stage, (count, width) in enumerate(zip(blocks, _WIDTHS, strict=True)):
            chain = []
            for place in range(count):
                stride = 2 if stage and place == 0 else 1
                chain.append(make(fill, channels, width, stride, norm))
                channels = width * make.expansion
            self.stages.append(nn.Sequential(*chain))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Identity() if classes is None else nn.Linear(channels, classes)

    def features(self, x: Tensor) -> list[Tensor]:
        """[N, 3, H, W] -> the output of each stage, at 1/4 to 1/32 of the size."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, classes]."""
        logits: Tensor = self.head(self.pool(self.features(x)[-1]).flatten(1))
        return logits


class Bottleneck(nn.Module):
    """[N, C, H, W] -> [N, 4 * width, H / stride, W / stride]: 1x1, the slot, 1x1, added to a shortcut."""

    expansion = 4

    def __init__(self, fill: Filling, channels: int, width: int, stride: int, norm: type[nn.Module]) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.reduce = _convolution_norm(channels, width, 1, 1, norm, nn.ReLU())
        self.spatial = nn.Sequential(
            OrderedDict(slot=fill(width, stride=stride), norm=norm(width), activation=nn.ReLU())
        )
        self.expand = _convolution_norm(width, outputs, 1, 1, norm)
        _damp(self.expand[1])
        self.shortcut = _shortcut(channels, outputs, stride, norm)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, 4 * width, Ho, Wo]."""
        y: Tensor = self.activation(self.expand(self.spatial(self.reduce(x))) + self.shortcut(x))
        return y


class Basic(nn.Module):
    """[N, C, H, W] -> [N, width, H / stride, W / stride]: two slots, added to a shortcut."""

    expansion = 1

    def __init__(self, fill: Filling, channels: int, width: int, stride: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.first = nn.Sequential(
            OrderedDict(slot=fill(channels, width, stride), norm=norm(width), activation=nn.ReLU())
        )
        self.second = nn.Sequential(OrderedDict(slot=fill(width), norm=norm(width)))
        _damp(self.second.get_submodule("norm"))
        self.shortcut = _shortcut(channels, width, stride, norm)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, width, Ho, Wo]."""
        y: Tensor = self.activation(self.second(self.first(x)) + self.shortcut(x))
        return y


def _stem(fill: Filling, stem: Stem, norm: type[nn.Module]) -> nn.Sequential:
    """[N, 3, H, W] -> [N, 64, H / 4, W / 4]."""
    width = _WIDTHS[0]
    parts: dict[str, nn.Module]
    if stem == "7x7":
        parts = {"first": _convolution_norm(3, width, 7, 2, norm, nn.ReLU())}
    else:
        parts = {"first": _convolution_norm(3, width // 2, 3, 2, norm, nn.ReLU())}
        if stem == "slot":
            # RedNet's norm here is a plain one even where all others are synchronised.
            middle = OrderedDict(slot=fill(width // 2), norm=nn.BatchNorm2d(width // 2), activation=nn.ReLU())
            parts["spatial"] = nn.Sequential(middle)
        else:
            parts["second"] = _convolution_norm(width // 2, width // 2, 3, 1, norm, nn.ReLU())
        parts["last"] = _convolution_norm(width // 2, width, 3, 1, norm, nn.ReLU())
    return nn.Sequential(OrderedDict(**parts, pool=nn.MaxPool2d(3, 2, 1)))


def _damp(norm: nn.Module) -> None:
    nn.init.constant_(norm.get_parameter("weight"), _BRANCH)


def _shortcut(channels: int, outputs: int, stride: int, norm: type[nn.Module]) -> nn.Module:
    if stride == 1 and channels == outputs:
        return nn.Identity()
    return _convolution_norm(channels, outputs, 1, stride, norm)


def _convolution_norm(
    channels: int, outputs: int, kernel: int, stride: int, norm: type[nn.Module], *activation: nn.Module
) -> nn.Sequential:
    convolution = nn.Conv2d(channels, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, norm(outputs), *activation)
