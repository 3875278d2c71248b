"""UniRepLKNet: blocks of a depthwise kernel, the slot, large or small by a pattern, a gate and two 1x1 layers.

Ding et al., UniRepLKNet: A Universal Perception Large-Kernel ConvNet, CVPR 2024, arXiv 2311.15599.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from opbench.networks.channel_norm import WrittenNorm
from opbench.networks.slot import Filling

_LARGE, _SMALL = 13, 3


def build(
    fill: Filling,
    *,
    widths: Sequence[int],
    blocks: Sequence[int],
    period: int = 1,
    classes: int = 1000,
    deploy: bool = False,
) -> UniRepLKNet:
    """Build a UniRepLKNet.

    Args:
        fill: fills the slots: 3x3 in the first stage and 13x13 in the others.
        widths: channels of each stage.
        blocks: of each stage.
        period: in the third stage, one block of so many has the large kernel, the others 3x3.
        classes: of the classifier.
        deploy: the form of inference, as if parallel kernels, batch norms and scales had been merged.
    """
    return UniRepLKNet(fill, widths, blocks, period, classes, deploy)


class UniRepLKNet(nn.Module):
    """[N, 3, H, W] -> [N, classes]."""

    def __init__(
        self, fill: Filling, widths: Sequence[int], blocks: Sequence[int], period: int, classes: int, deploy: bool
    ) -> None:
        super().__init__()
        channels = widths[0] // 2
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, 2, 1), WrittenNorm(channels), nn.GELU())
        self.stages = nn.Sequential()
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            chain: list[nn.Module] = [nn.Conv2d(channels, width, 3, 2, 1), WrittenNorm(width)]
            for place in range(count):
                large = stage != 0 and (stage != 2 or place % period == 0)
                chain.append(Block(fill, width, _LARGE if large else _SMALL, deploy))
            self.stages.append(nn.Sequential(*chain))
            channels = width
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, classes]."""
        logits: Tensor = self.head(self.norm(self.stages(self.stem(x)).mean((2, 3))))
        return logits


class Block(nn.Module):
    """[N, C, H, W] -> the same: the slot, a gate, 1x1 to four times the channels, 1x1 back, added to the input."""

    def __init__(self, fill: Filling, channels: int, kernel: int, deploy: bool) -> None:
        super().__init__()
        large = kernel == _LARGE
        branches = "unireplknet" if large and not deploy else "none"
        self.slot = fill.varied(kernel_size=kernel, branches=branches, bias=large or deploy)(channels)
        # Merged into a convolution, but not into another operator.
        self.norm = nn.Identity() if deploy and fill.own else nn.BatchNorm2d(channels)
        self.gate = Gate(channels)
        self.expand = nn.Linear(channels, 4 * channels)
        self.activation = nn.GELU()
        self.response = Response(4 * channels, offset=not deploy)
        self.reduce = nn.Linear(4 * channels, channels, bias=deploy)
        self.last = nn.Identity() if deploy else nn.BatchNorm2d(channels)
        self.scale = None if deploy else nn.Parameter(torch.full((channels, 1, 1), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        y: Tensor = self.gate(self.norm(self.slot(x))).permute(0, 2, 3, 1)
        y = self.reduce(self.response(self.activation(self.expand(y)))).permute(0, 3, 1, 2)
        y = self.last(y)
        return x + (y if self.scale is None else self.scale * y)


class Gate(nn.Module):
    """[N, C, H, W] -> the same: squeeze and excitation, each channel times a number that depends on all means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.activation = nn.ReLU()
        self.expand = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        means = F.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.expand(self.activation(self.reduce(means))))


class Response(nn.Module):
    """[N, H, W, C] -> the same: global response normalization, each channel by its norm among all channels' norms."""

    def __init__(self, channels: int, offset: bool) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(channels))
        self.offset = nn.Parameter(torch.zeros(channels)) if offset else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, H, W, C] -> [N, H, W, C]."""
        norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        y: Tensor = (1 + self.gain * (norm / (norm.mean(-1, keepdim=True) + 1e-6))) * x
        return y if self.offset is None else y + self.offset
