"""Mean of each pixel's square neighbourhood, per channel, with a CUDA kernel."""

from dataclasses import dataclass

import torch
from torch.nn.functional import avg_pool2d

from opbench.api import Implementation, Macs, Nchw, Operator, Window, Work
from opbench.cuda import TYPE_NAMES, CudaCore, Source, ceil_div, kernel

SOURCE = Source.beside(__file__)


@dataclass(frozen=True)
class Params:
    radius: int = 1


def box_blur(p, x):
    return avg_pool2d(x, 2 * p.radius + 1, stride=1, padding=p.radius)


@kernel
def blur(p, dtype, x, y):
    return SOURCE.launch(
        f"blur<{TYPE_NAMES[dtype]}>",
        grid=(ceil_div(x.numel(), 256),),
        block=(256,),
        scalars=(p.radius, x[2], x[3], x.numel()),
    )


def forward(p, x):
    y = torch.empty_like(x)
    blur(p, x, y)
    return y


def backward(p, wanted, gradient, x):
    return [forward(p, gradient)]  # A pixel sees those that see it.


def work(p, x):
    window = Window.half(2 * p.radius + 1)
    return Work.bilinear(x[0] * x[1] * Macs.of_windows(window, window, x[2], x[3]))


CUDA = CudaCore(
    name="box_blur",
    params=Params,
    forward=forward,
    backward=backward,
    work=work,
    cases=((Params(2), Nchw(1, 2, 9, 40)),),
    layers=((Params(1), Nchw(32, 64, 56, 56)),),
)

OPERATOR = Operator(
    reference=box_blur,
    params=Params,
    implementations={
        "cuda": Implementation(core=CUDA, dtypes=("float32", "float16", "bfloat16"), devices=("cuda",)),
    },
)
