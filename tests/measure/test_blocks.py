"""What to queue on a GPU at a time, and which of it counts."""

from __future__ import annotations

import pytest

from opbench.measure.blocks import PATIENCE, Ledger, Plan, calls_per_sample, escaped, gentler, is_short, plan, void


def test_short_calls_fill_200_microseconds() -> None:
    assert calls_per_sample(10e-6) == 20
    assert calls_per_sample(30e-6) == 7
    assert calls_per_sample(49e-6) == 5
    assert calls_per_sample(50e-6) == 1
    assert calls_per_sample(1.0) == 1


def test_a_sample_never_has_more_calls_than_kernels_could_start_in_it() -> None:
    assert calls_per_sample(0.1e-6) == calls_per_sample(0.0) == 200


def test_calls_below_50_microseconds_are_short() -> None:
    assert is_short(49e-6)
    assert not is_short(50e-6)


@pytest.mark.parametrize(
    ("host", "device", "samples"),
    [
        (10e-6, 10e-6, 50),  # the most there are
        (100e-6, 10e-6, 20),  # 2 ms of queuing
        (10e-6, 10e-3, 10),  # 100 ms of the device
        (1.0, 1.0, 1),
        (0.0, 0.0, 50),
    ],
)
def test_a_block_is_as_long_as_the_queue_and_patience_allow(host: float, device: float, samples: int) -> None:
    assert plan(host, device).samples == samples


def test_a_blocker_lasts_three_times_as_long_as_queuing_takes() -> None:
    assert plan(100e-6, 10e-6).hold_seconds == pytest.approx(6e-3)
    assert plan(1e-6, 10e-6).hold_seconds == 1e-3
    assert plan(1.0, 1.0).hold_seconds == 0.25


def test_a_plan_that_fails_is_made_gentler_until_it_no_longer_holds() -> None:
    tried = [plan(10e-6, 10e-6)]
    while tried[-1].hold_seconds:
        tried.append(gentler(tried[-1]))
    assert [step.samples for step in tried] == [50, 25, 12, 6, 3, 1, 1, 1, 1]
    assert [round(1e3 * step.hold_seconds, 3) for step in tried] == [1.5, 3, 6, 12, 24, 48, 96, 192, 0]


def test_the_longest_hold_is_tried_before_giving_up_on_a_full_block() -> None:
    assert gentler(Plan(samples=50, hold_seconds=0.25)) == Plan(samples=25, hold_seconds=0.25)
    assert gentler(Plan(samples=1, hold_seconds=0.25)) == Plan(samples=1, hold_seconds=0.0)


HELD, UNHELD = Plan(samples=5, hold_seconds=1e-3), Plan(samples=5, hold_seconds=0.0)


def test_a_block_is_void_for_one_cause() -> None:
    assert void(HELD, held=True, compiled=False, throttled=False) is None
    assert void(HELD, held=False, compiled=False, throttled=True) == "not held"
    assert void(HELD, held=True, compiled=False, throttled=True) == "throttled"
    # Compiling holds up the host, which ends the hold.
    assert void(HELD, held=False, compiled=True, throttled=False) == "compiled"


def test_a_block_that_was_never_to_be_held_is_not_void_for_that() -> None:
    assert void(UNHELD, held=False, compiled=False, throttled=False) is None


def test_patience_ends_for_each_cause_by_itself() -> None:
    ledger = Ledger()
    assert all(ledger.drops("throttled", 10) for _ in range(PATIENCE))
    assert ledger.drops("compiled", 3)
    assert not ledger.drops("throttled", 10)
    assert dict(ledger.voided) == {"throttled": 10 * PATIENCE, "compiled": 3}
    assert list(ledger.despite) == ["throttled"]


def test_blocks_that_were_not_held_are_always_dropped() -> None:
    ledger = Ledger()
    assert all(ledger.drops("not held", 1) for _ in range(10 * PATIENCE))
    assert not ledger.despite


@pytest.mark.parametrize(
    ("call", "host", "device", "expected"),
    [
        (130e-6, 20e-6, 100e-6, False),  # launched, done, and 10 µs to hear of it
        (60e-6, 40e-6, 5e-6, False),  # host-bound
        (105e-6, 20e-6, 0.5e-6, False),  # waiting for a device costs something
        (1e-3, 20e-6, 0.5e-6, True),  # a millisecond of work of which the stream saw nothing
        (1e-3, 20e-6, 400e-6, True),  # of which it saw less than a half
        (1e-3, 20e-6, 950e-6, False),
    ],
)
def test_work_on_another_stream_is_found_out(call: float, host: float, device: float, expected: bool) -> None:
    assert escaped(call, host, device) is expected
