"""The timing loop, under a clock that moves only when a call says so."""

import gc
import math
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from opbench.measure import clock
from opbench.measure.clock import (
    MAX_SETS,
    Clock,
    calls_per_sample,
    once,
    sample,
    sets_for_cold,
    shortest_sample_seconds,
)
from opbench.measure.stop import StopRule, WarmUp
from opbench.results import Sampling

MICROSECOND, MILLISECOND = 1_000, 1_000_000


class FakeTime:
    """Nanoseconds that pass only in calls; the processor works for a share of them."""

    def __init__(self, busy: float = 1.0, reading: int = 0) -> None:
        self.now = 0
        self.busy = busy
        self.reading = reading
        self.log: list[str] = []

    @property
    def clock(self) -> Clock:
        return Clock(wall=self.wall, cpu=lambda: round(self.now * self.busy), stalled=lambda: self.now * 0.25 / 1e9)

    def wall(self) -> int:
        self.now += self.reading
        return self.now

    def call(self, nanoseconds: int, name: str = "call") -> Callable[[], None]:
        def run() -> None:
            self.log.append(name)
            # A jitter of a tenth of a thousandth, so that the clock shows a step much finer than the time.
            self.now += nanoseconds + (len(self.log) * 7 % 11) * max(1, nanoseconds // 10_000)

        return run


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    yield
    assert gc.isenabled()


def taken(fake: FakeTime, *calls: Callable[[], object], rule: StopRule | None = None) -> Sampling:
    return sample(calls, rule or StopRule(), first_seconds=7.0, clock=fake.clock)


def test_a_sample_is_as_many_calls_as_last_a_millisecond() -> None:
    fake = FakeTime()
    found = taken(fake, fake.call(100 * MICROSECOND))
    assert found.calls_per_sample == 10
    assert found.seconds == pytest.approx([1e-4] * len(found.seconds), rel=2e-3)
    assert found.stopped == "precise"
    assert found.first_seconds == 7.0
    assert found.overhead_seconds == 0.0


def test_a_long_call_is_a_sample_of_its_own() -> None:
    fake = FakeTime()
    found = taken(fake, fake.call(10 * MILLISECOND))
    assert found.calls_per_sample == 1
    assert (found.warmup_samples, len(found.seconds)) == (30, 50)


def test_every_sample_and_the_wall_time_are_kept() -> None:
    fake = FakeTime(busy=0.25)
    found = taken(fake, fake.call(10 * MILLISECOND))
    assert found.wall_seconds == pytest.approx(sum(found.seconds))
    assert found.cpu_seconds == pytest.approx(found.wall_seconds / 4)
    assert found.stalled_seconds == pytest.approx(found.wall_seconds / 4)
    # One pilot call, then one call for each sample.
    assert len(fake.log) == 1 + found.warmup_samples + len(found.seconds)


def test_calls_that_become_faster_are_planned_anew() -> None:
    """Five times slower for its first twenty calls: the 2 calls the pilot asked for would then last 0.2 ms."""
    fake = FakeTime()
    slow, fast = fake.call(500 * MICROSECOND), fake.call(100 * MICROSECOND)
    found = taken(fake, lambda: slow() if len(fake.log) < 20 else fast())
    assert found.calls_per_sample == 10
    assert min(found.seconds) * found.calls_per_sample >= 0.999e-3


def test_the_ring_is_walked_in_order_and_never_restarted() -> None:
    fake = FakeTime()
    taken(fake, *(fake.call(300 * MICROSECOND, name) for name in "abc"))
    assert "".join(fake.log) == "abc" * (len(fake.log) // 3) + "abc"[: len(fake.log) % 3]


def test_caps_are_kept() -> None:
    fake = FakeTime()
    wild = iter(range(100_000))
    found = taken(
        fake,
        lambda: fake.call(MILLISECOND * (1 + next(wild) * 7 % 11))(),
        rule=StopRule(precision=1e-6, max_samples=60),
    )
    assert (found.stopped, len(found.seconds)) == ("max_samples", 60)
    found = taken(fake, fake.call(1000 * MILLISECOND), rule=StopRule(max_seconds=2.5))
    assert (found.stopped, len(found.seconds), found.warmup_samples) == ("max_seconds", 3, 1)


def test_a_clock_that_is_slow_to_read_gets_longer_samples() -> None:
    """Reading costs 2 µs: a thousand readings last 2 ms, so a sample does too."""
    fake = FakeTime(reading=2 * MICROSECOND)
    found = taken(fake, fake.call(100 * MICROSECOND))
    assert found.calls_per_sample == 20
    # One reading a sample falls between its two, and is all that the empty loop shows: 2 µs over 20 calls.
    assert found.overhead_seconds == pytest.approx(1e-7)


def test_garbage_waits_and_comes_back_even_after_an_error() -> None:
    states: list[bool] = []

    def fail() -> None:
        states.append(gc.isenabled())
        raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match="no such kernel"):
        sample([fail], StopRule(), first_seconds=0.0)
    assert states == [False]
    assert gc.isenabled()


def test_garbage_collection_stays_off_where_it_was_off() -> None:
    fake = FakeTime()
    gc.disable()
    try:
        taken(fake, fake.call(MILLISECOND))
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_nothing_to_call_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to call"):
        taken(FakeTime())


def test_once_returns_the_time_and_the_result() -> None:
    fake = FakeTime()
    call = fake.call(3 * MILLISECOND)
    seconds, result = once(lambda: (call(), "y")[1], fake.clock)
    assert seconds == pytest.approx(3e-3, rel=1e-2)
    assert result == "y"


def test_the_real_clock_measures_a_real_call() -> None:
    """Lower bounds only: a busy machine may add anything."""
    rule = StopRule(max_samples=60, max_seconds=0.5)
    found = sample([lambda: sum(range(2000))], rule, first_seconds=0.0, warm_up=WarmUp(max_seconds=0.05))
    assert found.calls_per_sample >= 2
    assert 0 < found.overhead_seconds < min(found.seconds)
    assert found.wall_seconds >= math.fsum(found.seconds) * found.calls_per_sample
    assert found.cpu_seconds > 0


def test_processor_time_counts_every_thread() -> None:
    def burn() -> None:
        begin = time.thread_time()
        while time.thread_time() - begin < 0.02:
            pass

    begin = clock.CLOCK.cpu()
    threads = [threading.Thread(target=burn) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.CLOCK.cpu() - begin >= 40 * MILLISECOND


def test_shortest_sample_is_a_millisecond_or_a_thousand_readings() -> None:
    assert shortest_sample_seconds(50e-9) == 1e-3
    assert shortest_sample_seconds(3e-6) == pytest.approx(3e-3)


def test_calls_fill_a_sample() -> None:
    assert calls_per_sample(1.0, 1e-3) == 1
    assert calls_per_sample(1e-3, 1e-3) == 1
    assert calls_per_sample(0.3e-3, 1e-3) == 4


def test_a_cold_ring_exceeds_twice_the_cache() -> None:
    assert sets_for_cold(10, 100) == 21
    assert sets_for_cold(11, 100) == 19
    assert sets_for_cold(1000, 100) == 2
    assert sets_for_cold(1, 1 << 30) == MAX_SETS
    assert sets_for_cold(0, 100) == 2
