"""DRConv in plain PyTorch: every pixel is filtered by one of m filter sets, the one its guide ranks first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from opbench.api import Unsupported, Window, check_params, param, windows


@dataclass(frozen=True)
class Params:
    """What a DRConv layer is built from."""

    out_channels: int | None = param(None, help="output channels; as many as the input when none", at_least=1)
    kernel_size: int = param(3, help="taps per side", at_least=1)
    stride: int = param(1, help="step between output pixels", at_least=1)
    padding: int | Literal["half"] = param(
        "half", help="zeros around the image; 'half' is dilation * (kernel_size - 1) // 2", at_least=0
    )
    dilation: int = param(1, help="step between taps", at_least=1)
    groups: int = param(1, help="channel groups that do not see each other", at_least=1)
    bias: bool = param(False, help="one learnable offset per output channel, the same in all regions")
    regions: int = param(8, help="filter sets per image, the paper's m", at_least=1)
    generator: Literal["paper", "basis"] = param(
        "paper", help="how filters and guide are made: as the paper writes, or as the official code does"
    )
    bases: int = param(8, help="learned filter sets that the 'basis' generator mixes", at_least=1)

    def __post_init__(self) -> None:
        check_params(self)

    @property
    def window(self) -> Window:
        """The window along either axis."""
        if self.padding == "half":
            return Window.half(self.kernel_size, self.stride, self.dilation)
        return Window(self.kernel_size, self.stride, self.padding, self.dilation)

    def filter_shape(self, in_channels: int) -> tuple[int, int, int, int]:
        """Extents [O, C/g, k, k] of one region's filters; Unsupported when the groups do not divide the channels."""
        outputs = in_channels if self.out_channels is None else self.out_channels
        if in_channels % self.groups or outputs % self.groups:
            raise Unsupported(f"{self.groups} groups do not divide {in_channels} input and {outputs} output channels")
        return outputs, in_channels // self.groups, self.kernel_size, self.kernel_size


def drconv(p: Params, x: Tensor, filters: Tensor, guide: Tensor) -> Tensor:
    """[N, C, H, W], [N, m, O, C/g, k, k], [N, m, Ho, Wo] -> [N, O, Ho, Wo].

    The guide's gradient is a surrogate: that of its softmax, where the forward takes its argmax.
    """
    # That gradient subtracts long sums from each other: it would magnify responses rounded to 16 bits.
    wide = torch.promote_types(x.dtype, torch.float32)
    seen = windows(x.to(wide), p.window, p.window).unflatten(1, (p.groups, -1)).flatten(2, 4).flatten(3)
    per_region = filters.to(wide).unflatten(2, (p.groups, -1)).flatten(4)
    y = torch.zeros((), dtype=wide, device=x.device)
    # One region at a time: only the guide's gradient needs the responses of all regions at once.
    for region, share in zip(per_region.unbind(1), shares(guide.to(wide)).flatten(2).unbind(1), strict=True):
        y = y + share[:, None, None] * (region @ seen)
    return y.reshape(len(x), filters.shape[2], *guide.shape[2:]).to(x.dtype)


def shares(guide: Tensor) -> Tensor:
    """[N, m, Ho, Wo] -> the same: 1 for each pixel's region and 0 for the others, with the gradient of a softmax."""
    numbers = torch.arange(guide.shape[1], device=guide.device)[:, None, None]
    # argmax gives the first of equal maxima, as an integer: floats would soon be too coarse to tell regions apart.
    chosen = guide.argmax(1, keepdim=True) == numbers
    soft = guide.softmax(1)
    return chosen + (soft - soft.detach())
