"""Involution: a kernel for every pixel, generated from that pixel and shared by a group of channels."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from opbench.api import Cost, Implementation, Macs, Maker, Nchw, Operator, Sample, Work

from .cuda import CUDA
from .layer import Involution
from .reference import Params, involution


def inputs(p: Params, shape: Nchw, make: Maker) -> Mapping[str, Tensor]:
    """x [N, C, H, W] and weight [N, G, k, k, Ho, Wo]."""
    k, groups = p.kernel_size, p.groups(shape.channels)
    height, width = p.window.outputs(shape.height), p.window.outputs(shape.width)
    return {
        "x": make.normal(*shape),
        "weight": make.normal(shape.batch, groups, k, k, height, width, scale=1 / k),
    }


def cost(p: Params, shape: Nchw) -> Cost:
    """k^2 MACs for each of the C · L outputs; the layer adds the two 1x1 convolutions of its generator."""
    hidden, kernels = p.hidden(shape.channels), p.kernel_size**2 * p.groups(shape.channels)
    positions = p.window.outputs(shape.height) * p.window.outputs(shape.width)
    filters = shape.channels * hidden + hidden * kernels
    core = Work.bilinear(shape.batch * shape.channels * Macs.of_windows(p.window, p.window, shape.height, shape.width))
    generator = Work.bilinear(Macs.exact(shape.batch * positions * filters))
    return Cost(parameters=filters + 2 * hidden + kernels, core=core, layer=core + generator)


OPERATOR = Operator(
    source="Li et al., Involution: Inverting the Inherence of Convolution for Visual Recognition, CVPR 2021, "
    "arXiv 2103.06255",
    params=Params,
    reference=involution,
    inputs=inputs,
    layer=Involution,
    cost=cost,
    implementations={
        "cuda": Implementation(
            core=CUDA,
            dtypes=("float32", "float16", "bfloat16"),
            devices=("cuda",),
            summary="our kernels: a pixel's taps are loaded once for all channels of its group",
        )
    },
    samples=(
        Sample(Params(), 32),
        Sample(Params(kernel_size=3, stride=2, group_channels=3, reduction=2), 6),
        Sample(Params(kernel_size=5, stride=3, dilation=2, group_channels=2), 8),
        Sample(Params(kernel_size=3, dilation=3, group_channels=4, reduction=3), 8),
        Sample(Params(kernel_size=1, stride=2, group_channels=2, reduction=1), 4),
    ),
)
