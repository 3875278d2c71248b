"""Layer norm over the channels of a feature map, in the two ways in which published code spells it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CalledNorm(nn.LayerNorm):
    """[N, C, H, W] -> the same: every pixel's channels normed by torch's layer norm, as timm and mmpretrain do."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class WrittenNorm(nn.Module):
    """[N, C, H, W] -> the same, from means and products, in which no counter sees a norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        centred = x - x.mean(1, keepdim=True)
        normed = centred / torch.sqrt(centred.square().mean(1, keepdim=True) + 1e-6)
        return self.weight[:, None, None] * normed + self.bias[:, None, None]
