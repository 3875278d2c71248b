"""The timing loop of a GPU, on a stream whose work takes the time that it says."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median

import pytest

from opbench.errors import PluginError
from opbench.measure import nvml
from opbench.measure.blocks import MOST_CALLS, PATIENCE
from opbench.measure.device_clock import CALLS_WAITED_FOR, DeviceClock
from opbench.measure.nvml import GpuState
from opbench.measure.stop import StopRule
from opbench.measure.stream import TICK_SECONDS, Look, Round
from opbench.results import Sampling
from tests.measure.fake_stream import MICROSECOND, MILLISECOND, FakeStream


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    yield
    assert gc.isenabled()


def clock_of(stream: FakeStream, look: Callable[[], Look] = Look) -> DeviceClock:
    return DeviceClock(stream, look, stream.clock)


def taken(
    stream: FakeStream,
    *calls: Callable[[], object],
    cold: bool = False,
    rule: StopRule | None = None,
    look: Callable[[], Look] = Look,
) -> Sampling:
    return clock_of(stream, look).sample(calls, rule or StopRule(), cold=cold, first_seconds=7.0)


# What is measured.


def test_a_long_call_is_a_sample_of_its_own() -> None:
    stream = FakeStream()
    found = taken(stream, stream.call(300 * MICROSECOND))
    assert found.calls_per_sample == 1
    assert found.seconds == pytest.approx([300e-6] * len(found.seconds), rel=1e-3)
    assert (found.stopped, found.first_seconds, found.warmup_samples, len(found.seconds)) == ("precise", 7.0, 30, 50)
    assert (found.voided, found.despite, found.note) == ({}, (), "")


def test_short_calls_share_a_sample_of_200_microseconds() -> None:
    stream = FakeStream()
    found = taken(stream, stream.call(9 * MICROSECOND, host=2 * MICROSECOND))
    assert found.calls_per_sample == 23
    assert found.seconds == pytest.approx([9e-6] * len(found.seconds), rel=1e-3)


def test_a_host_slower_than_the_device_is_not_measured_as_the_device() -> None:
    """The host takes 40 µs to launch what the device does in 10: unheld, the device would wait 30 µs a call."""
    stream = FakeStream()
    found = taken(stream, stream.call(10 * MICROSECOND, host=40 * MICROSECOND, launches=4))
    assert median(found.seconds) == pytest.approx(10e-6, rel=1e-3)
    assert found.host_seconds == pytest.approx([40e-6] * len(found.seconds))
    assert found.despite == ()


def test_a_caller_waits_for_launch_and_work() -> None:
    stream = FakeStream()
    found = taken(stream, stream.call(100 * MICROSECOND, host=20 * MICROSECOND))
    assert len(found.call_seconds) == CALLS_WAITED_FOR
    assert found.call_seconds == pytest.approx([120e-6] * CALLS_WAITED_FOR, rel=1e-2)


def test_slow_calls_are_waited_for_no_longer_than_a_quarter_of_the_time() -> None:
    stream = FakeStream()
    found = taken(stream, stream.call(100 * MILLISECOND), rule=StopRule(max_seconds=1.0))
    assert len(found.call_seconds) == 3
    assert found.stopped == "max_seconds"
    assert found.wall_seconds == pytest.approx(1.0, rel=0.2)


def test_what_two_marks_alone_take_is_told() -> None:
    stream = FakeStream()
    found = taken(stream, stream.call(MILLISECOND))
    assert found.overhead_seconds == TICK_SECONDS


def test_a_call_that_does_nothing_takes_a_tick_at_the_least() -> None:
    found = taken(FakeStream(), lambda: None)
    assert found.calls_per_sample == MOST_CALLS
    assert min(found.seconds) * MOST_CALLS == pytest.approx(TICK_SECONDS)


def test_clocks_are_those_seen_while_sampling() -> None:
    stream = FakeStream()
    state = GpuState(name="made up", uuid="GPU-0", taken_seconds=0.0, sm_clock_hz=1.5e9)
    found = taken(stream, stream.call(MILLISECOND), look=lambda: Look(state=state))
    assert found.sm_clock_hz == 1.5e9


# Cold and hot.


def test_a_cold_sample_begins_with_an_evicted_cache_outside_the_marks() -> None:
    stream = FakeStream()
    found = taken(stream, *(stream.call(300 * MICROSECOND, name=name) for name in "ab"), cold=True)
    assert median(found.seconds) == pytest.approx(300e-6, rel=1e-3)
    calls = [index for index, entry in enumerate(stream.log) if entry in "ab"]
    # But for the three that only warm the pilot.
    assert all(stream.log[index - 1] == "evict" for index in calls[3:])


def test_a_hot_cache_is_left_alone() -> None:
    stream = FakeStream()
    taken(stream, stream.call(300 * MICROSECOND))
    assert "evict" not in stream.log


def test_the_ring_is_walked_within_a_sample_and_from_one_to_the_next() -> None:
    stream = FakeStream()
    round_ = Round([stream.call(1, name=name) for name in "abc"], 2, keep=True)
    round_.queue()
    assert round_.results == ["a", "b"]
    round_.queue()
    assert round_.results == ["c", "a"]


def test_results_of_a_cold_sample_live_until_the_next_and_of_a_hot_one_only_the_first() -> None:
    stream = FakeStream()
    calls = [stream.call(1, name=name) for name in "abc"]
    cold, hot = Round(calls, 3, keep=True), Round(calls, 3, keep=False)
    cold.queue()
    hot.queue()
    assert (cold.results, hot.results) == (["a", "b", "c"], ["a"])


def test_a_ring_never_has_more_sets_than_a_sample_has_calls() -> None:
    clock = clock_of(FakeStream(cache_bytes=1 << 20))
    assert clock.cold_sets(1 << 20) == 3
    assert clock.cold_sets(1) == MOST_CALLS


# Blocks that do not count.


def test_calls_with_many_launches_are_queued_in_smaller_blocks() -> None:
    """300 launches a call: three calls fit a queue of a thousand, the fifty of a full block do not."""
    stream = FakeStream()
    found = taken(stream, stream.call(900 * MICROSECOND, host=600 * MICROSECOND, launches=300))
    assert found.despite == ()
    assert median(found.seconds) == pytest.approx(900e-6, rel=1e-2)
    assert found.host_seconds == pytest.approx([600e-6] * len(found.seconds))


def test_a_block_that_outlasts_its_blocker_is_void_and_the_next_is_held_longer() -> None:
    """Every hundredth call of the host's takes 30 ms longer: another program had the processor."""
    stream = FakeStream()
    usual = stream.call(300 * MICROSECOND)
    made = iter(range(1, 1_000_000))

    def hiccups() -> None:
        if next(made) % 100 == 0:
            stream.now += 30 * MILLISECOND
        usual()

    found = taken(stream, hiccups, rule=StopRule(precision=1e-9, max_samples=400))
    assert found.despite == ()
    assert found.voided["not held"] > 0
    assert max(found.seconds) == pytest.approx(300e-6, rel=1e-3)
    assert len(found.seconds) == 400


def test_a_call_that_waits_for_the_device_is_timed_as_it_comes_and_says_so() -> None:
    stream = FakeStream()
    found = taken(stream, stream.waiting_call(300 * MICROSECOND))
    assert found.despite == ("not held",)
    assert found.voided == {}, "the warm-up has found out already"
    assert found.host_seconds == ()
    # The launch itself, 2 µs of the host, passes between the marks.
    assert median(found.seconds) == pytest.approx(302e-6, rel=1e-3)


def test_a_call_on_another_stream_is_refused() -> None:
    stream = FakeStream()
    with pytest.raises(PluginError, match=r"of which torch's current stream sees .*; launch all work on that stream"):
        taken(stream, stream.stray_call(MILLISECOND))


class Watched:
    """A device that is looked at once a block; some looks find it throttled, or something compiled."""

    def __init__(self, throttled: Callable[[int], bool] = lambda _: False, compiles_every: int = 1 << 30) -> None:
        self.looks, self.throttled, self.compiles_every = 0, throttled, compiles_every

    def __call__(self) -> Look:
        self.looks += 1
        reasons = ("power limit",) if self.throttled(self.looks) else ()
        state = GpuState(name="made up", uuid="GPU-0", taken_seconds=float(self.looks), throttle_reasons=reasons)
        return Look(compiled=self.looks // self.compiles_every, state=state)


@pytest.fixture
def by_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock counts as lowered where the later state gives a reason."""

    def throttled(before: GpuState | None, after: GpuState | None) -> str | None:
        return ", ".join(after.throttle_reasons) or None if after else None

    monkeypatch.setattr(nvml, "throttled", throttled)


@pytest.mark.usefixtures("by_reasons")
def test_a_throttled_block_is_void() -> None:
    stream = FakeStream()
    watched = Watched(throttled=lambda look: look % 5 == 0)
    found = taken(stream, stream.call(300 * MICROSECOND), look=watched, rule=StopRule(precision=1e-9, max_samples=600))
    assert set(found.voided) == {"throttled"}
    assert found.despite == ()
    assert len(found.seconds) == 600


@pytest.mark.usefixtures("by_reasons")
def test_a_device_that_is_always_throttled_is_measured_and_says_so() -> None:
    stream = FakeStream()
    found = taken(stream, stream.call(300 * MICROSECOND), look=Watched(throttled=lambda _: True))
    assert found.despite == ("throttled",)
    assert found.voided == {"throttled": PATIENCE * 50}
    assert found.stopped == "precise"


@pytest.mark.usefixtures("by_reasons")
def test_a_block_within_which_something_compiled_is_void() -> None:
    stream = FakeStream()
    watched = Watched(compiles_every=5)
    found = taken(stream, stream.call(300 * MICROSECOND), look=watched, rule=StopRule(precision=1e-9, max_samples=600))
    assert set(found.voided) == {"compiled"}
    assert found.despite == ()
    assert len(found.seconds) == 600


# Graphs.


def test_a_graph_replays_the_calls_of_a_sample() -> None:
    stream = FakeStream()
    calls = [stream.call(10 * MICROSECOND, host=40 * MICROSECOND, name=name) for name in "abc"]
    clock = clock_of(stream)
    launched = clock.sample(calls, StopRule(), cold=True, first_seconds=7.0)
    before = len([entry for entry in stream.log if entry in "abc"])
    found, result = clock.replay(calls, StopRule(), cold=True, launched=launched)
    assert result == "a"
    assert "".join(entry for entry in stream.log if entry in "abc")[before:] == ("abc" * 7)[:20]
    assert found.calls_per_sample == 20
    assert median(found.seconds) == pytest.approx(10e-6, rel=1e-3)
    assert found.first_seconds == 7.0
    assert (found.host_seconds, found.call_seconds) == ((), ())


def test_what_cannot_be_recorded_says_why() -> None:
    stream = FakeStream()
    clock = clock_of(stream)
    launched = replace(taken(stream, stream.call(10 * MICROSECOND)), seconds=(1e-5,))
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        clock.replay([stream.waiting_call(10 * MICROSECOND)], StopRule(), cold=False, launched=launched)


# Odds and ends.


def test_nothing_to_call_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to call"):
        taken(FakeStream())


def test_once_waits_for_the_result() -> None:
    stream = FakeStream()
    seconds, result = clock_of(stream).once(stream.call(3 * MILLISECOND, host=MILLISECOND))
    assert seconds == pytest.approx(4e-3, rel=1e-2)
    assert result == "call"


def test_caps_are_kept() -> None:
    stream = FakeStream()
    wild = iter(range(1_000_000))
    call = lambda: stream.launch(MILLISECOND * (1 + next(wild) * 7 % 11))  # noqa: E731
    found = taken(stream, call, rule=StopRule(precision=1e-6, max_samples=60, max_seconds=100.0))
    assert (found.stopped, len(found.seconds)) == ("max_samples", 60)
