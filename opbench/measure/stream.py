"""What a device offers for timing, and one block of samples on it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from opbench.measure.blocks import Plan
from opbench.measure.nvml import GpuState

Call = Callable[[], Any]

TICK_SECONDS = 0.5e-6
"""An event's step: less cannot be told from it."""

_NANOSECONDS = 1e9


class Stream(Protocol):
    """An ordered queue of work on a device."""

    cache_bytes: int
    """Last-level cache of the device."""

    def current(self) -> AbstractContextManager[Any]:
        """Make it the stream that calls are queued on while the block runs."""

    def hold(self, seconds: float) -> None:
        """Queue a blocker that ends by itself after about so long."""

    def is_held(self) -> bool:
        """Whether the last blocker has not ended yet."""

    def evict(self) -> None:
        """Queue writing over the cache and reading it back."""

    def mark(self) -> Any:
        """Queue a note of the time."""

    def seconds(self, begin: Any, end: Any) -> float:
        """Time between two marks that the device has passed."""

    def wait(self) -> None:
        """Wait until the whole device has nothing to do."""

    def record(self, work: Call) -> Call:
        """Record the work that a call queues, without doing it; return what queues all of it at once.

        Raises:
            RuntimeError: it cannot be recorded.
        """


@dataclass(frozen=True)
class Look:
    """What else goes on, at one moment."""

    compiled: int = 0
    """Graphs that torch.compile has compiled in this process."""
    state: GpuState | None = None


class Work(Protocol):
    """What queues one sample."""

    @property
    def count(self) -> int:
        """Calls of a sample."""

    def queue(self) -> None:
        """Queue them."""


class Round:
    """Queues the calls of one sample, going on round the ring."""

    def __init__(self, calls: Sequence[Call], count: int, *, keep: bool) -> None:
        self.count = count
        self.results: list[Any] = []
        """What the latest sample's calls returned; of all where they are to be kept, else of the first."""
        self._ring = itertools.cycle(calls)
        self._keep = keep

    def queue(self) -> None:
        """Make the next calls."""
        self.results = []
        for call in itertools.islice(self._ring, self.count):
            result = call()
            if self._keep or not self.results:
                self.results.append(result)


@dataclass(frozen=True)
class Recorded:
    """Queues a sample that was recorded as a graph."""

    replay: Call
    count: int

    def queue(self) -> None:
        """Replay it."""
        self.replay()


@dataclass(frozen=True)
class Nothing:
    """Queues nothing: shows what two marks alone take."""

    count: int

    def queue(self) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Block:
    """What one block saw, in seconds; of lists, a number for each sample."""

    device: list[float]
    """What passed between its two marks."""
    host: list[float]
    """What queuing it took the host."""
    queued_seconds: float
    """What queuing the whole block took the host, marks and evictions included."""
    held: bool
    """Whether the blocker outlasted the queuing."""
    look: Look


def take_block(
    stream: Stream, work: Work, plan: Plan, *, cold: bool, look: Callable[[], Look], wall: Callable[[], int]
) -> Block:
    """Queue a block behind its blocker, then wait for it to end.

    Args:
        stream: where to; nothing else may be queued there meanwhile.
        work: what queues one sample.
        plan: how many, and how long to hold the stream.
        cold: whether to evict the cache before each sample.
        look: what is asked what else goes on.
        wall: nanoseconds of the host from an arbitrary start.
    """
    marks: list[tuple[Any, Any]] = []
    host: list[float] = []
    stream.wait()
    if plan.hold_seconds:
        stream.hold(plan.hold_seconds)
    queuing = wall()
    for _ in range(plan.samples):
        if cold:
            stream.evict()
        begin = stream.mark()
        launching = wall()
        work.queue()
        host.append((wall() - launching) / _NANOSECONDS)
        marks.append((begin, stream.mark()))
    queued_seconds, held = (wall() - queuing) / _NANOSECONDS, stream.is_held()
    # While the device is at work: once it idles, its clock says nothing of the block.
    seen = look()
    stream.wait()
    device = [max(TICK_SECONDS, stream.seconds(*pair)) for pair in marks]
    return Block(device=device, host=host, queued_seconds=queued_seconds, held=held, look=seen)
