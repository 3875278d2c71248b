"""The layer around the core: the plain one of inference, and those with parallel kernels that are trained."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from opbench.api import Core, Window

from .reference import Params


class LargeKernelDepthwise(nn.Module):
    """[N, C, H, W] -> [N, C, Ho, Wo]; initialised as torch.nn.Conv2d is.

    With branches, the sum of the batch-normed core and of the small kernels, each with its own batch norm.
    """

    def __init__(self, in_channels: int, params: Params, core: Core) -> None:
        super().__init__()
        self.params, self.core = params, core
        self.weight = nn.Parameter(torch.empty(in_channels, 1, params.kernel_size, params.kernel_size))
        self.bias = nn.Parameter(torch.empty(in_channels)) if params.core_bias else None
        self.norm = None if params.branches == "none" else nn.BatchNorm2d(in_channels)
        self.branches = nn.ModuleList(Branch(in_channels, window) for window in params.branch_windows)
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            nn.init.uniform_(self.bias, -1 / params.kernel_size, 1 / params.kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, Ho, Wo]."""
        bias = () if self.bias is None else (self.bias,)
        y = self.core(self.params, x, self.weight, *bias)
        if self.norm is not None:
            y = self.norm(y)
        for branch in self.branches:
            y = y + branch(x)
        return y

    @torch.no_grad()
    def merge(self) -> LargeKernelDepthwise:
        """Return a layer without branches that computes what this one does in evaluation mode, with the same core."""
        merged = LargeKernelDepthwise(len(self.weight), replace(self.params, branches="none"), self.core)
        merged.to(self.weight)
        if self.norm is None or merged.bias is None:
            merged.load_state_dict(self.state_dict())
            return merged
        # Summed in float64, so that each merged value is rounded once, whatever the layer's dtype.
        kernel = torch.zeros_like(self.weight, dtype=torch.float64)
        offset = torch.zeros_like(merged.bias, dtype=torch.float64)
        branches: Iterable[Any] = self.branches
        parts: list[Any] = [
            (self.weight, self.norm),
            *((branch.convolution.weight, branch.norm) for branch in branches),
        ]
        for (weight, norm), window in zip(parts, (self.params.window, *self.params.branch_windows), strict=True):
            gain = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
            # Every kernel is odd and lies in the middle of the large one.
            first = (self.params.kernel_size - window.span) // 2
            taps = slice(first, first + window.span, window.dilation)
            kernel[:, :, taps, taps] += gain[:, None, None, None] * weight
            offset += norm.bias - gain * norm.running_mean
        merged.weight.copy_(kernel)
        merged.bias.copy_(offset)
        return merged


class Branch(nn.Module):
    """[N, C, H, W] -> [N, C, Ho, Wo]; a small depthwise kernel, perhaps dilated, and its batch norm."""

    def __init__(self, channels: int, window: Window) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            channels,
            channels,
            window.kernel,
            window.stride,
            window.padding,
            window.dilation,
            groups=channels,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, Ho, Wo]."""
        normed: Tensor = self.norm(self.convolution(x))
        return normed
