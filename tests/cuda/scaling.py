"""A small core with a kernel: each channel times a factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from opbench.api import check_params, param
from opbench.cuda import TYPE_NAMES, CudaCore, Launch, Source, ceil_div, kernel
from opbench.work import Macs, Work

SOURCE = Source.beside(__file__, "scale.cu")


@dataclass(frozen=True)
class Params:
    power: int = param(1, help="how often the factor is applied", at_least=1, at_most=2)
    mode: Literal["a", "b"] = param("a", help="means nothing")
    width: int | None = param(None, help="means nothing")

    def __post_init__(self) -> None:
        check_params(self)


@kernel
def scale(p: Params, dtype: torch.dtype, x: torch.Size, factor: torch.Size, y: torch.Size) -> Launch:
    return SOURCE.launch(
        f"scale<{TYPE_NAMES[dtype]}>",
        grid=(ceil_div(x.numel(), 64),),
        block=(64,),
        scalars=(x[1], x[2] * x[3], x.numel()),
    )


def reference(p: Params, x: Tensor, factor: Tensor) -> Tensor:
    return x * factor[:, None, None] ** p.power


def forward(p: Params, x: Tensor, factor: Tensor) -> Tensor:
    y = torch.empty_like(x)
    scale(p, x, factor, y)
    for _ in range(p.power - 1):
        once, y = y, torch.empty_like(x)
        scale(p, once, factor, y)
    return y


def backward(p: Params, wanted: Sequence[bool], gradient: Tensor, x: Tensor, factor: Tensor) -> list[Tensor | None]:
    grad_x = forward(p, gradient, factor) if wanted[0] else None
    grad_factor = None
    if wanted[1]:
        grad_factor = (gradient * x).sum((0, 2, 3)) * p.power * factor ** (p.power - 1)
    return [grad_x, grad_factor]


CORE = CudaCore(
    name="scaling",
    params=Params,
    forward=forward,
    backward=backward,
    work=lambda p, x, factor: Work.bilinear(Macs.exact(x.numel() * p.power)),
)
