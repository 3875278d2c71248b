"""Involution by our kernels: which is launched when, and over what grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from opbench.api import Macs, Nchw, Unsupported, Work
from opbench.cuda import TYPE_NAMES, CudaCore, Launch, Operations, Source, ceil_div, kernel

from .reference import Params

SOURCE = Source.beside(__file__)

THREADS = 128
MAX_OFFSET = 2**31 - 1


@kernel
def aggregate(p: Params, dtype: torch.dtype, x: torch.Size, weight: torch.Size, y: torch.Size) -> Launch:
    """[N, C, H, W], [N, G, k, k, Ho, Wo] -> [N, C, Ho, Wo]."""
    return _any("aggregate_any", p, dtype, x, weight, weight[4] * weight[5], y.numel())


@kernel
def input_gradient(
    p: Params, dtype: torch.dtype, gradient: torch.Size, weight: torch.Size, grad_x: torch.Size
) -> Launch:
    """[N, C, Ho, Wo], [N, G, k, k, Ho, Wo] -> [N, C, H, W]."""
    return _any("aggregate_any_input_gradient", p, dtype, grad_x, weight, grad_x[2] * grad_x[3], grad_x.numel())


@kernel
def weight_gradient(
    p: Params, dtype: torch.dtype, gradient: torch.Size, x: torch.Size, grad_weight: torch.Size
) -> Launch:
    """[N, C, Ho, Wo], [N, C, H, W] -> [N, G, k, k, Ho, Wo]."""
    pixels = grad_weight[4] * grad_weight[5]
    return _any("aggregate_any_weight_gradient", p, dtype, x, grad_weight, pixels, gradient.numel())


def forward(p: Params, x: Tensor, weight: Tensor) -> Tensor:
    """[N, C, H, W], [N, G, k, k, Ho, Wo] -> [N, C, Ho, Wo]."""
    y = x.new_empty((*x.shape[:2], *weight.shape[4:]))
    aggregate(p, x, weight, y)
    return y


def backward(p: Params, wanted: Sequence[bool], gradient: Tensor, x: Tensor, weight: Tensor) -> list[Tensor | None]:
    """Gradients of x [N, C, H, W] and weight [N, G, k, k, Ho, Wo]."""
    grad_x = torch.empty_like(x) if wanted[0] else None
    grad_weight = torch.empty_like(weight) if wanted[1] else None
    if grad_x is not None:
        input_gradient(p, gradient, weight, grad_x)
    if grad_weight is not None:
        weight_gradient(p, gradient, x, grad_weight)
    return [grad_x, grad_weight]


def work(p: Params, x: torch.Size, weight: torch.Size) -> Work:
    """k^2 multiply-adds for each output, those on padding only in the dense count."""
    return Work.bilinear(x[0] * x[1] * Macs.of_windows(p.window, p.window, x[2], x[3]))


def _any(
    name: str, p: Params, dtype: torch.dtype, x: torch.Size, weight: torch.Size, pixels: int, outputs: int
) -> Launch:
    """One thread for each pixel of each group."""
    n, channels, height, width = x
    groups, k, out_height, out_width = weight[1], p.kernel_size, weight[4], weight[5]
    _require_offsets(p, x, weight)
    blocks = ceil_div(pixels, THREADS)
    members = channels // groups
    return SOURCE.launch(
        f"{name}<{TYPE_NAMES[dtype]}>",
        grid=(n * groups * blocks,),
        block=(THREADS,),
        scalars=(
            *(groups, members, members, 1, height, width, out_height, out_width),
            *(k, p.stride, p.window.padding, p.dilation, blocks),
        ),
        operations=Operations(outputs=outputs, multiply_adds=n * channels * k * k * pixels),
    )


def _require_offsets(p: Params, x: torch.Size, weight: torch.Size) -> None:
    for what, planes, plane in (("x", p.group_channels, x[2:]), ("weight", p.kernel_size**2, weight[4:])):
        if planes * plane[0] * plane[1] > MAX_OFFSET:
            raise Unsupported(
                f"a group of {what} has {planes} planes of {plane[0]}x{plane[1]}, "
                "and kernels count its elements in 31 bits"
            )


CUDA = CudaCore(
    name="involution",
    params=Params,
    forward=forward,
    backward=backward,
    work=work,
    cases=((Params(kernel_size=3, group_channels=9), Nchw(1, 18, 5, 6)),),
    layers=(
        (Params(), Nchw(32, 64, 56, 56)),
        (Params(), Nchw(32, 128, 28, 28)),
        (Params(), Nchw(32, 256, 14, 14)),
        (Params(), Nchw(32, 512, 7, 7)),
        (Params(stride=2), Nchw(32, 128, 56, 56)),
        (Params(kernel_size=3), Nchw(32, 32, 112, 112)),
    ),
)
