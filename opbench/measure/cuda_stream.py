"""A CUDA stream that can be held, through PyTorch alone. Initialises CUDA: for child processes only."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from opbench.measure import nvml
from opbench.measure.stream import Look

_CALIBRATION_CYCLES = 20_000_000
"""About 10 ms."""


class CudaStream:
    """A stream of its own on the current device, on which nothing else is ordered by accident.

    Work that a call puts on the legacy default stream is not ordered with it, and so is found out.
    """

    def __init__(self, cache_bytes: int) -> None:
        self.cache_bytes = cache_bytes
        self._stream = torch.cuda.Stream()
        self._released = torch.cuda.Event()
        with self.current(), torch.no_grad():
            self._lines = torch.empty(2 * cache_bytes // 4, dtype=torch.float32, device="cuda")
            self._sum = torch.empty((), dtype=torch.float32, device="cuda")
            self.evict()
            self._cycles_per_second = self._calibrated()

    def current(self) -> AbstractContextManager[Any]:
        """Make it torch's current stream while the block runs."""
        return torch.cuda.stream(self._stream)

    def hold(self, seconds: float) -> None:
        """Queue a kernel that waits for so many cycles."""
        torch.cuda._sleep(int(seconds * self._cycles_per_second))
        self._released.record()

    def is_held(self) -> bool:
        """Whether the last blocker has not ended yet."""
        return not self._released.query()

    def evict(self) -> None:
        """Write twice the cache, then read it back: else its lines would be written to memory within the next call."""
        self._lines.fill_(1.0)
        torch.sum(self._lines, dim=0, out=self._sum)

    def mark(self) -> torch.cuda.Event:
        """Record an event."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, begin: torch.cuda.Event, end: torch.cuda.Event) -> float:
        """Time between two events that have come to pass."""
        milliseconds: float = begin.elapsed_time(end)
        return milliseconds / 1e3

    def wait(self) -> None:
        """Wait until the whole device has nothing to do, on other streams neither."""
        torch.cuda.synchronize()

    def record(self, work: Callable[[], Any]) -> Callable[[], Any]:
        """Capture what a call queues into a graph, without doing it; return the graph's replay.

        Raises:
            RuntimeError: the call synchronises, or does something else that a graph cannot hold.
        """
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            work()
        replay: Callable[[], Any] = graph.replay
        return replay

    def _calibrated(self) -> float:
        """Cycles of the blocker in a second."""
        torch.cuda._sleep(1000)  # The first launch also loads the kernel.
        begin = self.mark()
        torch.cuda._sleep(_CALIBRATION_CYCLES)
        end = self.mark()
        self.wait()
        return _CALIBRATION_CYCLES / self.seconds(begin, end)


def look() -> Look:
    """Look at what else goes on: compilations of this process, and the pace of the device."""
    return Look(compiled=compiled_graphs(), state=nvml.pace(torch.cuda.current_device()))


def compiled_graphs() -> int:
    """Graphs that torch.compile has compiled in this process."""
    # Where nothing has imported it, nothing has been compiled.
    dynamo = sys.modules.get("torch._dynamo.utils")
    return 0 if dynamo is None else int(dynamo.counters["stats"]["unique_graphs"])
