"""Large-kernel depthwise convolution: one wide static filter per channel."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from opbench.api import Cost, Implementation, Macs, Maker, Nchw, Operator, Sample, Window, Work

from .cuda import CUDA
from .layer import LargeKernelDepthwise
from .reference import Params, channels_last, large_kernel_depthwise, native


def inputs(p: Params, shape: Nchw, make: Maker) -> Mapping[str, Tensor]:
    """x [N, C, H, W], weight [C, 1, k, k] and, where no batch norm follows the core, bias [C]."""
    side = p.kernel_size
    tensors = {"x": make.normal(*shape), "weight": make.normal(shape.channels, 1, side, side, scale=1 / side)}
    return tensors | ({"bias": make.normal(shape.channels)} if p.core_bias else {})


def cost(p: Params, shape: Nchw) -> Cost:
    """k^2 MACs for each output value; every parallel kernel adds its own, and a batch norm's two parameters."""
    norms = 0 if p.branches == "none" else 1 + len(p.branch_windows)
    kernels = sum(window.kernel**2 for window in (p.window, *p.branch_windows))
    core = _work(p.window, shape)
    return Cost(
        parameters=shape.channels * (kernels + 2 * norms + p.core_bias),
        core=core,
        layer=sum((_work(window, shape) for window in p.branch_windows), start=core),
    )


def _work(window: Window, shape: Nchw) -> Work:
    taps = Macs.of_windows(window, window, shape.height, shape.width)
    return Work.bilinear(shape.batch * shape.channels * taps)


OPERATOR = Operator(
    source="Ding et al., Scaling Up Your Kernels to 31x31 (RepLKNet), CVPR 2022, arXiv:2203.06717; "
    "Ding et al., UniRepLKNet, CVPR 2024, arXiv:2311.15599",
    params=Params,
    reference=large_kernel_depthwise,
    inputs=inputs,
    layer=LargeKernelDepthwise,
    cost=cost,
    equivalent=nn.Conv2d,
    implementations={
        "native": Implementation(core=native, summary="torch.nn.functional.conv2d"),
        "channels_last": Implementation(
            core=channels_last,
            summary="torch.nn.functional.conv2d on channels_last memory: copying x there counts, the output stays",
        ),
        "cuda": Implementation(
            core=CUDA,
            dtypes=("float32", "float16", "bfloat16"),
            devices=("cuda",),
            summary="our kernels: banded matrix products on tensor cores in 16 bits, register blocks in float32",
        ),
    },
    samples=(
        Sample(Params(kernel_size=7), 6),
        Sample(Params(kernel_size=5, stride=2, dilation=2, bias=False), 4),
        Sample(Params(kernel_size=9, stride=2, branches="replknet", small_kernel=3), 4),
        Sample(Params(kernel_size=7, branches="replknet", small_kernel=None), 4),
        Sample(Params(kernel_size=9, branches="unireplknet"), 5),
        Sample(Params(), 4),
    ),
)
