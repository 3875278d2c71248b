"""The convolution layer: a weight and perhaps a bias around the core."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from opbench.api import Core

from .reference import Params


class Convolution(nn.Module):
    """[N, C, H, W] -> [N, O, Ho, Wo], initialised as torch.nn.Conv2d is."""

    def __init__(self, in_channels: int, params: Params, core: Core) -> None:
        super().__init__()
        self.params, self.core = params, core
        outputs = params.outputs(in_channels)
        self.weight = nn.Parameter(torch.empty(outputs, in_channels // params.groups, params.height, params.width))
        self.bias = nn.Parameter(torch.empty(outputs)) if params.bias else None
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, O, Ho, Wo]."""
        bias = () if self.bias is None else (self.bias,)
        return self.core(self.params, x, self.weight, *bias)
