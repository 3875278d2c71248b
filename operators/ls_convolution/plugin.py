"""LS convolution: a large window decides for every pixel how a small one is aggregated."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from opbench.api import Cost, Implementation, Macs, Maker, Nchw, Operator, Sample, Work

from .cuda import CUDA
from .layer import LsConvolution
from .reference import Params, small_kernel_aggregation


def inputs(p: Params, shape: Nchw, make: Maker) -> Mapping[str, Tensor]:
    """x [N, C, H, W] and weight [N, G, k, k, H, W]."""
    k, groups = p.small_kernel_size, p.groups(shape.channels)
    return {
        "x": make.normal(*shape),
        "weight": make.normal(shape.batch, groups, k, k, shape.height, shape.width, scale=1 / k),
    }


def cost(p: Params, shape: Nchw) -> Cost:
    """k^2 MACs for each of the C · H · W outputs; the layer adds the four convolutions of the perception."""
    channels, hidden = shape.channels, p.hidden(shape.channels)
    kernels = p.small_kernel_size**2 * p.groups(channels)
    pointwise = channels * hidden + hidden * hidden + hidden * kernels
    positions = shape.batch * shape.height * shape.width
    large = Macs.of_windows(p.large_window, p.large_window, shape.height, shape.width)
    small = Macs.of_windows(p.small_window, p.small_window, shape.height, shape.width)
    core = Work.bilinear(shape.batch * channels * small)
    perception = Work.bilinear(Macs.exact(positions * pointwise) + shape.batch * hidden * large)
    norms = 3 * 2 * hidden + 2 * kernels + 2 * channels
    return Cost(
        parameters=pointwise + hidden * p.large_kernel_size**2 + kernels + norms,
        core=core,
        layer=core + perception,
    )


OPERATOR = Operator(
    source="Wang et al., LSNet: See Large, Focus Small, CVPR 2025, arXiv 2503.23135",
    params=Params,
    reference=small_kernel_aggregation,
    inputs=inputs,
    layer=LsConvolution,
    cost=cost,
    implementations={
        "cuda": Implementation(
            core=CUDA,
            dtypes=("float32", "float16", "bfloat16"),
            devices=("cuda",),
            summary="our kernels: each pixel's taps loaded once for all channels of its group, one pass backward",
        )
    },
    samples=(
        Sample(Params(), 16),
        Sample(Params(mapping="contiguous"), 16),
        Sample(Params(large_kernel_size=3, small_kernel_size=5, group_channels=2), 8),
        Sample(Params(large_kernel_size=5, small_kernel_size=5, group_channels=3, mapping="contiguous"), 6),
        Sample(Params(large_kernel_size=1, small_kernel_size=1, group_channels=2), 6),
    ),
)
