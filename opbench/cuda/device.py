"""Launches kernels on a CUDA device: torch's current stream, one packed argument, nothing worked out twice."""

from __future__ import annotations

import ctypes
import functools
import struct
import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from opbench.cuda import nvrtc
from opbench.cuda.plan import Launch
from opbench.cuda.source import Source
from opbench.errors import Unsupported

Start = Callable[[tuple[Tensor | None, ...]], None]

_DEFAULT_SHARED_BYTES = 48 << 10
"""Dynamic shared memory that a kernel may use without asking."""


def run(launch: Launch, tensors: tuple[Tensor | None, ...]) -> None:
    """Queue a launch on the current stream of the tensors' device."""
    first = tensors[0]
    assert first is not None
    index = first.get_device()
    start = launch.ready.get(index)
    if start is None:
        start = launch.ready[index] = _prepared(launch, len(tensors), index)
    if torch._C._cuda_getDevice() == index:
        start(tensors)
    else:
        with torch.cuda.device(index):
            start(tensors)


class _Stream:
    """As much of a stream as CuPy's launch looks at."""

    __slots__ = ("ptr",)

    def __init__(self, pointer: int) -> None:
        self.ptr = pointer


def _prepared(launch: Launch, pointers: int, index: int) -> Start:
    """Compile and load the kernel, lay out its argument, and return what queues it."""
    from cupy.cuda import function

    with torch.cuda.device(index):
        kernel = _function(launch, index)
    argument = launch.argument(pointers)
    memory = (ctypes.c_char * len(argument)).from_buffer(argument)
    # CuPy hands the driver this address as that of the kernel's only parameter; nothing is marshalled per call.
    packed = (function.CPointer(ctypes.addressof(memory)),)
    pack = struct.Struct(f"={pointers}Q").pack_into
    lock = threading.Lock()
    grid, block, shared_bytes = launch.grid, launch.block, launch.shared_bytes
    current_stream = torch._C._cuda_getCurrentRawStream

    def start(tensors: tuple[Tensor | None, ...]) -> None:
        stream = _Stream(current_stream(index))
        # The driver copies the argument before it returns, so one of it is enough, for one thread at a time.
        with lock:
            pack(argument, 0, *[0 if tensor is None else tensor.data_ptr() for tensor in tensors])
            kernel(grid, block, packed, shared_bytes, stream)

    return start


def _function(launch: Launch, index: int) -> Any:
    """The kernel on a device, allowed the shared memory it asks for.

    Raises:
        Unsupported: the device has less than that.
    """
    from cupy.cuda import driver, runtime

    module, names = _module(launch.source, launch.compiled, index)
    kernel = module.get_function(names[launch.kernel])
    most = runtime.deviceGetAttribute(runtime.cudaDevAttrMaxSharedMemoryPerBlockOptin, index)
    if launch.shared_bytes > most:
        needed = f"{launch.kernel} needs {launch.shared_bytes} bytes of shared memory in a block"
        raise Unsupported(f"{needed}, and this device has {most}")
    if launch.shared_bytes > _DEFAULT_SHARED_BYTES:
        attribute = driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        driver.funcSetAttribute(kernel.ptr, attribute, launch.shared_bytes)
    return kernel


@functools.cache
def _module(source: Source, kernels: tuple[str, ...], index: int) -> tuple[Any, Mapping[str, str]]:
    """Load kernels' code onto a device, which must be the current one; return also their mangled names."""
    from cupy.cuda import function

    torch.cuda.init()
    architecture = nvrtc.target(*torch.cuda.get_device_capability(index))
    cubin = nvrtc.compile_kernels(source, kernels, architecture)
    module = function.Module()
    module.load(cubin.image)
    return module, cubin.names
