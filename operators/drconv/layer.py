"""The DRConv layer: a guide that ranks the regions of each pixel, a generator of their filters, and the core."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from opbench.api import Core

from .reference import Params


class DRConv(nn.Module):
    """[N, C, H, W] -> [N, O, Ho, Wo], with the generator that `params` names."""

    def __init__(self, in_channels: int, params: Params, core: Core) -> None:
        super().__init__()
        self.params, self.core = params, core
        if params.generator == "paper":
            self.guide: nn.Module = _window_guide(in_channels, params)
            self.generate: nn.Module = PooledFilters(in_channels, params)
        else:
            self.guide = PixelGuide(in_channels, params)
            self.generate = MixedFilters(in_channels, params)
        outputs, *_ = params.filter_shape(in_channels)
        self.bias = nn.Parameter(torch.zeros(outputs)) if params.bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, O, Ho, Wo]."""
        y = self.core(self.params, x, self.generate(x), self.guide(x))
        return y if self.bias is None else y + self.bias[:, None, None]


class PooledFilters(nn.Module):
    """The paper's generator: the image pooled to k x k pixels, which become the taps, through two 1x1 convolutions."""

    def __init__(self, in_channels: int, params: Params) -> None:
        super().__init__()
        self.kernel_size = params.kernel_size
        outputs, fan_in, *_ = params.filter_shape(in_channels)
        self.extents = params.regions, outputs, fan_in
        hidden = params.regions**2
        self.squeeze = nn.Conv2d(in_channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, math.prod(self.extents), 1, groups=params.regions)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, m, O, C/g, k, k]."""
        pooled = F.adaptive_avg_pool2d(x, self.kernel_size)
        filters: Tensor = self.expand(self.squeeze(pooled).sigmoid()).unflatten(1, self.extents)
        return filters


class MixedFilters(nn.Module):
    """The official code's generator: each region of each image mixes learned bases, equally at the start."""

    def __init__(self, in_channels: int, params: Params) -> None:
        super().__init__()
        self.extents = params.regions, params.bases
        shape = params.filter_shape(in_channels)
        self.bases = nn.Parameter(torch.empty(params.bases, *shape))
        self.route = nn.Linear(in_channels, math.prod(self.extents))
        bound = math.sqrt(6 / math.prod(shape[1:]))
        nn.init.uniform_(self.bases, -bound, bound)
        nn.init.normal_(self.route.weight, std=0.01)
        nn.init.zeros_(self.route.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, m, O, C/g, k, k]."""
        coefficients = 2 * self.route(x.mean((2, 3))).sigmoid().unflatten(1, self.extents) / len(self.bases)
        return torch.einsum("nmt,t...->nm...", coefficients, self.bases)


class PixelGuide(nn.Module):
    """The guide of the official ShuffleNetV2 block: each pixel ranks its regions, then nearest-neighbour resizing."""

    def __init__(self, in_channels: int, params: Params) -> None:
        super().__init__()
        self.window = params.window
        self.rank = nn.Conv2d(in_channels, params.regions, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, m, Ho, Wo]."""
        height, width = (self.window.outputs(extent) for extent in x.shape[2:])
        guide: Tensor = self.rank(x)
        return guide if guide.shape[2:] == (height, width) else F.interpolate(guide, (height, width))


def _window_guide(in_channels: int, params: Params) -> nn.Module:
    """The paper's guide: a convolution over the very windows that the filters will see."""
    return nn.Conv2d(
        in_channels, params.regions, params.kernel_size, params.stride, params.window.padding, params.dilation
    )
