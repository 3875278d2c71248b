"""The clock that fits a device, under one face: what a worker times with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from opbench.measure import ceilings, clock, processor
from opbench.measure.device_clock import DeviceClock
from opbench.measure.stop import StopRule
from opbench.results import Sampling

T = TypeVar("T")
Call = Callable[[], Any]


class Timer(Protocol):
    """Times calls on one device."""

    def current(self) -> AbstractContextManager[Any]:
        """Make and run all calls where the timer sees them while the block runs."""

    def cold_sets(self, bytes_per_set: int) -> int:
        """Buffer sets that calls must go round to find a cold cache."""

    def once(self, call: Callable[[], T]) -> tuple[float, T]:
        """Return the seconds one call takes until its result is there, and the result."""

    def sample(self, calls: Sequence[Call], rule: StopRule, *, cold: bool, first_seconds: float) -> Sampling:
        """Warm up, then sample until the rule says stop; `first_seconds` is passed on."""


@dataclass(frozen=True)
class HostTimer:
    """Times calls on the CPU; the ring alone makes its cache cold."""

    threads: int
    """Most threads that will compute at once."""

    def current(self) -> AbstractContextManager[Any]:
        """Calls on the CPU are seen wherever they run."""
        return nullcontext()

    def cold_sets(self, bytes_per_set: int) -> int:
        """Fewest sets that exceed twice the last-level caches of all threads."""
        return clock.sets_for_cold(bytes_per_set, processor.last_level_cache_bytes(self.threads))

    def once(self, call: Callable[[], T]) -> tuple[float, T]:
        """Return the seconds one call takes, and what it returns."""
        return clock.once(call)

    def sample(self, calls: Sequence[Call], rule: StopRule, *, cold: bool, first_seconds: float) -> Sampling:
        """Sample with the number of threads that torch has been told."""
        return clock.sample(calls, rule, first_seconds=first_seconds)


def device_clock() -> DeviceClock:
    """Make the clock of the current GPU. Initialises CUDA: for child processes only."""
    from opbench.measure.cuda_stream import CudaStream, look

    return DeviceClock(CudaStream(ceilings.l2_bytes()), look)
