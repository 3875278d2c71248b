"""Convolution by our kernels, forward and every gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from opbench.api import Macs, Nchw, Work
from opbench.cuda import CudaCore, tiles

from . import narrow, products
from .reference import Params


def forward(p: Params, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """[N, C, H, W], [O, C/g, kh, kw], [O] -> [N, O, Ho, Wo]."""
    y = x.new_empty(_output(p, x.shape, weight.shape))
    kernels = narrow if narrow.is_narrow(p, weight.shape) else products
    kernels.convolve(p, x, weight, bias, y)
    return y


def backward(
    p: Params, wanted: Sequence[bool], gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> list[Tensor | None]:
    """Gradients of x, weight and, where there is one, bias."""
    is_narrow = narrow.is_narrow(p, weight.shape)
    kernels = narrow if is_narrow else products
    results: list[Tensor | None] = [None] * len(wanted)
    if wanted[0]:
        results[0] = grad_x = torch.empty_like(x)
        if is_narrow:
            narrow.convolve_back(p, gradient, weight, grad_x)
        elif p.stride > 1:
            products.convolve_back_strided(p, gradient, weight, grad_x)
        else:
            swapped = weight.new_empty(x.shape[1], weight.shape[0] // p.groups, *weight.shape[2:])
            narrow.swap_channels(p, weight, swapped)
            products.convolve_back(p, gradient, swapped, None, grad_x)
    if wanted[1]:
        if is_narrow:
            splits = narrow.splits(weight.numel(), x.shape[0])
        else:
            splits = products.splits(p, x.dtype, weight.shape, gradient.shape)
        partials = torch.empty(splits, *weight.shape, dtype=torch.float32, device=x.device)
        kernels.weigh(p, gradient, x, partials)
        results[1] = _added_up(p, weight, partials)
    if bias is not None and wanted[2]:
        splits = narrow.splits(bias.numel(), x.shape[0])
        partials = torch.empty(splits, *bias.shape, dtype=torch.float32, device=x.device)
        narrow.sum_channels(p, gradient, partials)
        results[2] = _added_up(p, bias, partials)
    return results


def _added_up(p: Params, like: Tensor, partials: Tensor) -> Tensor:
    result = torch.empty_like(like)
    narrow.add_up(p, result, partials)
    return result


@tiles.remembered
def _output(p: Params, x: torch.Size, weight: torch.Size) -> torch.Size:
    """The output's shape; Unsupported where these kernels do not go."""
    vertical, horizontal = p.windows
    y = torch.Size((x[0], weight[0], vertical.outputs(x[2]), horizontal.outputs(x[3])))
    products.require_sizes(p, x, weight, y)
    return y


def _work(p: Params, x: torch.Size, weight: torch.Size, bias: torch.Size | None = None) -> Work:
    return Work.bilinear(x[0] * weight[0] * weight[1] * Macs.of_windows(*p.windows, x[2], x[3]))


CUDA = CudaCore(
    name="convolution",
    params=Params,
    forward=forward,
    backward=backward,
    work=_work,
    cases=(
        (Params(out_channels=72), Nchw(3, 16, 6, 8)),  # 16-byte loads of filters; tiles of 64 x 64, not whole
        (Params(kernel_size=1, padding=0, out_channels=70, bias=True), Nchw(2, 40, 4, 8)),  # vectors of pixels
        (Params(kernel_size=1, padding=0, out_channels=16), Nchw(3, 24, 14, 14)),  # of 8 bytes in 16 bits
        (Params(kernel_size=1, padding=0, out_channels=9), Nchw(2, 8, 7, 7)),  # of none
        (Params(out_channels=16, kernel_size=3, stride=3, dilation=2), Nchw(2, 8, 11, 10)),
        (Params(kernel_size="17x2", padding=7), Nchw(1, 4, 6, 5)),  # more taps than a mask has bits
        (Params(kernel_size=16, padding=8, stride=2, dilation=2), Nchw(1, 3, 17, 15)),
        (Params(out_channels=6), Nchw(2, 5, 4, 24)),  # eight pixels at once and those beside them
        (Params(kernel_size="2x3", padding=1, groups=2), Nchw(3, 12, 3, 8)),
        (Params(), Nchw(2, 4, 20, 20)),  # several shares of a weight gradient
        (Params(groups=24, out_channels=48), Nchw(2, 24, 9, 7)),
    ),
    layers=(
        (Params(), Nchw(32, 64, 56, 56)),
        (Params(), Nchw(32, 256, 14, 14)),
        (Params(), Nchw(32, 512, 7, 7)),
        (Params(stride=2), Nchw(32, 128, 56, 56)),
        (Params(kernel_size=1, padding=0, out_channels=256), Nchw(32, 64, 56, 56)),
        (Params(kernel_size=1, padding=0, out_channels=256), Nchw(32, 1024, 14, 14)),
        (Params(kernel_size=7, stride=2, out_channels=64), Nchw(32, 3, 224, 224)),
        (Params(groups=32), Nchw(32, 128, 56, 56)),
        (Params(groups=144, stride=2), Nchw(32, 144, 56, 56)),
    ),
)
