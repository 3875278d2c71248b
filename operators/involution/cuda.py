"""Involution by our kernels: which is launched when."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from opbench.api import Macs, Nchw, Unsupported, Work
from opbench.cuda import CudaCore, Launch, kernel

from . import banded, blocked, general, planar
from .reference import Params

MAX_OFFSET = 2**31 - 1


@kernel
def aggregate(p: Params, dtype: torch.dtype, x: torch.Size, weight: torch.Size, y: torch.Size) -> Launch:
    """[N, C, H, W], [N, G, k, k, Ho, Wo] -> [N, C, Ho, Wo]."""
    _require_offsets(p, x, weight)
    if planar.covers(p, dtype, *weight[4:]):
        return planar.forward(p, dtype, weight)
    if banded.covers(p, dtype):
        return banded.forward(p, dtype, x, weight)
    if blocked.covers(p):
        return blocked.forward(p, dtype, x, weight)
    return general.forward(p, dtype, x, weight)


@kernel
def input_gradient(
    p: Params, dtype: torch.dtype, gradient: torch.Size, weight: torch.Size, grad_x: torch.Size
) -> Launch:
    """[N, C, Ho, Wo], [N, G, k, k, Ho, Wo] -> [N, C, H, W]."""
    _require_offsets(p, grad_x, weight)
    if planar.covers(p, dtype, *weight[4:]):
        return planar.input_gradient(p, dtype, weight)
    if banded.covers(p, dtype):
        return banded.input_gradient(p, dtype, grad_x, weight)
    if blocked.covers(p):
        return blocked.input_gradient(p, dtype, grad_x, weight)
    return general.input_gradient(p, dtype, grad_x, weight)


@kernel
def weight_gradient(
    p: Params, dtype: torch.dtype, gradient: torch.Size, x: torch.Size, grad_weight: torch.Size
) -> Launch:
    """[N, C, Ho, Wo], [N, C, H, W] -> [N, G, k, k, Ho, Wo]."""
    _require_offsets(p, x, grad_weight)
    if planar.covers(p, dtype, *grad_weight[4:]):
        return planar.weight_gradient(p, dtype, grad_weight)
    if banded.covers(p, dtype):
        return banded.weight_gradient(p, dtype, x, grad_weight)
    if blocked.covers_weight_gradient(p):
        return blocked.weight_gradient(p, dtype, x, grad_weight)
    return general.weight_gradient(p, dtype, x, grad_weight)


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
    cases=(
        (Params(kernel_size=3, group_channels=9), Nchw(1, 18, 5, 6)),
        (Params(kernel_size=5, group_channels=20), Nchw(1, 40, 5, 8)),
        (Params(kernel_size=5, stride=2, group_channels=12), Nchw(1, 24, 10, 16)),
        (Params(), Nchw(1, 32, 9, 56)),
        (Params(), Nchw(1, 16, 9, 28)),
        (Params(), Nchw(1, 32, 14, 14)),
        (Params(), Nchw(3, 16, 7, 7)),
        (Params(), Nchw(1, 32, 17, 6)),
        (Params(), Nchw(1, 16, 15, 13)),
        (Params(), Nchw(1, 16, 1, 3)),
        (Params(stride=2), Nchw(1, 16, 9, 64)),
        (Params(stride=2), Nchw(1, 16, 14, 14)),
        (Params(kernel_size=3), Nchw(1, 16, 4, 112)),
        (Params(kernel_size=3), Nchw(1, 16, 3, 60)),
        (Params(kernel_size=3, stride=2), Nchw(1, 16, 5, 16)),
        (Params(kernel_size=3), Nchw(1, 32, 6, 14)),
        (Params(kernel_size=5), Nchw(1, 48, 7, 7)),
        (Params(kernel_size=5), Nchw(1, 16, 5, 16)),
        (Params(kernel_size=9, stride=2), Nchw(1, 16, 5, 33)),
    ),
    layers=(
        (Params(), Nchw(32, 64, 56, 56)),
        (Params(), Nchw(32, 128, 28, 28)),
        (Params(), Nchw(32, 256, 14, 14)),
        (Params(), Nchw(32, 512, 7, 7)),
        (Params(stride=2), Nchw(32, 128, 56, 56)),
        (Params(kernel_size=3), Nchw(32, 32, 112, 112)),
    ),
)
