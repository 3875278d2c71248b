"""Runs a function in a forked child, so that whatever it does costs its own result only.

A child may segfault, hang, exhaust memory, print, leave threads behind or call exit: the parent gets an `Ending`. The
parent must have touched neither CUDA nor an OpenMP region, because neither survives a fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import pickle
import resource
import select
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from opbench.errors import Unsupported

_LENGTH = struct.Struct("<Q")
_PR_SET_PDEATHSIG = 1
_TICK_SECONDS = 0.1
# torch imports the second when a tensor mode or a meta tensor is first used: most of a second in every child.
_TORCH_MODULES = ("torch", "torch._dynamo")
_OUT_OF_MEMORY_WORDS = ("not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a child ended."""

    kind: Literal["returned", "unsupported", "failed", "out_of_memory", "timed_out", "crashed"]
    value: Any = None
    """What the function returned."""
    reason: str = ""
    """What went wrong, in one line."""


def run(
    function: Callable[..., Any],
    *arguments: Any,
    timeout_seconds: float,
    memory_bytes: int | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Ending:
    """Call a function in a child process and wait for its ending.

    Args:
        function: any callable; its result must pickle.
        arguments: passed on; they need not pickle.
        timeout_seconds: the child and its descendants are killed after this long.
        memory_bytes: how much more address space than the parent the child may map; allocations beyond it fail.
        tick: called about ten times a second while waiting.

    A KeyboardInterrupt while waiting kills the child and goes on to the caller.
    """
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as output:
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            # Python warns of threads in the parent; those of numpy's BLAS are idle and know how to survive a fork.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            os.close(reader)
            _be_the_child(function, arguments, writer, output, memory_bytes)
        os.close(writer)
        try:
            payload = _wait(child, reader, time.monotonic() + timeout_seconds, tick)
        except TimeoutError:
            return Ending(kind="timed_out", reason=f"no result after {timeout_seconds:g} s")
        finally:
            os.close(reader)
            _kill(child)
            _, status = os.waitpid(child, 0)
        if payload is not None:
            ending: Ending = pickle.loads(payload)
            return ending
        return _crash(status, _tail(output))


def import_early(*modules: str) -> None:
    """Import torch and other modules once here, so that every child finds them in memory; absent ones are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in (*_TORCH_MODULES, *modules):
            with contextlib.suppress(ImportError):
                importlib.import_module(module)


def _wait(child: int, reader: int, deadline: float, tick: Callable[[], None]) -> bytes | None:
    """Return the child's complete message, or None when it died without one."""
    received = bytearray()
    death = os.pidfd_open(child)
    os.set_blocking(reader, False)
    try:
        while time.monotonic() < deadline:
            tick()
            ready, _, _ = select.select([reader, death], [], [], _TICK_SECONDS)
            # Read first: a child that wrote its message and exited at once is both readable and dead.
            ended = _drain(reader, received)
            if len(received) >= _LENGTH.size and len(received) - _LENGTH.size >= _LENGTH.unpack_from(received)[0]:
                return bytes(received[_LENGTH.size :])
            if ended or death in ready:
                return None
        raise TimeoutError
    finally:
        os.close(death)


def _drain(reader: int, received: bytearray) -> bool:
    """Take what is there; return whether the other end is closed."""
    while True:
        try:
            chunk = os.read(reader, 1 << 20)
        except BlockingIOError:
            return False
        if not chunk:
            return True
        received += chunk


def _be_the_child(
    function: Callable[..., Any], arguments: tuple[Any, ...], writer: int, output: IO[bytes], memory_bytes: int | None
) -> None:
    """Run the function, send its ending, leave; never returns."""
    status = 1
    try:
        _settle(output, memory_bytes)
        message = pickle.dumps(_ending(function, arguments))
        with open(writer, "wb", closefd=False) as pipe:
            pipe.write(_LENGTH.pack(len(message)) + message)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _settle(output: IO[bytes], memory_bytes: int | None) -> None:
    """Make the child a good neighbour: its own session, no terminal, no core file, first to go when memory is short."""
    os.setsid()
    gc.freeze()  # What was inherited is not garbage: collecting would only copy its pages.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    sys.stdout = sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if memory_bytes is not None:
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + memory_bytes,) * 2)


def _ending(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Ending:
    try:
        return Ending(kind="returned", value=function(*arguments))
    except Unsupported as answer:
        return Ending(kind="unsupported", reason=str(answer))
    except MemoryError:
        return Ending(kind="out_of_memory", reason="an allocation failed")
    except BaseException as error:
        if any(words in str(error) for words in _OUT_OF_MEMORY_WORDS):
            return Ending(kind="out_of_memory", reason=_one_line(error))
        return Ending(kind="failed", reason=_one_line(error))


def _one_line(error: BaseException) -> str:
    """'plugin.py:12: ValueError: what it said'."""
    lines = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: {said}" if frames else said


def _kill(child: int) -> None:
    """Kill the child and all it started; the child leads a session of its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)


def _crash(status: int, said: str) -> Ending:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        reason = f"signal {number} ({signal.Signals(number).name})"
        if number == signal.SIGKILL:
            reason += "; the system may have run out of memory"
    else:
        reason = f"exit status {os.WEXITSTATUS(status)} without a result"
    out_of_memory = any(words in said.lower() for words in _OUT_OF_MEMORY_WORDS)
    last = said.strip().splitlines()[-1:] if said.strip() else []
    return Ending(kind="out_of_memory" if out_of_memory else "crashed", reason=": ".join([reason, *last]))


def _tail(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - 4096))
    return output.read().decode(errors="replace")
