"""Launches of the kernels that take every kernel size, stride, dilation and group."""

from __future__ import annotations

import torch

from opbench.cuda import TYPE_NAMES, Launch, Operations, Source, ceil_div

from .reference import Params

SOURCE = Source.beside(__file__, "general.cu")

THREADS = 128


def forward(p: Params, dtype: torch.dtype, x: torch.Size, weight: torch.Size) -> Launch:
    """One thread for each output pixel of each group."""
    return _launch("aggregate_any", p, dtype, x, weight, weight[4] * weight[5])


def input_gradient(p: Params, dtype: torch.dtype, x: torch.Size, weight: torch.Size) -> Launch:
    """One thread for each input pixel of each group."""
    return _launch("aggregate_any_input_gradient", p, dtype, x, weight, x[2] * x[3])


def weight_gradient(p: Params, dtype: torch.dtype, x: torch.Size, weight: torch.Size) -> Launch:
    """One thread for each output pixel of each group, for all its taps."""
    return _launch("aggregate_any_weight_gradient", p, dtype, x, weight, weight[4] * weight[5])


def _launch(name: str, p: Params, dtype: torch.dtype, x: torch.Size, weight: torch.Size, pixels: int) -> Launch:
    n, channels, height, width = x
    groups, k, out_height, out_width = weight[1], p.kernel_size, weight[4], weight[5]
    blocks = ceil_div(pixels, THREADS)
    return SOURCE.launch(
        f"{name}<{TYPE_NAMES[dtype]}>",
        grid=(n * groups * blocks,),
        block=(THREADS,),
        scalars=(
            *(groups, p.group_channels, p.group_channels, 1),
            *(height, width, out_height, out_width),
            *(k, p.stride, p.window.padding, p.dilation, blocks),
        ),
        operations=Operations(
            outputs=n * channels * pixels,
            multiply_adds=n * channels * k * k * out_height * out_width,
        ),
    )
