"""How a child process ended: what it returned, or what went wrong in one line.

A result crosses from child to parent pickled. What fails on the way is one more way to end: neither a result that
cannot be sent nor one that cannot be read may cost the parent anything.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
import pickle
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from opbench import cuda_errors
from opbench.errors import OpbenchError, Unsupported, said, short
from opbench.registry import ENTRY_FILE

_OUT_OF_MEMORY_WORDS = (
    "out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc",
    "status_alloc_failed",
)  # fmt: skip
_RESERVE_BYTES = 4 << 20
_DUMP = "Fatal Python error: "
"""What Python's fault handler begins with when it says where a crash happened."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a child ended."""

    kind: Literal["returned", "unsupported", "failed", "out_of_memory", "timed_out", "crashed"]
    value: Any = None
    """What the function returned."""
    reason: str = ""
    """What went wrong, in one line."""
    device_lost: bool = False
    """Whether it crashed because its GPU is no longer to be had: other children will fare no better."""


def message_of(function: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    """Call a function and return its ending as a message; whatever it raises is an ending too."""
    return pickle.dumps(_ending_of(function, arguments))


def read(message: bytes) -> Ending:
    """Read a message without importing anything."""
    try:
        ending: Ending = _Unpickler(io.BytesIO(message)).load()
        if ending.kind != "returned":
            return ending
        return dataclasses.replace(ending, value=_Unpickler(io.BytesIO(ending.value)).load())
    except Exception as error:
        return Ending(kind="failed", reason=short(f"its result cannot be read: {_one_line(error)}"))


def of_crash(status: int, output: str) -> Ending:
    """Tell how a process ended that sent nothing, by its wait status and the end of its output."""
    words, _, dump = output.partition(_DUMP)
    if os.WIFSIGNALED(status):
        reason = _signal(os.WTERMSIG(status))
        stack = re.findall(r'^ *File "(.*)", line (\d+)', dump, re.MULTILINE)
        # Beyond this module lies the parent's stack, of which the child has a copy.
        if places := list(itertools.takewhile(lambda place: place[0] != __file__, stack)):
            reason += f" at {_innermost(places)}"
        if os.WTERMSIG(status) == signal.SIGKILL:
            reason += "; the system may have run out of memory"
    else:
        reason = f"exit status {os.WEXITSTATUS(status)} without a result"
    if fault := cuda_errors.find(words):
        return Ending(kind="crashed", reason=f"{reason}: {fault}", device_lost=fault.cost == "device")
    last = next(filter(None, map(short, reversed(words.splitlines()))), "")
    kind: Literal["out_of_memory", "crashed"] = "out_of_memory" if _says_out_of_memory(words) else "crashed"
    return Ending(kind=kind, reason=": ".join(filter(None, [reason, last])))


class _Unpickler(pickle.Unpickler):
    """Refuses classes of modules that are not imported here: a plugin's would bring the plugin with them.

    And tensors, which may lie on a GPU: reading one would initialise CUDA, and no child could use it any more.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            raise pickle.UnpicklingError("it holds a tensor, and only plain data is sent")
        if module not in sys.modules:
            raise pickle.UnpicklingError(f"it holds a {name} of {module}, which is not imported here")
        return super().find_class(module, name)


def _ending_of(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Ending:
    """Call the function; what it returns is pickled within the same net that catches what it raises."""
    reserve = [bytearray(_RESERVE_BYTES)]
    try:
        return Ending(kind="returned", value=pickle.dumps(function(*arguments)))
    except Unsupported as answer:
        return Ending(kind="unsupported", reason=said(answer) or "it does not say why")
    except BaseException as error:
        reserve.clear()  # Where memory is exhausted, saying so takes some.
        traceback.clear_frames(error.__traceback__)  # What they hold may be all the memory there is.
        return _of_error(error)


def _of_error(error: BaseException) -> Ending:
    """Tell an error by its own words and those of the errors it was raised from."""
    causes = list(_causes(error))
    words = "\n".join(map(_words, causes))
    if fault := cuda_errors.find(words):
        # A GPU works behind the program's back: the line that noticed is seldom the one to blame.
        reason = ", noticed at ".join(filter(None, [str(fault), _place(error)]))
        return Ending(kind="crashed", reason=reason, device_lost=fault.cost == "device")
    if any(isinstance(cause, MemoryError) for cause in causes) or _says_out_of_memory(words):
        shortage = cuda_errors.shortage(words)
        return Ending(
            kind="out_of_memory", reason=": ".join([_place(error), shortage]) if shortage else _one_line(error)
        )
    return Ending(kind="failed", reason=_one_line(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _words(error: BaseException) -> str:
    """All that an error says; '' where its own `__str__` fails."""
    try:
        return str(error)
    except Exception:
        return ""


def _says_out_of_memory(text: str) -> bool:
    return any(words in text.lower() for words in _OUT_OF_MEMORY_WORDS)


def _one_line(error: BaseException) -> str:
    """'plugin.py:12: ValueError: what it said'; an error of opbench says itself where it comes from."""
    if isinstance(error, OpbenchError):
        return said(error)
    return ": ".join(filter(None, [_place(error), type(error).__name__, said(error)]))


def _place(error: BaseException) -> str:
    return _innermost([(frame.filename, frame.lineno) for frame in reversed(traceback.extract_tb(error.__traceback__))])


def _innermost(places: Sequence[tuple[str, object]]) -> str:
    """'plugin.py:12': of places from the innermost on, the first in an operator's folder, or else the first."""
    own = [place for place in places if (Path(place[0]).parent / ENTRY_FILE).is_file()]
    return next((f"{Path(file).name}:{line}" for file, line in [*own, *places]), "")


def _signal(number: int) -> str:
    """'signal 11 (SIGSEGV)'; real-time signals have no name."""
    name = next((f" ({known.name})" for known in signal.Signals if known == number), "")
    return f"signal {number}{name}"
