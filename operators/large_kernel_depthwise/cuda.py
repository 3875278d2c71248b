"""Large-kernel depthwise convolution by our kernels: which is launched when, and over what grid."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from opbench.api import Macs, Nchw, Unsupported, Work
from opbench.cuda import TYPE_NAMES, CudaCore, Launch, Operations, Source, ceil_div, kernel

from . import banded, blocked, short
from .reference import Params

SOURCE = Source.beside(__file__)

THREADS = 256
MAX_OFFSET = 2**31 - 1
MAX_SPLITS = 64
"""Partial sums of a weight gradient, at most."""
BLOCKS = 132 * 8
"""Blocks that keep a large device busy."""
MAX_PLANS = 4096
"""Shapes whose splits are remembered."""


class _Path(Protocol):
    """A module that plans fast kernels."""

    def convolve(self, p: Params, dtype: torch.dtype, x: torch.Size, *, turned: bool) -> Launch | None: ...

    def weight_parts(self, p: Params, dtype: torch.dtype, x: torch.Size, parts: torch.Size) -> Launch | None: ...

    def splits(self, p: Params, x: torch.Size) -> int: ...


@kernel
def convolve(
    p: Params, dtype: torch.dtype, x: torch.Size, weight: torch.Size, bias: torch.Size | None, y: torch.Size
) -> Launch | None:
    """[N, C, H, W], [C, 1, k, k], [C] -> [N, C, Ho, Wo]."""
    _require_offsets(x, y)
    path = _path(p, dtype)
    if path:
        return path.convolve(p, dtype, x, turned=False)
    return _gather("convolve", p, dtype, x, y, outputs=y)


@kernel
def input_gradient(
    p: Params, dtype: torch.dtype, gradient: torch.Size, weight: torch.Size, bias: None, grad_x: torch.Size
) -> Launch | None:
    """[N, C, Ho, Wo], [C, 1, k, k] -> [N, C, H, W]."""
    _require_offsets(grad_x, gradient)
    path = _path(p, dtype)
    if path:
        return path.convolve(p, dtype, gradient, turned=True)
    return _gather("convolve_back", p, dtype, grad_x, gradient, outputs=grad_x)


@kernel
def weight_parts(
    p: Params, dtype: torch.dtype, gradient: torch.Size, x: torch.Size, parts: torch.Size
) -> Launch | None:
    """[N, C, Ho, Wo], [N, C, H, W] -> [splits, C, k * k and the bias]."""
    _require_offsets(x, gradient)
    path = _path(p, dtype)
    if path:
        return path.weight_parts(p, dtype, x, parts)
    splits, channels, length = parts
    k = p.kernel_size
    return SOURCE.launch(
        f"weight_parts<{TYPE_NAMES[dtype]}>",
        grid=(channels * splits,),
        block=(THREADS,),
        shared_bytes=4 * THREADS,
        scalars=(
            *(x[0], channels, *x[2:], *gradient[2:]),
            *(k, p.stride, p.dilation, p.window.padding, splits, length - k * k),
        ),
        operations=Operations(outputs=gradient.numel(), multiply_adds=k * k * gradient.numel()),
    )


@kernel
def sum_parts(
    p: Params, dtype: torch.dtype, grad_weight: torch.Size, grad_bias: torch.Size | None, parts: torch.Size
) -> Launch:
    """[splits, C, k * k and the bias] -> [C, 1, k, k], [C]."""
    splits, channels, length = parts
    return SOURCE.launch(
        f"sum_parts<{TYPE_NAMES[dtype]}>",
        grid=(ceil_div(channels * length, THREADS),),
        block=(THREADS,),
        scalars=(channels, p.kernel_size**2, length, splits),
        operations=Operations(outputs=channels * length),
    )


def forward(p: Params, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """[N, C, H, W], [C, 1, k, k], [C] -> [N, C, Ho, Wo]."""
    # Of an odd kernel padded by half its span.
    y = x.new_empty((*x.shape[:2], ceil_div(x.shape[2], p.stride), ceil_div(x.shape[3], p.stride)))
    convolve(p, x, weight, bias, y)
    return y


def backward(
    p: Params, wanted: Sequence[bool], gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> list[Tensor | None]:
    """Gradients of x [N, C, H, W], weight [C, 1, k, k] and bias [C]."""
    grad_x = grad_weight = grad_bias = None
    if wanted[0]:
        grad_x = torch.empty_like(x)
        input_gradient(p, gradient, weight, None, grad_x)
    with_bias = bias is not None and wanted[2]
    if wanted[1]:
        # The sums over the gradient, which is read anyway, are one more tap.
        grad_weight = torch.empty_like(weight)
        grad_bias = torch.empty_like(bias) if bias is not None and with_bias else None
        length = p.kernel_size**2 + with_bias
        # Plain numbers, where a compiler traces with symbols.
        splits = _splits(p, x.dtype, torch.Size(map(int, x.shape)))
        parts = x.new_empty((splits, x.shape[1], length), dtype=torch.float32)
        weight_parts(p, gradient, x, parts)
        sum_parts(p, grad_weight, grad_bias, parts)
    elif with_bias:
        grad_bias = gradient.sum((0, 2, 3))
    return [grad_x, grad_weight] if bias is None else [grad_x, grad_weight, grad_bias]


def work(p: Params, x: torch.Size, weight: torch.Size, bias: torch.Size | None = None) -> Work:
    """k^2 multiply-adds for each output, those on padding only in the dense count."""
    return Work.bilinear(x[0] * x[1] * Macs.of_windows(p.window, p.window, x[2], x[3]))


def _path(p: Params, dtype: torch.dtype) -> _Path | None:
    """The fast kernels that cover a convolution; None for the general ones of kernel.cu."""
    if banded.covers(p, dtype):
        return banded
    if short.covers(p, dtype):
        return short
    return blocked if blocked.covers(p, dtype) else None


def _gather(name: str, p: Params, dtype: torch.dtype, x: torch.Size, y: torch.Size, outputs: torch.Size) -> Launch:
    """One thread for each output."""
    k = p.kernel_size
    return SOURCE.launch(
        f"{name}<{TYPE_NAMES[dtype]}>",
        grid=(ceil_div(outputs.numel(), THREADS),),
        block=(THREADS,),
        scalars=(x[0] * x[1], x[1], *x[2:], *y[2:], k, p.stride, p.dilation, p.window.padding),
        operations=Operations(outputs=outputs.numel(), multiply_adds=k * k * y.numel()),
    )


@functools.lru_cache(MAX_PLANS)
def _splits(p: Params, dtype: torch.dtype, x: torch.Size) -> int:
    """Into how many parts the sums of a weight gradient are cut."""
    path = _path(p, dtype)
    if path:
        return path.splits(p, x)
    rows = x[0] * p.window.outputs(x[2])
    return min(rows, MAX_SPLITS, ceil_div(BLOCKS, max(x[1], 1)))


def _require_offsets(*shapes: torch.Size) -> None:
    for shape in shapes:
        if shape[2] * shape[3] > MAX_OFFSET:
            raise Unsupported(f"a plane of {shape[2]}x{shape[3]} pixels is more than kernels count in 31 bits")


CUDA = CudaCore(
    name="large_kernel_depthwise",
    params=Params,
    forward=forward,
    backward=backward,
    work=work,
    cases=(
        (Params(kernel_size=3, dilation=2, stride=3), Nchw(1, 3, 5, 7)),
        # Whole and partial steps of eight columns; one, two, four and seven of them; every width of access.
        (Params(kernel_size=3), Nchw(2, 2, 5, 8)),
        (Params(kernel_size=17), Nchw(9, 1, 7, 7)),
        (Params(kernel_size=7), Nchw(5, 2, 14, 14)),
        (Params(kernel_size=13, bias=False), Nchw(2, 1, 9, 28)),
        (Params(kernel_size=5), Nchw(1, 1, 17, 56)),
        # More columns and more rows than a block has.
        (Params(kernel_size=3), Nchw(1, 1, 8, 64)),
        (Params(kernel_size=7), Nchw(1, 1, 35, 70)),
        (Params(kernel_size=7), Nchw(2, 1, 130, 8)),
        # Kernels larger than the image: five, seven and nine bands.
        (Params(kernel_size=31), Nchw(1, 1, 7, 56)),
        (Params(kernel_size=29), Nchw(1, 1, 10, 28)),
        (Params(kernel_size=27), Nchw(2, 1, 14, 14)),
        (Params(kernel_size=41, bias=False), Nchw(1, 1, 6, 9)),
        (Params(kernel_size=51), Nchw(1, 2, 14, 12)),
    ),
    layers=(
        (Params(kernel_size=31), Nchw(32, 128, 56, 56)),
        (Params(kernel_size=29), Nchw(32, 256, 28, 28)),
        (Params(kernel_size=27), Nchw(32, 512, 14, 14)),
        (Params(kernel_size=13), Nchw(32, 1024, 7, 7)),
        (Params(kernel_size=13), Nchw(32, 192, 28, 28)),
        (Params(kernel_size=7), Nchw(32, 96, 56, 56)),
        (Params(kernel_size=7), Nchw(32, 384, 14, 14)),
    ),
)
