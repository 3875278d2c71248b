"""Small-kernel aggregation by our kernels: when to launch which, over what grid."""

from __future__ import annotations

import torch
from torch import Tensor

from opbench.api import Unsupported
from opbench.cuda import TYPE_NAMES, Launch, Source, ceil_div, kernel

from .reference import Params

SOURCE = Source.beside(__file__)


@kernel
def aggregate(p: Params, dtype: torch.dtype, x: torch.Size, weight: torch.Size, y: torch.Size) -> Launch:
    """[N, C, H, W], [N, G, k, k, H, W] -> [N, C, H, W]."""
    n, channels, height, width = x
    groups = weight[1]
    interleaved = "true" if p.mapping == "interleaved" else "false"
    return SOURCE.launch(
        f"aggregate<{TYPE_NAMES[dtype]}, {p.small_kernel_size}, {interleaved}>",
        grid=(ceil_div(height * width, 128), groups, n),
        block=(128,),
        scalars=(groups, channels // groups, height, width),
    )


def forward(p: Params, x: Tensor, weight: Tensor) -> Tensor:
    """[N, C, H, W], [N, G, k, k, H, W] -> [N, C, H, W]."""
    y = torch.empty_like(x)
    aggregate(p, x, weight, y)
    return y
