"""Dynamic convolution by our kernels, forward and every gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from opbench.api import Macs, Nchw, Unsupported, Work
from opbench.cuda import CudaCore, tiles

from . import narrow, products
from .reference import Params

MOST_SHARED = 96 << 10
"""Bytes of shared memory for the mixed filter of a group of few channels: what every device here has."""


def forward(p: Params, x: Tensor, weight: Tensor, *bias_and_attention: Tensor) -> Tensor:
    """[N, C, H, W], [K, O, C/g, k, k], perhaps [K, O], then [N, K] -> [N, O, Ho, Wo]."""
    bias, attention = _parted(bias_and_attention)
    y = x.new_empty(_output(p, x.shape, weight.shape, None if bias is None else bias.shape, attention.shape))
    kernels = narrow if narrow.is_narrow(p, weight.shape) else products
    kernels.convolve(p, x, weight, bias, attention, y)
    return y


def backward(
    p: Params, wanted: Sequence[bool], gradient: Tensor, x: Tensor, weight: Tensor, *bias_and_attention: Tensor
) -> list[Tensor | None]:
    """Gradients of x, weight, where there is one bias, and attention."""
    bias, attention = _parted(bias_and_attention)
    kernels = narrow if narrow.is_narrow(p, weight.shape) else products
    wants_bias, wants_attention = bias is not None and wanted[2], wanted[-1]
    grad_x = grad_weight = grad_bias = grad_attention = sums = None
    if wanted[0]:
        grad_x = torch.empty_like(x)
        kernels.convolve_back(p, gradient, weight, attention, grad_x)
    if bias is not None and (wants_bias or wants_attention):
        sums = torch.empty(gradient.shape[:2], dtype=torch.float32, device=x.device)
        narrow.sum_planes(p, gradient, sums)
        if wants_bias:
            grad_bias = torch.empty_like(bias)
            narrow.bias_back(p, attention, sums, grad_bias)
    if wanted[1] or wants_attention:
        result = parts = None
        splits = kernels.count_splits(p, weight.shape, x.shape[0])
        if wanted[1]:
            grad_weight = result = torch.empty_like(weight)
            if kernels is narrow or not products.is_whole(p, weight.shape):
                result = torch.empty(splits, *weight.shape, dtype=torch.float32, device=x.device)
        if wants_attention:
            number = kernels.count_tiles(p, weight.shape)
            parts = torch.empty(*attention.shape, number, dtype=torch.float32, device=x.device)
        kernels.weigh(p, gradient, x, weight, attention, result, parts)
        if grad_weight is not None and result is not grad_weight:
            narrow.add_up(p, grad_weight, result)
        if wants_attention:
            grad_attention = torch.empty_like(attention)
            narrow.attention_back(p, grad_attention, bias, parts, sums)
    return [grad_x, grad_weight, *([] if bias is None else [grad_bias]), grad_attention]


def _parted(bias_and_attention: Sequence[Tensor]) -> tuple[Tensor | None, Tensor]:
    *bias, attention = bias_and_attention
    return bias[0] if bias else None, attention


@tiles.remembered
def _output(p: Params, x: torch.Size, weight: torch.Size, bias: torch.Size | None, attention: torch.Size) -> torch.Size:
    """The output's shape; Unsupported where these kernels do not go."""
    rows, columns = p.window.outputs(x[2]), p.window.outputs(x[3])
    if rows * columns == 0:
        raise Unsupported(f"a {p.window.span}x{p.window.span} window does not fit the padded input")
    wanted = (p.experts, weight[1], x[1] // p.groups, p.kernel_size, p.kernel_size)
    if tuple(weight) != wanted or x[1] % p.groups or weight[1] % p.groups:
        raise Unsupported(f"a weight {list(weight)} does not fit an input {list(x)} and {p}")
    if tuple(attention) != (x[0], p.experts) or (bias is not None and tuple(bias) != wanted[:2]):
        raise Unsupported(f"attention or bias do not fit an input {list(x)} and a weight {list(weight)}")
    y = torch.Size((x[0], weight[1], rows, columns))
    tiles.require_short(*x[2:], rows, columns, p.window.span)
    tiles.require(
        values_of_one_image=max(x[1] * (x[2] + p.stride) * (x[3] + p.stride), y[1:].numel()),
        weights=weight.numel(),
        planes=max(x[0] * x[1], y[0] * y[1]),
    )
    shared = 4 * max(weight[1] // p.groups, weight[2]) * p.kernel_size**2
    if narrow.is_narrow(p, weight) and shared > MOST_SHARED:
        raise Unsupported(f"a mixed filter of {shared} bytes exceeds {MOST_SHARED} of shared memory")
    return y


def _work(p: Params, x: torch.Size, weight: torch.Size, *bias_and_attention: torch.Size) -> Work:
    taps = Macs.of_windows(p.window, p.window, x[2], x[3])
    learned = weight.numel() + sum(bias.numel() for bias in bias_and_attention[:-1])
    return Work.bilinear(x[0] * (weight[1] * weight[2] * taps + Macs.exact(learned)))


CUDA = CudaCore(
    name="dynamic_convolution",
    params=Params,
    forward=forward,
    backward=backward,
    work=_work,
    cases=(
        (
            Params(out_channels=72, bias=True),
            Nchw(3, 16, 6, 8),
        ),  # four images of a block; in float32 vectors of filters
        (Params(out_channels=32, experts=3), Nchw(1, 16, 14, 32)),  # two bands of an image; experts counted as they run
        (Params(stride=2, out_channels=72), Nchw(3, 16, 6, 8)),  # 16-byte loads of filters; two tiles of outputs
        (Params(kernel_size=1, padding=0, out_channels=70), Nchw(5, 72, 9, 16)),  # vectors of pixels; images in twos
        (Params(kernel_size=1, padding=0, out_channels=16, experts=6), Nchw(2, 8, 14, 14)),  # of 8 bytes in 16 bits
        (Params(out_channels=16, kernel_size=3, stride=3, dilation=2, groups=2), Nchw(2, 16, 11, 10)),
        (
            Params(groups=24, out_channels=48, bias=True, experts=33),
            Nchw(2, 24, 9, 7),
        ),  # narrow, more experts than lanes
        (Params(kernel_size=1, padding=0, experts=1053), Nchw(2, 6, 1, 3)),  # so many that no block shares its images
        (Params(kernel_size=17, out_channels=5), Nchw(1, 4, 3, 4)),  # windows too large for the quicker way
    ),
    layers=(
        (Params(), Nchw(32, 64, 56, 56)),
        (Params(), Nchw(32, 128, 28, 28)),
        (Params(), Nchw(32, 256, 14, 14)),
        (Params(), Nchw(32, 512, 7, 7)),
        (Params(stride=2, out_channels=256), Nchw(32, 128, 28, 28)),
        (Params(kernel_size=1, padding=0, out_channels=144), Nchw(32, 24, 56, 56)),
        (Params(kernel_size=1, padding=0, out_channels=960), Nchw(32, 160, 7, 7)),
        (Params(groups=144), Nchw(32, 144, 56, 56)),
        (Params(groups=960), Nchw(32, 960, 7, 7)),
    ),
)
