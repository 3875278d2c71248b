"""X-volution: a convolution and softmax-free local attention, trained side by side and added."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from opbench.api import Cost, Implementation, Macs, Maker, Nchw, Operator, Sample, Work

from .cuda import CUDA
from .layer import XVolution
from .reference import Params, xvolution
from .work import core_work


def inputs(p: Params, shape: Nchw, make: Maker) -> Mapping[str, Tensor]:
    """q, k and, for form B, v, each [N, C, H, W]."""
    if p.form == "A":
        return {"q": make.normal(*shape), "k": make.normal(*shape)}
    return {
        # Affinities are sums over a head and values sums over a window: unscaled, the outputs would be as large.
        "q": make.normal(*shape, scale=p.head_width(shape.channels) ** -0.5),
        "k": make.normal(*shape),
        "v": make.normal(*shape, scale=1 / p.kernel_size),
    }


def cost(p: Params, shape: Nchw) -> Cost:
    """The core of either form, its 1x1 convolutions, and the convolution branch with its bias and two norms."""
    channels = shape.channels
    core = core_work(p, shape)
    pointwise = (3 if p.form == "B" else 2 + p.directions) * channels**2
    filters = channels if p.convolution == "depthwise" else channels**2
    taps = Macs.of_windows(p.window, p.window, shape.height, shape.width)
    return Cost(
        parameters=pointwise + filters * p.kernel_size**2 + channels + 4 * channels,
        core=core,
        layer=core
        + Work.bilinear(Macs.exact(shape.batch * shape.height * shape.width * pointwise))
        + Work.bilinear(shape.batch * filters * taps),
    )


OPERATOR = Operator(
    source="Chen, Wang, Ni, X-volution: On the Unification of Convolution and Self-Attention, arXiv 2106.02253 (2021)",
    params=Params,
    reference=xvolution,
    inputs=inputs,
    layer=XVolution,
    cost=cost,
    implementations={
        "cuda": Implementation(
            core=CUDA,
            dtypes=("float32", "float16", "bfloat16"),
            devices=("cuda",),
            summary="our kernels: affinities live in registers, all gradients in one pass",
        )
    },
    samples=(
        Sample(Params(), 16),
        Sample(Params(kernel_size=5, heads=2, scale="head_width", convolution="depthwise"), 6),
        Sample(Params(kernel_size=1, heads=1), 4),
        Sample(Params(form="A"), 4),
        Sample(Params(form="A", shift=2, directions=8, kernel_size=5, convolution="depthwise"), 6),
    ),
)
