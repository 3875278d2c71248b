"""Times calls on a GPU: the loop around the stream that they are queued on.

What is decided on the way stands in `blocks`, what touches CUDA in `cuda_stream`; the loop itself knows neither. A
time is what two events on the stream saw of one sample. For a cold cache the calls go round a ring of buffer sets as
on a CPU, and before each sample, outside the events, the cache is written over and read back, so that it holds neither
a call's data nor lines still to be written; results live until the sample ends, so that none is written where another
still lies in the cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, TypeVar

from opbench import units
from opbench.errors import PluginError
from opbench.measure import blocks, nvml
from opbench.measure.blocks import Ledger, Plan
from opbench.measure.clock import CLOCK, Clock, no_garbage_collection, sets_for_cold
from opbench.measure.stop import Stopped, StopRule, WarmUp, next_look
from opbench.measure.stream import Block, Call, Look, Nothing, Recorded, Round, Stream, Work, take_block
from opbench.results import Sampling

T = TypeVar("T")

PILOT = Plan(samples=3, hold_seconds=20e-3)
"""A block that tells roughly what a call takes."""
EMPTY = Plan(samples=21, hold_seconds=2e-3)
CALLS_WAITED_FOR = 50

_NANOSECONDS = 1e9


@dataclass
class Taken:
    """The samples of all blocks that count, and how they came about."""

    plan: Plan
    device: list[float] = field(default_factory=list)
    host: list[float] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)

    def enter(self, block: Block, tried: Plan, before: Look) -> None:
        """Count a block, or drop it and plan anew."""
        cause = blocks.void(
            tried,
            held=block.held,
            compiled=block.look.compiled > before.compiled,
            throttled=nvml.throttled(before.state, block.look.state) is not None,
        )
        if cause is not None and self.ledger.drops(cause, tried.samples):
            if cause == "not held":
                self.plan = blocks.gentler(self.plan)
                if not self.plan.hold_seconds:
                    self.give_up_holding()
            return
        self.device += block.device
        self.host += block.host
        self.looks.append(block.look)

    def give_up_holding(self) -> None:
        """Take blocks as they come from now on."""
        self.plan = replace(self.plan, hold_seconds=0.0)
        self.ledger.lives_with("not held")


@dataclass(frozen=True)
class DeviceClock:
    """Times calls on a stream."""

    stream: Stream
    look: Callable[[], Look] = Look
    host: Clock = CLOCK
    warm_up: WarmUp = field(default_factory=WarmUp)
    """When samples begin to count."""

    def current(self) -> AbstractContextManager[Any]:
        """Queue all calls on the clock's stream while the block runs, as all its methods need it."""
        return self.stream.current()

    def cold_sets(self, bytes_per_set: int) -> int:
        """Fewest buffer sets that exceed twice the cache; never more than a sample has calls, as it begins cold."""
        return min(blocks.MOST_CALLS, sets_for_cold(bytes_per_set, self.stream.cache_bytes))

    def once(self, call: Callable[[], T]) -> tuple[float, T]:
        """Return the seconds one call takes a caller who waits for it on an idle device, and what it returns."""
        self.stream.wait()
        begin = self.host.wall()
        result = call()
        self.stream.wait()
        return self._since(begin), result

    def sample(self, calls: Sequence[Call], rule: StopRule, *, cold: bool, first_seconds: float) -> Sampling:
        """Warm up, then sample launched calls until the rule says stop; then wait for some calls one by one.

        Args:
            calls: the ring of buffer sets.
            rule: when to stop.
            cold: whether every sample is to find nothing of it in the cache.
            first_seconds: what `once` said of this process's first call; passed on.

        Raises:
            PluginError: the calls do their work on another stream.
        """
        if not calls:
            raise ValueError("there is nothing to call")
        with no_garbage_collection():
            work = Round(calls, blocks.calls_per_sample(self._pilot_seconds(calls, cold)), keep=cold)
            warm = self._warmed(work, cold)
            # A warm call is shorter than the pilot was, so a sample needs more of them.
            work = Round(calls, blocks.calls_per_sample(median(warm.device) / work.count), keep=cold)
            found = self._sampled(work, rule, cold, first_seconds, warm)
            waited = self._waited_for(calls, cold, rule.max_seconds / 4)
        if found.host_seconds:
            _refuse_escaped(median(waited), median(found.host_seconds), median(found.seconds))
        return replace(found, call_seconds=tuple(waited))

    def replay(self, calls: Sequence[Call], rule: StopRule, *, cold: bool, launched: Sampling) -> tuple[Sampling, Any]:
        """Record a sample's calls as a graph and sample its replays; return also what the first of the calls returned.

        Args:
            calls: the ring of buffer sets.
            rule: when to stop.
            cold: whether every sample is to find nothing of it in the cache.
            launched: what `sample` said of the same calls.

        Raises:
            RuntimeError: the calls cannot be recorded.
        """
        work = Round(calls, blocks.calls_per_sample(median(launched.seconds)), keep=cold)
        with no_garbage_collection():
            self.stream.wait()
            recorded = Recorded(self.stream.record(work.queue), work.count)
            warm = self._warmed(recorded, cold)
            found = self._sampled(recorded, rule, cold, launched.first_seconds, warm)
        # Queuing a graph is not queuing a call.
        return replace(found, host_seconds=()), work.results[0]

    def _pilot_seconds(self, calls: Sequence[Call], cold: bool) -> float:
        """Roughly what a call takes the device."""
        work = Round(calls, 1, keep=False)
        for _ in range(PILOT.samples):
            work.queue()
        return min(self._block(work, PILOT, cold).device)

    def _warmed(self, work: Work, cold: bool) -> Taken:
        taken, _ = self._taken(
            work,
            cold,
            lambda count: next_look(count, self.warm_up.first_look),
            lambda samples, elapsed: self.warm_up.done(samples, elapsed) or None,
        )
        return taken

    def _sampled(self, work: Work, rule: StopRule, cold: bool, first_seconds: float, warm: Taken) -> Sampling:
        overhead = median(self._block(Nothing(work.count), EMPTY, cold).device)
        begin_cpu, begin = self.host.cpu(), self.host.wall()
        result: tuple[Taken, Stopped] = self._taken(
            work,
            cold,
            lambda count: min(rule.max_samples, next_look(count, rule.first_look)),
            rule.decide,
            hold=bool(warm.plan.hold_seconds),
        )
        taken, stopped = result
        wall_seconds, cpu_seconds = self._since(begin), (self.host.cpu() - begin_cpu) / _NANOSECONDS
        clocks = [look.state.sm_clock_hz for look in taken.looks if look.state and look.state.sm_clock_hz]
        return Sampling(
            seconds=tuple(seconds / work.count for seconds in taken.device),
            calls_per_sample=work.count,
            warmup_samples=len(warm.device),
            first_seconds=first_seconds,
            cpu_seconds=cpu_seconds,
            wall_seconds=wall_seconds,
            overhead_seconds=overhead / work.count,
            stopped=stopped,
            host_seconds=tuple(seconds / work.count for seconds in taken.host) if taken.plan.hold_seconds else (),
            voided=dict(taken.ledger.voided),
            despite=tuple(taken.ledger.despite),
            sm_clock_hz=median(clocks) if clocks else None,
        )

    def _taken(
        self,
        work: Work,
        cold: bool,
        next_due: Callable[[int], int],
        decide: Callable[[Sequence[float], float], T | None],
        *,
        hold: bool = True,
    ) -> tuple[Taken, T]:
        """Take blocks until something is decided; none goes past a count of samples at which a decision is due."""
        trial = self._block(work, Plan(samples=1, hold_seconds=0.0), cold)
        taken = Taken(blocks.plan(trial.queued_seconds, trial.device[0]))
        if not hold:
            taken.give_up_holding()
        before, begin = self.look(), self.host.wall()
        while True:
            count = len(taken.device)
            tried = replace(taken.plan, samples=min(taken.plan.samples, next_due(count + 1) - count))
            block = self._block(work, tried, cold)
            taken.enter(block, tried, before)
            before = block.look
            decision = decide(taken.device, self._since(begin)) if taken.device else None
            if decision is not None:
                return taken, decision

    def _block(self, work: Work, plan: Plan, cold: bool) -> Block:
        return take_block(self.stream, work, plan, cold=cold, look=self.look, wall=self.host.wall)

    def _waited_for(self, calls: Sequence[Call], cold: bool, max_seconds: float) -> list[float]:
        """Seconds that a caller waits for single calls; at least one."""
        waited: list[float] = []
        begin = self.host.wall()
        for call in itertools.islice(itertools.cycle(calls), CALLS_WAITED_FOR):
            if cold:
                self.stream.evict()
            waited.append(self.once(call)[0])
            if self._since(begin) >= max_seconds:
                break
        return waited

    def _since(self, begin: int) -> float:
        return (self.host.wall() - begin) / _NANOSECONDS


def _refuse_escaped(call_seconds: float, host_seconds: float, device_seconds: float) -> None:
    if blocks.escaped(call_seconds, host_seconds, device_seconds):
        waited, seen = units.seconds(call_seconds), units.seconds(device_seconds)
        raise PluginError(
            f"a call keeps the device busy for up to {waited}, of which torch's current stream sees {seen}; "
            "launch all work on that stream"
        )
