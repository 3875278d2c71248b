"""Which calls become graphs."""

from __future__ import annotations

import pytest

from opbench.measure import replays
from opbench.measure.device_clock import DeviceClock
from opbench.measure.replays import Samplings
from opbench.measure.stop import StopRule
from opbench.results import Policy
from tests.measure.fake_stream import MICROSECOND, FakeStream

COLD = Policy(cache="cold", threads=1, device="cuda")
HOT = Policy(cache="hot", threads=1, device="cuda")


def launched(clock: DeviceClock, calls: list[object], *policies: Policy) -> Samplings:
    return [
        (policy, clock.sample(calls, StopRule(), cold=policy.cache == "cold", first_seconds=0.0))  # type: ignore[arg-type]
        for policy in policies
    ]


def test_short_calls_are_timed_as_graphs_too() -> None:
    stream = FakeStream()
    clock = DeviceClock(stream, host=stream.clock)
    calls = [stream.call(10 * MICROSECOND, name=name) for name in "ab"]
    samplings, results = replays.added(launched(clock, [*calls], COLD, HOT), clock, calls, StopRule())
    assert [(policy.cache, policy.launch) for policy, _ in samplings] == [
        ("cold", "eager"),
        ("cold", "graph"),
        ("hot", "eager"),
        ("hot", "graph"),
    ]
    assert results == ["a", "a"]
    assert all(sampling.note == "" for _, sampling in samplings)


def test_long_calls_are_not() -> None:
    stream = FakeStream()
    clock = DeviceClock(stream, host=stream.clock)
    calls = [stream.call(60 * MICROSECOND)]
    eager = launched(clock, [*calls], COLD)
    assert replays.added(eager, clock, calls, StopRule()) == (eager, [])


def test_what_cannot_be_recorded_keeps_its_launched_times_and_says_why() -> None:
    stream = FakeStream()
    clock = DeviceClock(stream, host=stream.clock)
    calls = [stream.waiting_call(10 * MICROSECOND)]
    samplings, results = replays.added(launched(clock, [*calls], COLD, HOT), clock, calls, StopRule())
    assert [(policy.cache, policy.launch) for policy, _ in samplings] == [("cold", "eager"), ("hot", "eager")]
    reason = "not timed as a graph: operation not permitted when stream is capturing"
    assert [sampling.note for _, sampling in samplings] == [reason, reason]
    assert results == []


def test_a_device_that_recording_has_broken_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = FakeStream()
    clock = DeviceClock(stream, host=stream.clock)
    calls = [stream.waiting_call(10 * MICROSECOND)]
    eager = launched(clock, [*calls], COLD)

    def broken(work: object) -> None:
        stream.wait = lambda: 1 // 0  # type: ignore[assignment, method-assign]
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(stream, "record", broken)
    with pytest.raises(ZeroDivisionError):
        replays.added(eager, clock, calls, StopRule())
