"""Dynamic convolution: each image mixes K filter sets by attention, then is convolved with the mixture."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from opbench.api import Cost, Implementation, Macs, Maker, Nchw, Operator, Sample, Work

from .cuda import CUDA
from .layer import DynamicConvolution, hidden_width
from .reference import Params, dynamic_convolution, native


def inputs(p: Params, shape: Nchw, make: Maker) -> Mapping[str, Tensor]:
    """x [N, C, H, W], weight [K, O, C/g, k, k], where the layer has one bias [K, O], and attention [N, K]."""
    weight = p.weight_shape(shape.channels)
    tensors = {"x": make.normal(*shape), "weight": make.normal(*weight, scale=math.prod(weight[2:]) ** -0.5)}
    if p.bias:
        tensors["bias"] = make.normal(*weight[:2])
    return tensors | {"attention": make.probabilities(shape.batch, p.experts)}


def cost(p: Params, shape: Nchw) -> Cost:
    """A convolution and, for each image, K MACs per filter element and bias; around them the attention's two maps."""
    _, outputs, fan_in, *_ = weight = p.weight_shape(shape.channels)
    learned = math.prod(weight) + p.bias * p.experts * outputs
    taps = Macs.of_windows(p.window, p.window, shape.height, shape.width)
    core = Work.bilinear(shape.batch * (outputs * fan_in * taps + Macs.exact(learned)))
    hidden = hidden_width(shape.channels)
    attention = shape.channels * hidden + hidden * p.experts
    return Cost(
        parameters=learned + attention + hidden + p.experts,
        core=core,
        layer=core + Work.bilinear(Macs.exact(shape.batch * attention)),
    )


OPERATOR = Operator(
    source="Chen et al., Dynamic Convolution: Attention over Convolution Kernels, CVPR 2020, arXiv:1912.03458",
    params=Params,
    reference=dynamic_convolution,
    inputs=inputs,
    layer=DynamicConvolution,
    cost=cost,
    implementations={
        "native": Implementation(core=native, summary="torch.nn.functional.conv2d with a group for each image"),
        "cuda": Implementation(
            core=CUDA,
            dtypes=("float32", "float16", "bfloat16"),
            devices=("cuda",),
            summary="our kernels: filters mixed while they are loaded, those of no image ever written out",
        ),
    },
    samples=(
        Sample(Params(), 4),
        Sample(Params(out_channels=6, groups=2, stride=2, bias=True, experts=3), 8),
        Sample(Params(out_channels=4, kernel_size=4, padding=3, dilation=2, groups=2, temperature=1.0), 4),
        Sample(Params(out_channels=6, kernel_size=1, padding=0, stride=2, bias=True), 4),
        Sample(Params(kernel_size=5, groups=8, experts=2), 8),
    ),
)
