"""Small-kernel aggregation by our kernels: which is launched when, and over what grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from opbench.api import Macs, Nchw, Unsupported, Work
from opbench.cuda import TYPE_NAMES, CudaCore, Launch, Operations, Source, ceil_div, kernel

from .reference import Params

SOURCE = Source.beside(__file__)
PLANES = Source.beside(__file__, "planes.cu")

THREADS = 128
UNROLLED = (1, 3, 5)
"""Kernel sizes whose taps a thread keeps in registers; others are read as they come."""
MAX_TAPS = 36
"""Taps of all its pixels that a thread keeps, unless one pixel alone has more."""
SEGMENT = 7
"""Columns of the maps that are copied to shared memory, as `planes.cuh` has it."""
SHARE = 4
"""Channels of a group that one thread weighs there, at most."""
VECTOR_BYTES = 16
ZEROS_BYTES = 64
"""Zeros that are read in place of rows beyond the image."""
MAX_SHARED_BYTES = 48 << 10
MAX_GRID_Y = 65535
MAX_OFFSET = 2**31 - 1


@kernel
def aggregate(p: Params, dtype: torch.dtype, x: torch.Size, weight: torch.Size, y: torch.Size) -> Launch:
    """[N, C, H, W], [N, G, k, k, H, W] -> [N, C, H, W]."""
    k = p.small_kernel_size
    if count := _bundle(p, dtype, x, weight[1]):
        share = math.gcd(p.group_channels, SHARE)
        name = f"aggregate_planes<{TYPE_NAMES[dtype]}>"
        return _plan_planes(name, p, dtype, x, weight, count, share, 2 * p.group_channels + k * k, x.numel())
    pixels = _pixels(k, x[3])
    # A window of 25 has loads enough to be under way of one channel.
    together = math.gcd(p.group_channels, 4) if k < 5 else 1
    name = f"aggregate<{TYPE_NAMES[dtype]}, {k}, {pixels}, {together}>"
    return _plan(name, p, x, weight, pixels, x.numel())


@kernel
def aggregate_backward(
    p: Params,
    dtype: torch.dtype,
    gradient: torch.Size,
    x: torch.Size | None,
    weight: torch.Size | None,
    grad_x: torch.Size | None,
    grad_weight: torch.Size | None,
) -> Launch:
    """Both gradients, or the one that is given: [N, C, H, W] and [N, G, k, k, H, W]."""
    shape = weight or grad_weight
    assert shape is not None
    wanted = grad_x is not None, grad_weight is not None
    flags = ", ".join("true" if flag else "false" for flag in wanted)
    taps, outputs = p.small_kernel_size**2, sum(wanted) * gradient.numel()
    if count := _bundle(p, dtype, gradient, shape[1]):
        name = f"aggregate_planes_backward<{TYPE_NAMES[dtype]}, {flags}>"
        planes = 3 * p.group_channels + 2 * taps
        return _plan_planes(name, p, dtype, gradient, shape, count, p.group_channels, planes, outputs)
    pixels = _pixels(p.small_kernel_size, gradient[3])
    # Where many taps and sums are kept, the rows of two channels at once would leave registers for too few warps.
    together = math.gcd(p.group_channels, 2) if 2 * pixels * taps <= MAX_TAPS else 1
    name = f"aggregate_backward<{TYPE_NAMES[dtype]}, {p.small_kernel_size}, {pixels}, {together}, {flags}>"
    return _plan(name, p, gradient, shape, pixels, outputs)


@kernel
def aggregate_any(p: Params, dtype: torch.dtype, x: torch.Size, weight: torch.Size, y: torch.Size) -> Launch:
    """[N, C, H, W], [N, G, k, k, H, W] -> [N, C, H, W], for every k."""
    return _plan_any("aggregate_any", p, dtype, x, weight)


@kernel
def input_gradient_any(
    p: Params, dtype: torch.dtype, gradient: torch.Size, weight: torch.Size, grad_x: torch.Size
) -> Launch:
    """[N, C, H, W], [N, G, k, k, H, W] -> [N, C, H, W], for every k."""
    return _plan_any("aggregate_any_input_gradient", p, dtype, gradient, weight)


@kernel
def weight_gradient_any(
    p: Params, dtype: torch.dtype, gradient: torch.Size, x: torch.Size, grad_weight: torch.Size
) -> Launch:
    """[N, C, H, W], [N, C, H, W] -> [N, G, k, k, H, W], for every k."""
    return _plan_any("aggregate_any_weight_gradient", p, dtype, gradient, grad_weight)


def forward(p: Params, x: Tensor, weight: Tensor) -> Tensor:
    """[N, C, H, W], [N, G, k, k, H, W] -> [N, C, H, W]."""
    y = torch.empty_like(x)
    run = aggregate if p.small_kernel_size in UNROLLED else aggregate_any
    run(p, x, weight, y)
    return y


def backward(p: Params, wanted: Sequence[bool], gradient: Tensor, x: Tensor, weight: Tensor) -> list[Tensor | None]:
    """Gradients of x [N, C, H, W] and weight [N, G, k, k, H, W]."""
    grad_x = torch.empty_like(x) if wanted[0] else None
    grad_weight = torch.empty_like(weight) if wanted[1] else None
    if p.small_kernel_size not in UNROLLED:
        if grad_x is not None:
            input_gradient_any(p, gradient, weight, grad_x)
        if grad_weight is not None:
            weight_gradient_any(p, gradient, x, grad_weight)
    elif grad_x is not None or grad_weight is not None:
        read = x if wanted[1] else None, weight if wanted[0] else None
        aggregate_backward(p, gradient, *read, grad_x, grad_weight)
    return [grad_x, grad_weight]


def work(p: Params, x: torch.Size, weight: torch.Size) -> Work:
    """k^2 multiply-adds for each output, padding included only in the dense count."""
    taps = Macs.of_windows(p.small_window, p.small_window, x[2], x[3])
    return Work.bilinear(x[0] * x[1] * taps)


def _pixels(k: int, width: int) -> int:
    """Neighbours in a row that one thread takes: a vector's, where rows are whole vectors and registers suffice."""
    return next(pixels for pixels in (4, 2, 1) if width % pixels == 0 and (pixels == 1 or pixels * k * k <= MAX_TAPS))


def _bundle(p: Params, dtype: torch.dtype, x: torch.Size, groups: int) -> int:
    """Groups whose planes of seven columns are whole vectors and fit shared memory; 0 where rows go through L1.

    In float32 a value alone is an access worth having, and of 14 columns two are: memory bounds them as they are.
    """
    plane_bytes = x[2] * x[3] * dtype.itemsize
    suits = dtype.itemsize == 2 and x[3] == SEGMENT and p.small_kernel_size == 3 and p.mapping == "interleaved"
    if not suits or not plane_bytes:
        return 0
    count = VECTOR_BYTES // math.gcd(plane_bytes, VECTOR_BYTES)
    planes = 3 * p.group_channels + 2 * p.small_kernel_size**2
    return 0 if groups % count or count * planes * plane_bytes + ZEROS_BYTES > MAX_SHARED_BYTES else count


def _plan_planes(
    name: str,
    p: Params,
    dtype: torch.dtype,
    x: torch.Size,
    weight: torch.Size,
    count: int,
    share: int,
    planes: int,
    outputs: int,
) -> Launch:
    """One block for `count` groups, of which it keeps so many planes each; a thread takes a share of their channels."""
    _refuse_large(x, weight)
    n, _, height, width = x
    groups, members = weight[1], p.group_channels
    values = count * height * width
    deep = ceil_div(n, MAX_GRID_Y)
    return PLANES.launch(
        name,
        grid=(groups // count, ceil_div(n, max(deep, 1)), deep),
        block=(THREADS,),
        shared_bytes=ZEROS_BYTES + planes * values * dtype.itemsize,
        scalars=(
            *(n, groups, members, count, members // share, share),
            *(height, 1 / height, share / members, VECTOR_BYTES / (values * dtype.itemsize)),
        ),
        operations=Operations(outputs=outputs, multiply_adds=outputs * p.small_kernel_size**2),
    )


def _plan(name: str, p: Params, x: torch.Size, weight: torch.Size, pixels: int, outputs: int) -> Launch:
    """One thread for some neighbours in a row and a group; images along y, and along z what does not fit there."""
    _refuse_large(x, weight)
    n, _, height, width = x
    groups = weight[1]
    deep = ceil_div(n, MAX_GRID_Y)
    return SOURCE.launch(
        name,
        grid=(ceil_div(groups * height * (width // pixels), THREADS), ceil_div(n, max(deep, 1)), deep),
        block=(THREADS,),
        scalars=(n, groups, p.group_channels, *_steps(p, groups), height, width),
        operations=Operations(outputs=outputs, multiply_adds=outputs * p.small_kernel_size**2),
    )


def _plan_any(name: str, p: Params, dtype: torch.dtype, x: torch.Size, weight: torch.Size) -> Launch:
    """One thread for a pixel and a group."""
    _refuse_large(x, weight)
    n, _, height, width = x
    groups, k = weight[1], p.small_kernel_size
    blocks = ceil_div(height * width, THREADS)
    channels = groups, p.group_channels, *_steps(p, groups)
    stride = dilation = 1
    return SOURCE.launch(
        f"{name}<{TYPE_NAMES[dtype]}>",
        grid=(n * groups * blocks,),
        block=(THREADS,),
        scalars=(*channels, height, width, height, width, k, stride, k // 2, dilation, blocks),
        operations=Operations(outputs=x.numel(), multiply_adds=x.numel() * k * k),
    )


def _steps(p: Params, groups: int) -> tuple[int, int]:
    """Planes between the first channels of two groups, and between two channels of one."""
    return (1, groups) if p.mapping == "interleaved" else (p.group_channels, 1)


def _refuse_large(x: torch.Size, weight: torch.Size) -> None:
    planes = {"x": x[1], "weight": weight[1] * weight[2] * weight[3]}
    for name, count in planes.items():
        if count * x[2] * x[3] > MAX_OFFSET:
            raise Unsupported(
                f"an image of {name} has {count} planes of {x[2]}x{x[3]}, and kernels count its elements in 31 bits"
            )


CUDA = CudaCore(
    name="ls_convolution",
    params=Params,
    forward=forward,
    backward=backward,
    work=work,
    cases=(
        (Params(group_channels=4), Nchw(2, 8, 3, 8)),
        (Params(mapping="contiguous"), Nchw(1, 24, 5, 14)),
        (Params(group_channels=1), Nchw(1, 6, 14, 14)),
        (Params(group_channels=6), Nchw(1, 12, 2, 56)),
        (Params(), Nchw(3, 16, 7, 7)),
        (Params(), Nchw(1, 128, 7, 7)),
        (Params(group_channels=6), Nchw(2, 96, 5, 7)),
        (Params(group_channels=1), Nchw(1, 2, 76, 7)),
        (Params(small_kernel_size=1, group_channels=4), Nchw(1, 8, 4, 16)),
        (Params(small_kernel_size=7, group_channels=2), Nchw(2, 4, 6, 8)),
        (Params(small_kernel_size=7, group_channels=10, mapping="contiguous"), Nchw(1, 20, 4, 5)),
    ),
    layers=(
        (Params(), Nchw(32, 128, 28, 28)),
        (Params(), Nchw(32, 256, 14, 14)),
        (Params(), Nchw(32, 384, 7, 7)),
    ),
)
