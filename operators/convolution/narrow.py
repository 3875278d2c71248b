"""Plans of the kernels in `narrow.cu`: groups of few channels, and the small ones that products need beside them."""

from __future__ import annotations

import torch

from opbench.api import Unsupported
from opbench.cuda import TYPE_NAMES, Launch, Operations, Source, ceil_div, kernel

from .reference import Params

SOURCE = Source.beside(__file__, "narrow.cu")

FEW = 16
"""Filters of a group, its inputs times its outputs, up to which a matrix product would be mostly padding."""
BLOCKS = 1056
"""Blocks of 256 threads that an H200 holds at a time."""


def is_narrow(p: Params, weight: torch.Size) -> bool:
    """Whether these kernels serve a convolution better than matrix products."""
    return p.groups > 1 and weight[0] // p.groups * weight[1] <= FEW


@kernel
def convolve(
    p: Params, dtype: torch.dtype, x: torch.Size, weight: torch.Size, bias: torch.Size | None, y: torch.Size
) -> Launch:
    """[N, C, H, W], [O, C/g, kh, kw], [O] or none -> [N, O, Ho, Wo]."""
    chunks = ceil_div(y[2] * y[3], 256)
    return _launch(
        "narrow_forward",
        dtype,
        blocks=y[0] * y[1] * chunks,
        scalars=(*_geometry(p, x, y), p.groups, weight[1], weight[0] // p.groups, chunks),
        operations=Operations(outputs=y.numel(), multiply_adds=y.numel() * weight[1:].numel()),
    )


@kernel
def convolve_back(p: Params, dtype: torch.dtype, go: torch.Size, weight: torch.Size, gx: torch.Size) -> Launch:
    """[N, O, Ho, Wo], [O, C/g, kh, kw] -> [N, C, H, W]."""
    chunks = ceil_div(gx[2] * gx[3], 256)
    return _launch(
        "narrow_input_gradient",
        dtype,
        blocks=gx[0] * gx[1] * chunks,
        scalars=(*_geometry(p, gx, go), p.groups, weight[1], weight[0] // p.groups, chunks),
        operations=Operations(outputs=gx.numel(), multiply_adds=go.numel() * weight[1:].numel()),
    )


@kernel
def weigh(p: Params, dtype: torch.dtype, go: torch.Size, x: torch.Size, partials: torch.Size) -> Launch:
    """[N, O, Ho, Wo], [N, C, H, W] -> [splits, O, C/g, kh, kw], to be added up."""
    outputs, channels = partials[1] // p.groups, partials[2]
    return _launch(
        "narrow_weight_gradient",
        dtype,
        blocks=partials.numel(),
        shared_bytes=32,
        scalars=(*_geometry(p, x, go), x[0], p.groups, channels, outputs, ceil_div(x[0], partials[0])),
        operations=Operations(outputs=partials[1:].numel(), multiply_adds=go.numel() * partials[2:].numel()),
    )


@kernel
def sum_channels(p: Params, dtype: torch.dtype, go: torch.Size, partials: torch.Size) -> Launch:
    """[N, O, Ho, Wo] -> [splits, O], to be added up: the gradient of a bias."""
    return _launch(
        "channel_sums",
        dtype,
        blocks=partials.numel(),
        shared_bytes=32,
        scalars=(go[0], go[1], go[2] * go[3], ceil_div(go[0], partials[0])),
        operations=Operations(outputs=go[1]),
    )


@kernel
def add_up(p: Params, dtype: torch.dtype, result: torch.Size, partials: torch.Size) -> Launch:
    """[splits, ...] -> [...], in the order of the splits."""
    return _launch(
        "add_partials",
        dtype,
        blocks=ceil_div(result.numel(), 256),
        scalars=(partials[0], result.numel()),
        operations=Operations(outputs=result.numel()),
    )


@kernel
def swap_channels(p: Params, dtype: torch.dtype, weight: torch.Size, swapped: torch.Size) -> Launch:
    """[O, C/g, kh, kw] -> [C, O/g, kh, kw]: filters as the gradient of an input takes them."""
    return _launch(
        "swap_channels",
        dtype,
        blocks=ceil_div(weight.numel(), 256),
        scalars=(weight.numel(), weight[0] // p.groups, weight[1], weight[2:].numel()),
        operations=Operations(outputs=weight.numel()),
    )


def splits(values: int, images: int) -> int:
    """Into how many partial sums, of some images each, a gradient of so many values is best split."""
    return max(1, min(images, ceil_div(BLOCKS, max(1, values))))


def _geometry(p: Params, x: torch.Size, y: torch.Size) -> tuple[int, ...]:
    vertical, horizontal = p.windows
    return (
        *(x[2], x[3], y[2], y[3], vertical.kernel, horizontal.kernel),
        *(p.stride, vertical.padding, horizontal.padding, p.dilation),
    )


def _launch(
    name: str,
    dtype: torch.dtype,
    *,
    blocks: int,
    shared_bytes: int = 0,
    scalars: tuple[int, ...],
    operations: Operations,
) -> Launch:
    if blocks >= 2**31:
        raise Unsupported(f"{blocks} blocks exceed the grid's {2**31 - 1}")
    return SOURCE.launch(
        f"{name}<{TYPE_NAMES[dtype]}>",
        grid=(blocks,),
        block=(256,),
        shared_bytes=shared_bytes,
        scalars=scalars,
        operations=operations,
    )
