"""The LS convolution layer: kernels perceived through a large window, applied to a small one."""

from __future__ import annotations

from torch import Tensor, nn

from opbench.api import Core

from .reference import Params


class LsConvolution(nn.Module):
    """[N, C, H, W] -> [N, C, H, W], with its own norm and residual; initialised as PyTorch's modules are."""

    def __init__(self, in_channels: int, params: Params, core: Core) -> None:
        super().__init__()
        self.params, self.core = params, core
        groups, hidden = params.groups(in_channels), params.hidden(in_channels)
        large, small = params.large_window, params.small_kernel_size
        self.kernel_shape = groups, small, small
        self.perception = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, large.kernel, padding=large.padding, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.Conv2d(hidden, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, small**2 * groups, 1),
            nn.GroupNorm(groups, small**2 * groups),
        )
        self.norm = nn.BatchNorm2d(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        weight = self.perception(x).unflatten(1, self.kernel_shape)
        y: Tensor = self.norm(self.core(self.params, x, weight))
        return y + x
