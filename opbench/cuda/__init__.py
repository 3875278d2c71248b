"""Kernels for operator plugins: what a plugin may import beside `opbench.api`.

A plugin with kernels holds a `kernel.cu`, free of torch headers, and a module that plans their launches:

    SOURCE = Source.beside(__file__)

    @kernel
    def blur(p, dtype, x, y):
        name = f"blur<{TYPE_NAMES[dtype]}>"
        return SOURCE.launch(name, grid=(ceil_div(x.numel(), 256),), block=(256,), scalars=tuple(x))

    def forward(p, x):
        y = torch.empty_like(x)
        blur(p, x, y)
        return y

`CudaCore` makes a differentiable core of such functions. On CUDA tensors kernels are compiled by NVRTC through CuPy and
run on torch's current stream; within `on_cpu()` the same source is compiled by g++ and runs on CPU tensors.
"""

from opbench.cuda.core import CudaCore
from opbench.cuda.emulation import on_cpu
from opbench.cuda.kernels import TYPE_NAMES, Kernel, kernel, recorded
from opbench.cuda.plan import Launch, Operations
from opbench.cuda.source import Source

__all__ = [
    "TYPE_NAMES",
    "CudaCore",
    "Kernel",
    "Launch",
    "Operations",
    "Source",
    "ceil_div",
    "kernel",
    "on_cpu",
    "recorded",
]


def ceil_div(extent: int, step: int) -> int:
    """Fewest steps that cover an extent."""
    return -(-extent // step)
