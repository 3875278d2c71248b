"""Times calls on the CPU: the loop around the clock, and the arithmetic that plans it.

A sample is as many calls as last 1 ms and a thousand readings of the clock, so that neither the clock's step nor its
own cost can be seen in it. The calls go round a ring of buffer sets: one set keeps the cache hot, as many as exceed
twice the last-level cache make every call find it cold.
"""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from opbench.measure import machine
from opbench.measure.stop import StopRule, WarmUp
from opbench.results import Sampling

T = TypeVar("T")
Call = Callable[[], object]

SHORTEST_SAMPLE_SECONDS = 1e-3
READINGS_PER_SAMPLE = 1000
MAX_SETS = 1024
"""Most buffer sets of a ring; sets so small that this many fit the cache are cold in its inner levels only."""

_NANOSECONDS = 1e9


@dataclass(frozen=True)
class Clock:
    """Where time comes from, each counted from an arbitrary start."""

    wall: Callable[[], int] = time.perf_counter_ns
    """Nanoseconds."""
    cpu: Callable[[], int] = time.process_time_ns
    """Nanoseconds of processor time of all threads of this process."""
    stalled: Callable[[], float | None] = machine.stalled_seconds
    """Seconds in which some task of the machine waited for a processor; None where the kernel does not tell."""


CLOCK = Clock()


def once(call: Callable[[], T], clock: Clock = CLOCK) -> tuple[float, T]:
    """Return the seconds one call takes, and what it returns."""
    begin = clock.wall()
    result = call()
    return (clock.wall() - begin) / _NANOSECONDS, result


def sample(
    calls: Sequence[Call],
    rule: StopRule,
    *,
    first_seconds: float,
    warm_up: WarmUp | None = None,
    clock: Clock = CLOCK,
) -> Sampling:
    """Warm up, then sample until the rule says stop; the garbage collector rests meanwhile.

    Args:
        calls: the ring of buffer sets; call number i runs `calls[i % len(calls)]`.
        rule: when to stop.
        first_seconds: what `once` said of this process's first call; passed on.
        warm_up: when the samples begin to count; until two windows agree within 1 % unless given.
        clock: where time comes from.
    """
    if not calls:
        raise ValueError("there is nothing to call")
    ring = itertools.cycle(calls)
    warm_up = warm_up or WarmUp()
    shortest = shortest_sample_seconds(_reading_seconds(clock))
    with no_garbage_collection():
        warm = _warm_samples(ring, calls_per_sample(_pilot_seconds(ring, shortest, clock), shortest), warm_up, clock)
        # A warm call is shorter than the pilot was, so a sample needs more of them.
        count = calls_per_sample(min(warm), shortest)
        overhead = _overhead_seconds(count, clock)
        seconds: list[float] = []
        begin_stalled, begin_cpu, begin = clock.stalled(), clock.cpu(), clock.wall()
        while True:
            seconds.append(_seconds_per_call(ring, count, clock))
            stopped = rule.decide(seconds, (clock.wall() - begin) / _NANOSECONDS)
            if stopped is not None:
                break
        end_cpu, end, end_stalled = clock.cpu(), clock.wall(), clock.stalled()
    return Sampling(
        seconds=tuple(seconds),
        calls_per_sample=count,
        warmup_samples=len(warm),
        first_seconds=first_seconds,
        cpu_seconds=(end_cpu - begin_cpu) / _NANOSECONDS,
        wall_seconds=(end - begin) / _NANOSECONDS,
        stalled_seconds=None if begin_stalled is None or end_stalled is None else end_stalled - begin_stalled,
        overhead_seconds=overhead,
        stopped=stopped,
    )


def shortest_sample_seconds(reading_seconds: float) -> float:
    """Shortest sample worth taking with a clock whose reading costs so much."""
    return max(SHORTEST_SAMPLE_SECONDS, READINGS_PER_SAMPLE * reading_seconds)


def calls_per_sample(seconds_per_call: float, shortest: float) -> int:
    """Fewest calls that last at least the shortest sample; at least one."""
    return max(1, math.ceil(shortest / seconds_per_call))


def sets_for_cold(bytes_per_set: int, cache_bytes: int) -> int:
    """Fewest buffer sets that together exceed twice the cache; at least two, at most `MAX_SETS`.

    A set that comes round again has been followed by all the others, and so has left the cache.
    """
    if bytes_per_set <= 0:
        return 2
    return min(MAX_SETS, max(2, 2 * cache_bytes // bytes_per_set + 1))


def _warm_samples(ring: Iterator[Call], count: int, warm_up: WarmUp, clock: Clock) -> list[float]:
    samples: list[float] = []
    begin = clock.wall()
    while not samples or not warm_up.done(samples, (clock.wall() - begin) / _NANOSECONDS):
        samples.append(_seconds_per_call(ring, count, clock))
    return samples


def _pilot_seconds(ring: Iterator[Call], shortest: float, clock: Clock) -> float:
    """Roughly what a call takes, from doubling the calls until they last a sample."""
    count = 1
    while (seconds := _seconds_per_call(ring, count, clock)) * count < shortest:
        count *= 2
    return seconds


def _reading_seconds(clock: Clock) -> float:
    """What reading the clock costs: the usual distance between two readings with nothing between them."""
    readings = [clock.wall() for _ in range(READINGS_PER_SAMPLE)]
    return median(later - earlier for earlier, later in itertools.pairwise(readings)) / _NANOSECONDS


def _overhead_seconds(count: int, clock: Clock) -> float:
    """What the loop and the clock add to each call of a sample, measured with a call that does nothing."""
    ring = itertools.cycle([_nothing])
    return median(_seconds_per_call(ring, count, clock) for _ in range(11))


def _nothing() -> None:
    return None


def _seconds_per_call(ring: Iterator[Call], count: int, clock: Clock) -> float:
    """Time so many calls; releasing what a call returns is part of it, as it is for any caller."""
    turns = itertools.islice(ring, count)
    begin = clock.wall()
    for call in turns:
        call()
    return (clock.wall() - begin) / _NANOSECONDS / count


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect once, then let the garbage collector rest while the block runs."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
