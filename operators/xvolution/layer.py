"""The X-volution layer: an attention branch and a convolution branch, each with its own norm, added."""

from __future__ import annotations

from torch import Tensor, nn

from opbench.api import Core

from .reference import Params


class XVolution(nn.Module):
    """[N, C, H, W] -> [N, C, H, W]."""

    def __init__(self, in_channels: int, params: Params, core: Core) -> None:
        super().__init__()
        self.params, self.core = params, core
        names = ["query", "key"]
        self.mix: nn.Module = nn.Identity()
        if params.form == "B":
            params.head_width(in_channels)  # refused when the layer is built, not when it first runs
            names.append("value")
        else:
            self.mix = nn.Conv2d(params.directions * in_channels, in_channels, 1, bias=False)
        self.projections = nn.ModuleDict({name: nn.Conv2d(in_channels, in_channels, 1, bias=False) for name in names})
        self.attention_norm = nn.BatchNorm2d(in_channels)

        groups = in_channels if params.convolution == "depthwise" else 1
        self.convolution = nn.Conv2d(
            in_channels, in_channels, params.kernel_size, padding=params.window.padding, groups=groups
        )
        self.convolution_norm = nn.BatchNorm2d(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        projected = (project(x) for project in self.projections.values())
        attention: Tensor = self.attention_norm(self.mix(self.core(self.params, *projected)))
        convolution: Tensor = self.convolution_norm(self.convolution(x))
        return attention + convolution
