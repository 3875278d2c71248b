"""Feature pyramids: the top-down path that detectors and segmenters put behind a backbone.

Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017, arXiv 1612.03144.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from opbench.networks.slot import Filling


class Pyramid(nn.Module):
    """Maps [N, C, H, W], fine to coarse and each with its own C -> the same maps with `width` channels each."""

    def __init__(self, channels: Sequence[int], width: int, fill: Filling | None) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(inputs, width, 1) for inputs in channels)
        self.outputs = nn.ModuleList(spatial(width, fill) for _ in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """[N, C, H, W] each -> [N, width, H, W] each."""
        sums = top_down([lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)])
        return [output(x) for output, x in zip(self.outputs, sums, strict=True)]


def top_down(maps: Sequence[Tensor], mode: str = "nearest") -> list[Tensor]:
    """Maps [N, C, H, W], fine to coarse -> each plus the enlarged sum of all that are coarser."""
    sums = [maps[-1]]
    for x in reversed(maps[:-1]):
        sums.append(x + F.interpolate(sums[-1], x.shape[2:], mode=mode))
    return sums[::-1]


def spatial(width: int, fill: Filling | None) -> nn.Module:
    """[N, width, H, W] -> the same: a slot, or a 3x3 convolution where there is nothing to fill one with."""
    return nn.Conv2d(width, width, 3, padding=1) if fill is None else fill(width)
