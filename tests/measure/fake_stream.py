"""A device without a device: a stream whose work takes the time that it says, and a host whose clock calls move."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from opbench.measure.clock import Clock

MICROSECOND, MILLISECOND = 1_000, 1_000_000


@dataclass
class FakeStream:
    """Integers of nanoseconds: `now` of the host, `free_at` of the device."""

    cache_bytes: int = 1 << 20
    depth: int = 1000
    """Launches that the queue holds; the host then waits until the device has done all of them."""
    now: int = 0
    free_at: int = 0
    elsewhere_until: int = 0
    """When the work on other streams ends."""
    released_at: int = 0
    queued: int = 0
    log: list[str] = field(default_factory=list)
    recording: list[int] | None = None
    jitter: int = 0

    @property
    def clock(self) -> Clock:
        return Clock(wall=lambda: self.now, cpu=lambda: self.now // 2, stalled=lambda: None)

    def current(self) -> AbstractContextManager[None]:
        return nullcontext()

    def launch(self, device: int, host: int = 2 * MICROSECOND) -> None:
        """Queue work of so many nanoseconds, at so much cost for the host."""
        if self.recording is not None:
            self.recording.append(device)
            return
        self.now += host
        if self.queued >= self.depth:
            self.drain()
        self.queued += 1
        # A jitter of a few hundredths of a per cent, so that the clock's step is finer than the times.
        self.jitter += 1
        self.free_at = max(self.free_at, self.now) + device + self.jitter * 7 % 11 * (device // 20_000)

    def drain(self) -> None:
        self.now = max(self.now, self.free_at)
        self.queued = 0

    def hold(self, seconds: float) -> None:
        self.log.append("hold")
        self.launch(round(seconds * 1e9))
        self.released_at = self.free_at

    def is_held(self) -> bool:
        return self.now < self.released_at

    def evict(self) -> None:
        self.log.append("evict")
        self.launch(60 * MICROSECOND)

    def mark(self) -> int:
        # An event comes to pass when all before it is done, and never before it was queued.
        self.free_at = max(self.free_at, self.now)
        return self.free_at

    def seconds(self, begin: int, end: int) -> float:
        return (end - begin) / 1e9

    def wait(self) -> None:
        self.drain()
        self.now = max(self.now, self.elsewhere_until)

    def record(self, work: Callable[[], object]) -> Callable[[], None]:
        self.recording = []
        try:
            work()
            recorded = self.recording
        finally:
            self.recording = None
        return lambda: self.launch(sum(recorded))

    def call(
        self, device: int, host: int = 5 * MICROSECOND, launches: int = 1, name: str = "call"
    ) -> Callable[[], str]:
        """A call that launches kernels which take so long together, and returns its name."""

        def run() -> str:
            self.log.append(name)
            for _ in range(launches):
                self.launch(device // launches, host // launches)
            return name

        return run

    def waiting_call(self, device: int) -> Callable[[], str]:
        """A call that needs its result on the host."""

        def run() -> str:
            if self.recording is not None:
                raise RuntimeError("operation not permitted when stream is capturing")
            self.launch(device)
            self.drain()
            return "waited"

        return run

    def stray_call(self, device: int) -> Callable[[], str]:
        """A call that works on another stream."""

        def run() -> str:
            self.now += 5 * MICROSECOND
            self.elsewhere_until = max(self.elsewhere_until, self.now) + device
            return "elsewhere"

        return run
