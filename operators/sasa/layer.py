"""The stand-alone self-attention layer: projections and position embeddings around the core."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from opbench.api import Core

from .reference import Params


class LocalAttention(nn.Module):
    """[N, C, H, W] -> [N, O, ceil(H/s), ceil(W/s)]."""

    def __init__(self, in_channels: int, params: Params, core: Core) -> None:
        super().__init__()
        self.params, self.core = params, core
        outputs = params.outputs(in_channels)
        groups = params.heads if params.projection == "grouped" else 1
        self.query = nn.Conv2d(in_channels, outputs, 1, groups=groups, bias=False)
        self.key = nn.Conv2d(in_channels, outputs, 1, groups=groups, bias=False)
        self.value = nn.Conv2d(in_channels, outputs, 1, groups=groups, bias=False)
        self.rel_h = nn.Parameter(torch.randn(params.embedding_shape(in_channels)))
        self.rel_w = nn.Parameter(torch.randn(params.embedding_shape(in_channels)))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, O, ceil(H/s), ceil(W/s)]; attention sees every pixel, pooling comes after."""
        heads = (self.params.heads, -1)
        q, k, v = (project(x).unflatten(1, heads) for project in (self.query, self.key, self.value))
        y = self.core(self.params, q, k, v, self.rel_h, self.rel_w).flatten(1, 2)
        # At an odd extent the last row or column is averaged over the pixels that exist.
        return F.avg_pool2d(y, 2, ceil_mode=True) if self.params.stride == 2 else y
