"""Standard 2-D convolution: one static filter for the whole image."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from opbench.api import Cost, Implementation, Macs, Maker, Nchw, Operator, Sample, Work

from .cuda import CUDA
from .layer import Convolution
from .reference import Params, channels_last, convolution, native


def inputs(p: Params, shape: Nchw, make: Maker) -> Mapping[str, Tensor]:
    """x [N, C, H, W], weight [O, C/g, kh, kw] and, where the layer has one, bias [O]."""
    outputs = p.outputs(shape.channels)
    fan_in = shape.channels // p.groups * p.height * p.width
    tensors = {
        "x": make.normal(*shape),
        "weight": make.normal(outputs, shape.channels // p.groups, p.height, p.width, scale=fan_in**-0.5),
    }
    return tensors | ({"bias": make.normal(outputs)} if p.bias else {})


def cost(p: Params, shape: Nchw) -> Cost:
    """k^2 · C/g MACs for each of the O · L outputs; the layer adds nothing to its core."""
    outputs = p.outputs(shape.channels)
    filters = outputs * (shape.channels // p.groups)
    taps = Macs.of_windows(*p.windows, shape.height, shape.width)
    work = Work.bilinear(shape.batch * filters * taps)
    return Cost(parameters=filters * p.height * p.width + p.bias * outputs, core=work, layer=work)


OPERATOR = Operator(
    source="the baseline; cuDNN and oneDNN ship it",
    params=Params,
    reference=convolution,
    inputs=inputs,
    layer=Convolution,
    cost=cost,
    equivalent=nn.Conv2d,
    implementations={
        "native": Implementation(core=native, summary="torch.nn.functional.conv2d"),
        "channels_last": Implementation(
            core=channels_last,
            summary="torch.nn.functional.conv2d on channels_last memory: copying x and weight there counts",
        ),
        "cuda": Implementation(
            core=CUDA,
            dtypes=("float32", "float16", "bfloat16"),
            devices=("cuda",),
            summary="our kernels: matrix products over windows gathered on the way, float32 strict",
        ),
    },
    samples=(
        Sample(Params(), 4),
        Sample(Params(out_channels=6, kernel_size="3x5", groups=2, stride=2, bias=True), 4),
        Sample(Params(out_channels=6, kernel_size=4, padding=3, dilation=2, groups=2), 8),
        Sample(Params(kernel_size=1, padding=0, stride=2), 4),
        Sample(Params(kernel_size=4, padding="same"), 4),
    ),
)
