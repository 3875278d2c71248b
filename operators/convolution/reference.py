"""Convolution in plain PyTorch: the meaning every implementation is held to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from opbench.api import Unsupported, Window, check_params, param, windows


@dataclass(frozen=True)
class Params:
    """What a convolution layer is built from."""

    out_channels: int | None = param(None, help="output channels; as many as the input when none", at_least=1)
    kernel_size: int | str = param(3, help="taps per side, or height x width as in '3x5'", at_least=1)
    stride: int = param(1, help="step between output pixels", at_least=1)
    padding: int | Literal["half", "same"] = param(
        "half",
        help="zeros around the image; 'half' is dilation * (kernel_size - 1) // 2, 'same' keeps the size at stride 1",
        at_least=0,
    )
    dilation: int = param(1, help="step between taps", at_least=1)
    groups: int = param(1, help="channel groups that do not see each other", at_least=1)
    bias: bool = param(False, help="one learnable offset per output channel")

    def __post_init__(self) -> None:
        check_params(self)
        sides = str(self.kernel_size).split("x")
        if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
            raise ValueError(f"kernel_size must be an integer ≥ 1 or two joined by 'x', got {self.kernel_size!r}")
        if self.padding == "same" and self.stride != 1:
            raise ValueError(f"padding 'same' exists for stride 1 only, got stride {self.stride}")

    @property
    def height(self) -> int:
        """Taps along a column."""
        return int(str(self.kernel_size).split("x")[0])

    @property
    def width(self) -> int:
        """Taps along a row."""
        return int(str(self.kernel_size).split("x")[-1])

    @property
    def windows(self) -> tuple[Window, Window]:
        """The vertical and the horizontal window."""
        return self._window(self.height), self._window(self.width)

    def outputs(self, in_channels: int) -> int:
        """Output channels for a layer of so many inputs; Unsupported when the groups do not divide them."""
        outputs = in_channels if self.out_channels is None else self.out_channels
        if in_channels % self.groups or outputs % self.groups:
            raise Unsupported(f"{self.groups} groups do not divide {in_channels} input and {outputs} output channels")
        return outputs

    def _window(self, kernel: int) -> Window:
        if isinstance(self.padding, int):
            return Window(kernel, self.stride, self.padding, self.dilation)
        half = Window.half(kernel, self.stride, self.dilation)
        if self.padding == "half":
            return half
        # An even span has no middle: the odd zero goes after the image, as PyTorch and TensorFlow place it.
        return replace(half, padding_end=half.span - 1 - half.padding)


def convolution(p: Params, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """[N, C, H, W], [O, C/g, kh, kw], [O] -> [N, O, Ho, Wo]; cross-correlation over zero-padded windows."""
    seen = windows(x, *p.windows).unflatten(1, (p.groups, -1))
    filters = weight.unflatten(0, (p.groups, -1))
    y = torch.einsum("ngcabyx,gocab->ngoyx", seen, filters).flatten(1, 2)
    return y if bias is None else y + bias[:, None, None]


def native(p: Params, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same through PyTorch's own kernel."""
    vertical, horizontal = p.windows
    right, below = (window.paddings[1] - window.padding for window in (horizontal, vertical))
    if right or below:
        # PyTorch's kernel pads either side alike: the odd zero of 'same' goes in first, as its own 'same' does.
        x = F.pad(x, (0, right, 0, below))
    return F.conv2d(x, weight, bias, p.stride, (vertical.padding, horizontal.padding), p.dilation, p.groups)


def channels_last(p: Params, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same with channels innermost in memory; the output stays so.

    Like `native` it is strict in float32 only where TF32 is off, as opbench turns it off in what it measures.
    """
    x, weight = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, weight))
    return native(p, x, weight, bias)
