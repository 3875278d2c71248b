"""The involution layer: every output pixel's kernels are generated from the input at that pixel."""

from __future__ import annotations

from torch import Tensor, nn

from opbench.api import Core

from .reference import Params


class Involution(nn.Module):
    """[N, C, H, W] -> [N, C, ceil(H / stride), ceil(W / stride)], initialised as in RedNet."""

    def __init__(self, in_channels: int, params: Params, core: Core) -> None:
        super().__init__()
        self.params, self.core = params, core
        groups, hidden = params.groups(in_channels), params.hidden(in_channels)
        self.kernel_shape = groups, params.kernel_size, params.kernel_size
        # Rounding up keeps a last, partial window, so that odd sizes have a kernel for every output pixel.
        pool = [nn.AvgPool2d(params.stride, ceil_mode=True)] if params.stride > 1 else []
        self.generator = nn.Sequential(
            *pool,
            nn.Conv2d(in_channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, params.kernel_size**2 * groups, 1),
        )
        for module in self.generator:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, Ho, Wo]."""
        return self.core(self.params, x, self.generator(x).unflatten(1, self.kernel_shape))
