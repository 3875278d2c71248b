"""Runs a function in a forked child, so that whatever it does costs its own result only.

A child may segfault, hang, exhaust memory, print, leave processes behind or call exit: the parent gets an `Ending`. The
parent must have touched neither CUDA nor an OpenMP region, because neither survives a fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import os
import re
import resource
import select
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from opbench import ending
from opbench.ending import Ending
from opbench.errors import MachineError
from opbench.measure import machine

_LENGTH = struct.Struct("<Q")
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_TICK_SECONDS, _SHORT_TICK_SECONDS = 0.1, 0.005
_TAIL_BYTES = 1 << 16
_SHARE_OF_MEMORY = 0.9
_LARGEST_FILE_BYTES = 1 << 30
"""Most that a child may write to a file, that of its output included: printing for ever must not fill the disk."""
# torch imports the second when a tensor mode or a meta tensor is first used: most of a second in every child.
_TORCH_MODULES = ("torch", "torch._dynamo")


def run(
    function: Callable[..., Any],
    *arguments: Any,
    timeout_seconds: float,
    memory_bytes: int | None = None,
    cuda: bool = False,
    tick: Callable[[], None] = lambda: None,
) -> Ending:
    """Call a function in a child process and wait for its ending.

    Args:
        function: any callable; its result must pickle, and be made of classes that are imported here.
        arguments: passed on; they need not pickle.
        timeout_seconds: the child and its descendants are killed after this long.
        memory_bytes: how much more address space than the parent the child may map, what is spendable unless given;
            allocations beyond it fail.
        cuda: whether the child uses a GPU. CUDA reserves far more addresses than it uses, so the limit is then on
            private writable memory alone.
        tick: called about ten times a second while waiting.

    A KeyboardInterrupt while waiting kills the child and goes on to the caller.

    Raises:
        MachineError: the system refuses another process, or a child that uses a GPU lost it for good.
    """
    if cuda and "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
        raise RuntimeError("CUDA is initialised in this process, so no child of it can use a GPU")
    memory_bytes = spendable_bytes() if memory_bytes is None else memory_bytes
    others = _adopting_children()
    reader, writer = os.pipe()
    with (
        tempfile.TemporaryFile() as output,
        os.fdopen(reader, "rb", buffering=0) as inbox,
        os.fdopen(writer, "wb") as outbox,
        _interrupts_held() as mask,
    ):
        parent, child = os.getpid(), _fork()
        if child == 0:
            _be_the_child(function, arguments, outbox, lambda: _settle(parent, mask, output, memory_bytes, cuda))
        outbox.close()
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            message = _wait(child, inbox, time.monotonic() + timeout_seconds, tick)
        except TimeoutError:
            return Ending(kind="timed_out", reason=f"no result after {timeout_seconds:g} s")
        finally:
            status = _end(child, others)
        ended = ending.of_crash(status, _tail(output)) if message is None else ending.read(message)
        if cuda and ended.device_lost:
            raise MachineError(
                f"the GPU cannot be used any more ({ended.reason}); look at nvidia-smi and its kernel log"
            )
        return ended


def spendable_bytes() -> int:
    """Bytes of memory a child may take: what is free, less a share for what nobody foresees."""
    return int(_SHARE_OF_MEMORY * machine.available_bytes())


def import_early(*modules: str) -> None:
    """Import torch and other modules once here, so that every child finds them in memory; absent ones are left out."""
    # Else whoever asks torch whether there is a GPU initialises the driver here, which no child survives.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in (*_TORCH_MODULES, *modules):
            with contextlib.suppress(ImportError):
                importlib.import_module(module)


def _adopting_children() -> set[int]:
    """Make this process the next parent of descendants that lose theirs; return the children it has already."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    return _children()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[Collection[int]]:
    """Keep Ctrl-C out of the moments between the fork and the code that cleans up after it."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _fork() -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # Python warns of threads in the parent; those of numpy's BLAS are idle and know how to survive a fork.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return os.fork()
        except OSError as error:
            raise MachineError(f"cannot start another process: {error.strerror}") from error


def _wait(child: int, inbox: IO[bytes], deadline: float, tick: Callable[[], None]) -> bytes | None:
    """Return the child's complete message, or None when it died without one."""
    received = bytearray()
    poll = select.poll()
    poll.register(inbox, select.POLLIN)
    pause = _TICK_SECONDS
    while time.monotonic() < deadline:
        dead = _is_dead(child)
        if not poll.poll(1000 * (0 if dead else pause)):
            tick()
        # Read last: what a child wrote before it died is there when its death is seen.
        elif chunk := inbox.read(1 << 20):
            received += chunk
            if len(received) >= _LENGTH.size and len(received) - _LENGTH.size >= _LENGTH.unpack_from(received)[0]:
                return bytes(received[_LENGTH.size :])
            continue
        else:
            # The child has closed its end; mostly it dies at once, but it may live on all the same.
            poll.unregister(inbox)
            pause = _SHORT_TICK_SECONDS
        if dead:
            return None
    raise TimeoutError


def _is_dead(child: int) -> bool:
    """Whether a child has ended; it stays to be waited for. Sandboxes that lack `pidfd_open` know this call."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _be_the_child(
    function: Callable[..., Any], arguments: tuple[Any, ...], outbox: IO[bytes], settle: Callable[[], None]
) -> NoReturn:
    """Run the function, send its ending, leave."""
    status = 1
    try:
        settle()
        child = os.getpid()
        message = ending.message_of(function, arguments)
        if os.getpid() == child:  # The function may have forked; then both come back here.
            outbox.write(_LENGTH.pack(len(message)) + message)
            outbox.flush()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _settle(parent: int, mask: Collection[int], output: IO[bytes], memory_bytes: int, cuda: bool) -> None:
    """Make the child a good neighbour: its own session, no terminal, no core file, first to go when memory is short."""
    os.setsid()
    gc.freeze()  # What was inherited is not garbage: collecting would only copy its pages.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # It died before it could take this child with it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    faulthandler.enable(2, all_threads=False)  # Says in the output where a crash happened.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, _LARGEST_FILE_BYTES)
    if cuda:
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # As NVML numbers them.
        _limit(resource.RLIMIT_DATA, _held_bytes("VmData") + memory_bytes)
    else:
        _limit(resource.RLIMIT_AS, _held_bytes("VmSize") + memory_bytes)


def _held_bytes(quantity: str) -> int:
    """What the kernel says of this process: 'VmSize' is all it has mapped, 'VmData' its private writable memory."""
    found = re.search(rf"^{quantity}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def _limit(kind: int, value: int) -> None:
    """Lower a limit; one that is lower already stays."""
    _, hard = resource.getrlimit(kind)
    lower = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (lower, lower))


def _end(child: int, others: set[int]) -> int:
    """Kill the child and all it started; return the child's status."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # It leads a session of its own.
    _kill(child)
    _, status = os.waitpid(child, 0)
    while orphans := _children() - others:
        for orphan in orphans:
            _kill(orphan)
            os.waitpid(orphan, 0)
    return status


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def _children() -> set[int]:
    """Children of this process; none where the kernel keeps no list."""
    lists = [file.read_text() for file in Path("/proc/self/task").glob("*/children")]
    return {int(child) for line in lists for child in line.split()}


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value)


def _tail(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - _TAIL_BYTES))
    return output.read().decode(errors="replace")
