"""DRConv: each pixel picks one of m filter sets that were made for its image."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from opbench.api import Cost, Implementation, Macs, Maker, Nchw, Operator, Sample, Work

from .cuda import CUDA
from .layer import DRConv
from .reference import Params, drconv


def inputs(p: Params, shape: Nchw, make: Maker) -> Mapping[str, Tensor]:
    """x [N, C, H, W], filters [N, m, O, C/g, k, k], guide [N, m, Ho, Wo]."""
    filters = p.filter_shape(shape.channels)
    height, width = (p.window.outputs(extent) for extent in shape[2:])
    return {
        "x": make.normal(*shape),
        "filters": make.normal(shape.batch, p.regions, *filters, scale=math.prod(filters[1:]) ** -0.5),
        "guide": make.normal(shape.batch, p.regions, height, width),
    }


def cost(p: Params, shape: Nchw) -> Cost:
    """One convolution's MACs, m + 2 times that backward; around it the guide and the generation of the filters."""
    filters = p.filter_shape(shape.channels)
    outputs, fan_in, *_ = filters
    taps = Macs.of_windows(p.window, p.window, shape.height, shape.width)
    aggregation = shape.batch * outputs * fan_in * taps
    # Each pixel's gradient for the guide needs its response to the filters of every region.
    core = Work(aggregation, (p.regions + 2) * aggregation)
    around = _paper if p.generator == "paper" else _basis
    parameters, work = around(p, shape, math.prod(filters), taps)
    return Cost(parameters=parameters + p.bias * outputs, core=core, layer=core + Work.bilinear(shape.batch * work))


def _paper(p: Params, shape: Nchw, filters: int, taps: Macs) -> tuple[int, Macs]:
    """Parameters, and MACs for one image, of the window guide and of the pooled generator."""
    channels, regions, kernel = shape.channels, p.regions, p.kernel_size**2
    generated = regions * filters // kernel
    guide = channels * regions * kernel + regions
    generator = (channels + 1) * regions**2 + (regions + 1) * generated
    generation = kernel * (channels * regions**2 + regions * generated)
    return guide + generator, channels * regions * taps + Macs.exact(generation)


def _basis(p: Params, shape: Nchw, filters: int, _: Macs) -> tuple[int, Macs]:
    """Parameters, and MACs for one image, of the pixel guide and of the mixed bases."""
    channels, coefficients = shape.channels, p.regions * p.bases
    guide = channels * p.regions
    generator = p.bases * filters + (channels + 1) * coefficients
    generation = channels * coefficients + coefficients * filters
    return guide + generator, Macs.exact(guide * shape.height * shape.width + generation)


OPERATOR = Operator(
    source="Chen et al., Dynamic Region-Aware Convolution, CVPR 2021, arXiv:2003.12243",
    params=Params,
    reference=drconv,
    inputs=inputs,
    layer=DRConv,
    cost=cost,
    implementations={
        "cuda": Implementation(
            core=CUDA,
            dtypes=("float32", "float16", "bfloat16"),
            devices=("cuda",),
            summary="our kernels: pixels gathered by region, the filters of no other region read",
        )
    },
    surrogate_gradients=("guide",),
    samples=(
        Sample(Params(), 4),
        Sample(Params(out_channels=6, groups=2, stride=2, bias=True, regions=3), 8),
        Sample(Params(out_channels=6, groups=2, stride=2, bias=True, regions=3, generator="basis", bases=5), 8),
        Sample(Params(kernel_size=4, padding=3, dilation=2, regions=2), 4),
        Sample(Params(kernel_size=2, padding=1, generator="basis", regions=5, bases=2), 4),
        Sample(Params(out_channels=6, kernel_size=1, padding=0, generator="basis"), 4),
    ),
)
