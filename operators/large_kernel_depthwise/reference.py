"""Depthwise convolution with a large kernel in plain PyTorch: the meaning every implementation is held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from opbench.api import Unsupported, Window, check_params, param, taps

# UniRepLKNet's parallel kernels by the side of the large one, as (taps per side, dilation).
_DILATED = {
    5: ((3, 1), (3, 2)),
    7: ((5, 1), (3, 2), (3, 3)),
    9: ((5, 1), (5, 2), (3, 3), (3, 4)),
    11: ((5, 1), (5, 2), (3, 3), (3, 4), (3, 5)),
    13: ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    15: ((5, 1), (7, 2), (3, 3), (3, 5), (3, 7)),
    17: ((5, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
}


@dataclass(frozen=True)
class Params:
    """What a large-kernel depthwise layer is built from."""

    kernel_size: int = param(13, help="taps per side", at_least=1, odd=True)
    stride: int = param(1, help="step between output pixels", at_least=1)
    dilation: int = param(1, help="step between taps", at_least=1)
    bias: bool = param(True, help="one learnable offset per channel; branches bring it with their batch norms")
    branches: Literal["none", "replknet", "unireplknet"] = param(
        "none", help="kernels trained beside the large one, each with a batch norm; merged into it for inference"
    )
    small_kernel: int | None = param(
        5, help="taps per side of replknet's second kernel; none where there is no second", at_least=1, odd=True
    )

    def __post_init__(self) -> None:
        check_params(self)
        if self.branches == "none":
            return
        if self.dilation != 1:
            raise ValueError(f"branches {self.branches!r} exist for dilation 1 only, got dilation {self.dilation}")
        if not self.bias:
            raise ValueError(f"branches {self.branches!r} end in batch norms, which have an offset: bias must be true")
        if self.branches == "unireplknet" and self.kernel_size not in _DILATED:
            legal = ", ".join(map(str, _DILATED))
            raise ValueError(f"branches 'unireplknet' exist for kernel_size {legal}, got {self.kernel_size}")
        if self.branches == "replknet" and (self.small_kernel or 1) > self.kernel_size:
            raise ValueError(f"small_kernel must not exceed kernel_size {self.kernel_size}, got {self.small_kernel}")

    @property
    def window(self) -> Window:
        """The large window, the same along both axes."""
        return Window.half(self.kernel_size, self.stride, self.dilation)

    @property
    def core_bias(self) -> bool:
        """Whether the core adds the offset: where no batch norm does."""
        return self.bias and self.branches == "none"

    @property
    def branch_windows(self) -> tuple[Window, ...]:
        """The windows beside the large one, along either axis; every one has the centre and the stride of it."""
        sides: tuple[tuple[int, int], ...] = ()
        if self.branches == "unireplknet":
            sides = _DILATED[self.kernel_size]
        elif self.branches == "replknet" and self.small_kernel is not None:
            sides = ((self.small_kernel, 1),)
        return tuple(Window.half(side, self.stride, dilation) for side, dilation in sides)


def large_kernel_depthwise(p: Params, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """[N, C, H, W], [C, 1, k, k], [C] -> [N, C, Ho, Wo]; one filter per channel, zeros outside the image."""
    wide = torch.promote_types(x.dtype, torch.float32)
    filters = weight.to(wide).flatten(1)[:, :, None, None].unbind(1)
    y = x.new_zeros((*x.shape[:2], *(p.window.outputs(extent) for extent in x.shape[2:])), dtype=wide)
    # In place and in at least float32: a thousand sums dropped one after another would leave a CPU's heap in pieces.
    for tap, seen in zip(filters, taps(x.to(wide), p.window, p.window), strict=True):
        y.addcmul_(tap, seen)
    return (y if bias is None else y + bias.to(wide)[:, None, None]).to(x.dtype)


def native(p: Params, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same through PyTorch's own kernel; Unsupported in 16 bits on a CPU."""
    if x.device.type == "cpu" and x.dtype in (torch.float16, torch.bfloat16):
        raise Unsupported("on a CPU without matching instructions PyTorch sums the input's gradient in 16 bits")
    return F.conv2d(x, weight, bias, p.stride, p.window.padding, p.dilation, groups=x.shape[1])


def channels_last(p: Params, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same with channels innermost in memory, which on a GPU takes cuDNN's kernels; the output stays so."""
    return native(p, x.contiguous(memory_format=torch.channels_last), weight, bias)
