"""Stand-alone self-attention (SASA): softmax attention over the window around each pixel."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from opbench.api import Cost, Implementation, Macs, Maker, Nchw, Operator, Sample, Work

from .cuda import CUDA
from .flex import flex_attention
from .layer import LocalAttention
from .neighborhood import neighborhood_attention
from .reference import Params, local_attention


def inputs(p: Params, shape: Nchw, make: Maker) -> Mapping[str, Tensor]:
    """q, k, v [N, h, dh, H, W] and rel_h, rel_w [dh/2, k], per head [h, dh/2, k]."""
    head_width = p.outputs(shape.channels) // p.heads
    heads = (shape.batch, p.heads, head_width, shape.height, shape.width)
    embedding = p.embedding_shape(shape.channels)
    return {
        # Logits are not divided by √dh; what the queries are scaled by keeps them near one.
        "q": make.normal(*heads, scale=head_width**-0.5),
        "k": make.normal(*heads),
        "v": make.normal(*heads),
        "rel_h": make.normal(*embedding),
        "rel_w": make.normal(*embedding),
    }


def cost(p: Params, shape: Nchw) -> Cost:
    """q·k, q·r and A·v are k^2 MACs each per output channel and pixel; the softmax is none.

    The backward recomputes both logits (q·k, q·r) and forms dA (go·v), gq (through k and through r), gk, gv and gr:
    five products with feature maps and three with embeddings.
    """
    outputs = p.outputs(shape.channels)
    pixels = shape.height * shape.width
    taps = shape.batch * outputs * Macs.of_windows(p.window, p.window, shape.height, shape.width)
    # A zero key outside the image is free, but its position still has a logit unless it is masked.
    positions = Macs.exact(taps.dense) if p.border == "zero" else taps
    core = Work(forward=2 * taps + positions, backward=5 * taps + 3 * positions)

    weights = 3 * shape.channels * outputs // (p.heads if p.projection == "grouped" else 1)
    projections = Work.bilinear(Macs.exact(shape.batch * pixels * weights))
    return Cost(
        parameters=weights + 2 * math.prod(p.embedding_shape(shape.channels)), core=core, layer=core + projections
    )


OPERATOR = Operator(
    source="Ramachandran et al., Stand-Alone Self-Attention in Vision Models, NeurIPS 2019, arXiv 1906.05909",
    params=Params,
    reference=local_attention,
    inputs=inputs,
    layer=LocalAttention,
    cost=cost,
    implementations={
        "cuda": Implementation(
            core=CUDA,
            dtypes=("float32", "float16", "bfloat16"),
            devices=("cuda",),
            summary="our kernels: fused, the attention computed again in the backward, no atomics",
        ),
        "flex": Implementation(
            core=flex_attention,
            dtypes=("float32", "float16", "bfloat16"),
            devices=("cuda",),
            summary="torch's flex_attention, compiled: the window as a mask over blocks of 128 pixels",
        ),
        "natten": Implementation(
            core=neighborhood_attention,
            dtypes=("float32", "float16", "bfloat16"),
            devices=("cuda",),
            summary="NATTEN, whose windows move inwards at borders, on maps with a margin that keeps them from moving",
        ),
    },
    samples=(
        Sample(Params(), 16),
        Sample(Params(kernel_size=3, heads=2, border="mask", stride=2), 8),
        Sample(Params(out_channels=12, kernel_size=5, heads=3, embedding="per_head", projection="grouped"), 6),
        Sample(Params(kernel_size=7, heads=2, border="mask", embedding="per_head", out_channels=4), 6),
        Sample(Params(kernel_size=1, heads=1), 4),
    ),
)
