"""Runs kernels on the CPU: the very `.cu` file, compiled by the host's C++ compiler against a stand-in for CUDA.

It shows that values and indices are right, barriers are where they must be and nothing is read beyond its end; it
says nothing about speed. The stand-in is `cpu/on_cpu.hpp`.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from opbench.cuda import cache
from opbench.cuda.nvrtc import CompileError
from opbench.cuda.plan import Launch
from opbench.cuda.source import CPU_FOLDER, Source
from opbench.errors import OpbenchError, Unsupported

Order = Literal["forward", "reverse", "random"]
ORDERS: tuple[Order, ...] = ("forward", "reverse", "random")
"""In which order the threads of a block are given their turns."""

_FLAGS = ("-std=c++17", "-O1", "-fPIC", "-fno-strict-aliasing", "-ffp-contract=off", "-w", "-DOPBENCH_ON_CPU")
_KERNEL = ("-nostdinc++", "-DON_CPU_KERNEL")
"""A kernel includes nothing of the C++ library, as with NVRTC: reading that takes longer than compiling a kernel."""
_SANITIZE = ("-fsanitize=address", "-g1")
_LIBRARY = ("-shared", "-Wl,-rpath,$ORIGIN")


class KernelError(OpbenchError):
    """A kernel broke a rule of CUDA's execution model; the message says which, and where."""


@dataclass(frozen=True)
class _Mode:
    order: Order
    sanitize: bool
    launched: list[str]


_modes: list[_Mode] = []


@contextmanager
def on_cpu(order: Order = "forward", *, sanitize: bool = False) -> Iterator[list[str]]:
    """Let kernels over CPU tensors run while the block runs; gives the names of those launched, in order.

    Args:
        order: the order of a block's threads, and for 'reverse' of the blocks.
        sanitize: run each launch in a process of its own under AddressSanitizer, which catches every access beyond a
            tensor's memory or the block's shared memory; several times slower.
    """
    mode = _Mode(order, sanitize, [])
    _modes.append(mode)
    try:
        yield mode.launched
    finally:
        _modes.pop()


def run(launch: Launch, tensors: Sequence[Tensor | None]) -> None:
    """Run a launch over CPU tensors.

    Raises:
        Unsupported: outside `on_cpu`, or without a C++ compiler.
        CompileError: the source does not compile.
        KernelError: the kernel broke a rule.
    """
    if not _modes:
        raise Unsupported("it needs a CUDA device; 'opbench verify --on-cpu' runs its kernels on the CPU")
    mode = _modes[-1]
    mode.launched.append(launch.kernel)
    argument = launch.argument(len(tensors))
    if mode.sanitize:
        _run_sanitized(launch, tensors, argument, mode.order)
        return
    pointers = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
    struct.pack_into(f"={len(pointers)}Q", argument, 0, *pointers)
    memory = (ctypes.c_char * len(argument)).from_buffer(argument)
    request = _Request(
        grid=launch.grid,
        block=launch.block,
        shared_bytes=launch.shared_bytes,
        argument=ctypes.addressof(memory),
        argument_bytes=len(argument),
        order=ORDERS.index(mode.order),
    )
    status = _entry(launch.source, launch.kernel, launch.source.digest)(ctypes.byref(request))
    if status == 2:
        raise KernelError(_mismatch(launch, len(argument), request.argument_bytes))
    if status:
        raise KernelError(f"{launch.kernel}: {request.message.decode()}")


class _Request(ctypes.Structure):
    """Mirrors `on_cpu::Request`."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_ulonglong),
        ("argument", ctypes.c_void_p),
        ("argument_bytes", ctypes.c_ulonglong),
        ("order", ctypes.c_uint),
        ("message", ctypes.c_char * 256),
    )


def _mismatch(launch: Launch, given: int, wanted: int) -> str:
    return (
        f"{launch.kernel}: its struct has {wanted} bytes and the launch gives {given}; "
        f"it must hold a pointer for each tensor, then each scalar as int or float"
    )


def _run_sanitized(launch: Launch, tensors: Sequence[Tensor | None], argument: bytearray, order: Order) -> None:
    """Hand copies of the tensors to a sanitized program, and take back what it made of them."""
    buffers: dict[int, Tensor] = {tensor.data_ptr(): tensor for tensor in tensors if tensor is not None}
    places = list(buffers)
    numbers = [-1 if tensor is None else places.index(tensor.data_ptr()) for tensor in tensors]
    head = struct.pack(
        "=6I4Q", *launch.grid, *launch.block, launch.shared_bytes, len(argument), len(numbers), len(buffers)
    )
    parts = [head, struct.pack("=Q", ORDERS.index(order)), bytes(argument), struct.pack(f"={len(numbers)}q", *numbers)]
    parts += [struct.pack(f"={len(buffers)}Q", *(tensor.nbytes for tensor in buffers.values()))]
    parts += [_bytes(tensor) for tensor in buffers.values()]
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:detect_stack_use_after_return=0"}
    done = subprocess.run(
        [str(_built(launch.source, launch.kernel, sanitized=True))],
        input=b"".join(parts),
        capture_output=True,
        env=environment,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise KernelError(f"{launch.kernel}: {_finding(said, launch.source)}")
    start = 0
    for tensor in buffers.values():
        ctypes.memmove(tensor.data_ptr(), done.stdout[start : start + tensor.nbytes], tensor.nbytes)
        start += tensor.nbytes


def _bytes(tensor: Tensor) -> bytes:
    return ctypes.string_at(tensor.data_ptr(), tensor.nbytes)


def _finding(said: str, source: Source) -> str:
    """The sanitizer's first line and the first line of the kernel's own file on the way to it."""
    lines = said.splitlines()
    first = next((line for line in lines if "ERROR: AddressSanitizer" in line), lines[0] if lines else "it crashed")
    what = first.partition("AddressSanitizer: ")[2] or first
    access = next((line.partition(" at ")[0].strip() for line in lines if line.startswith(("READ", "WRITE"))), "")
    where = next((line.split()[-1] for line in lines if f"{source.path.name}:" in line), "")
    return ", ".join(filter(None, [what.partition(" on ")[0], access, where]))


@functools.cache
def _entry(source: Source, kernel: str, digest: str) -> ctypes._NamedFuncPointer:
    """Load a kernel's library; anew where the source has changed."""
    library = ctypes.CDLL(str(_built(source, kernel, sanitized=False)))
    entry = library.on_cpu_entry
    entry.argtypes = [ctypes.POINTER(_Request)]
    entry.restype = ctypes.c_int
    return entry


def _built(source: Source, kernel: str, *, sanitized: bool) -> Path:
    """Compile a kernel into a library, or into a program where it is to be sanitized."""
    runtime = _runtime(sanitized)
    flags = [*_FLAGS, *_KERNEL, *(_SANITIZE if sanitized else _LIBRARY)]
    folders = [f"-I{folder}" for folder in (*source.folders, CPU_FOLDER)]
    unit = f'#include "{source.path}"\nON_CPU_ENTRY({kernel})\n'

    def make(path: Path) -> None:
        _compile(["-x", "c++", "-", "-x", "none", str(runtime), *flags, *folders, "-o", str(path)], unit, source)

    # Not where the file lies: a copy of it is the same kernel.
    key = "\0".join([source.digest, _cpu_digest(), source.path.name, kernel, *flags])
    return cache.kept("on_cpu", key, "" if sanitized else ".so", make)


def _runtime(sanitized: bool) -> Path:
    """The scheduler, and the program's main function where it is to be sanitized, compiled once for all kernels."""
    flags = [*_FLAGS, "-O2", *(("-c", *_SANITIZE) if sanitized else ("-shared",))]
    unit = "\n".join(f'#include "{name}"' for name in ("on_cpu.cpp", *(["sanitized.cpp"] if sanitized else [])))

    def make(path: Path) -> None:
        # Kernels find it beside themselves under this name: linking it into each would take longer than loading it.
        named = [] if sanitized else [f"-Wl,-soname,{path.name}"]
        _compile(["-x", "c++", "-", *flags, *named, f"-I{CPU_FOLDER}", "-o", str(path)], unit, None)

    return cache.kept("on_cpu", "\0".join([_cpu_digest(), unit, *flags]), ".o" if sanitized else ".so", make)


def _compile(arguments: list[str], unit: str, source: Source | None) -> None:
    done = subprocess.run([_compiler(), *arguments], input=unit, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip() or f"{_compiler()} ended with status {done.returncode}"
        raise CompileError.of(source.path if source else CPU_FOLDER, "the CPU", said)


@functools.cache
def _compiler() -> str:
    named = os.environ.get("CXX")
    found = shutil.which(named or "g++") or shutil.which("c++")
    if found is None:
        raise Unsupported("running kernels on the CPU needs a C++ compiler; install g++, or name one in CXX")
    return found


@functools.cache
def _cpu_digest() -> str:
    return "\0".join(file.read_text() for file in sorted(CPU_FOLDER.iterdir()) if file.is_file())
