"""The dynamic convolution layer: K filter sets, and the attention that mixes them for each image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from opbench.api import Core

from .reference import Params


class DynamicConvolution(nn.Module):
    """[N, C, H, W] -> [N, O, Ho, Wo]; each expert is initialised as torch.nn.Conv2d is.

    The temperature is a buffer, so a checkpoint keeps it. Training lowers it to 1 over the first ten epochs:

        for module in model.modules():
            if isinstance(module, DynamicConvolution):
                module.anneal(epoch / 10)
    """

    temperature: Tensor

    def __init__(self, in_channels: int, params: Params, core: Core) -> None:
        super().__init__()
        self.params, self.core = params, core
        shape = params.weight_shape(in_channels)
        hidden = hidden_width(in_channels)
        self.attend = nn.Sequential(nn.Linear(in_channels, hidden), nn.ReLU(), nn.Linear(hidden, params.experts))
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(shape[:2])) if params.bias else None
        self.register_buffer("temperature", torch.tensor(float(params.temperature)))
        bound = self.weight[0, 0].numel() ** -0.5
        for parameter in (self.weight, self.bias):
            if parameter is not None:
                nn.init.uniform_(parameter, -bound, bound)

    def anneal(self, progress: float) -> None:
        """Set the temperature: the starting one at progress 0, 1 from progress 1 on, on a line in between."""
        if not progress >= 0:
            raise ValueError(f"progress must be a number ≥ 0, got {progress!r}")
        start = self.params.temperature
        self.temperature.fill_(start + (1 - start) * min(progress, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, O, Ho, Wo]."""
        logits: Tensor = self.attend(x.mean((2, 3)))
        attention = (logits / self.temperature).softmax(1)
        bias = () if self.bias is None else (self.bias,)
        return self.core(self.params, x, self.weight, *bias, attention)


def hidden_width(in_channels: int) -> int:
    """Width of the attention between its two linear maps: a quarter of the input channels, and never none."""
    return max(1, in_channels // 4)
