"""Runs a plan: for each case foresee, count, check, time and measure memory, each step in a child of its own.

The implementations of one case are timed in turn, A B B A, so that a slow drift of the machine meets all alike. A
record is appended as soon as it is complete.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from opbench import isolation, store, units, worker
from opbench.cases import Case, ParamValue
from opbench.check import Comparison
from opbench.ending import Ending
from opbench.errors import said
from opbench.measure import statistics
from opbench.registry import Registry
from opbench.results import (
    Counts,
    Failed,
    Launches,
    Measured,
    Memory,
    Outcome,
    Policy,
    Record,
    Sampling,
    Skipped,
    Timing,
    Wrong,
)
from opbench.settings import Measure, Metric


class Observer(Protocol):
    """Who watches a run."""

    def phase(self, case: Case, implementation: str, doing: str) -> None:
        """Hear what is about to be done."""

    def tick(self) -> None:
        """Be called about ten times a second while a child works."""

    def recorded(self, record: Record) -> None:
        """Hear of a finished record."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to run and how."""

    plan: Sequence[tuple[Case, str]]
    """(case, implementation) in order, the implementations of one case adjacent."""
    registry: Registry
    metrics: Collection[Metric]
    measure: Measure
    observer: Observer
    noisy: bool = False
    """Whether the machine was busy with something else when the run began."""
    device_bytes: int | None = None
    """Memory that a case may take on the device; None for the machine's own, which is asked before each case."""


def run(job: Job, directory: Path) -> None:
    """Measure everything and append each record to the run's directory."""
    for case, group in itertools.groupby(job.plan, key=lambda item: item[0]):
        for record in map(storable, _Measurement(job, case, [name for _, name in group]).records()):
            store.append(directory, record)
            job.observer.recorded(record)


@dataclass
class _Measurement:
    """All implementations of one case, on their way to their outcomes."""

    job: Job
    case: Case
    names: list[str]
    params: dict[str, ParamValue] = field(default_factory=dict)
    counts: Counts | None = None
    launches: dict[str, Launches | None] = field(default_factory=dict)
    ended: dict[str, Outcome] = field(default_factory=dict)
    """Implementations that will not be measured (further), and why."""
    worst: dict[str, float] = field(default_factory=dict)
    samplings: dict[str, dict[Policy, list[Sampling]]] = field(default_factory=dict)
    nondeterministic: set[str] = field(default_factory=set)
    memory: dict[str, tuple[Memory, ...]] = field(default_factory=dict)

    def records(self) -> Iterator[Record]:
        """Take every step and give a record for each implementation."""
        if self._foresee():
            self._count()
            if self._measures:
                self._check()
            if self.counts and self.case.network is None:
                self._list_launches()
            if "latency" in self.job.metrics:
                self._time()
            if "memory" in self.job.metrics:
                self._measure_memory()
        for name in self.names:
            yield Record(
                case=self.case,
                implementation=name,
                outcome=self.ended.get(name) or self._measured(name),
                params=self.params,
                counts=self.counts and dataclasses.replace(self.counts, launches=self.launches.get(name)),
            )

    @property
    def _measures(self) -> bool:
        return bool({"latency", "memory"} & set(self.job.metrics))

    @property
    def _alive(self) -> list[str]:
        return [name for name in self.names if name not in self.ended]

    def _foresee(self) -> bool:
        """Learn what the case will take; return whether it may go on."""
        ending = self._child("foresee", self.names[0], worker.forecast, self._measures)
        if ending.kind != "returned":
            self.ended = dict.fromkeys(self.names, outcome_of(ending))
            return False
        forecast: worker.Forecast = ending.value
        self.params = dict(forecast.params)
        device_bytes = self.job.device_bytes
        free = isolation.spendable_bytes() if device_bytes is None else device_bytes
        if self._measures and forecast.peak_bytes is not None and forecast.peak_bytes > free:
            reason = f"needs about {units.bytes_(forecast.peak_bytes)} of memory, {units.bytes_(free)} are free"
            self.ended = dict.fromkeys(self.names, Skipped(reason=reason))
            self._count()
            return False
        return True

    def _count(self) -> None:
        if "counts" in self.job.metrics:
            ending = self._child("count", self.names[0], worker.count)
            # A case that cannot be counted may still be measured; its table says n/a.
            self.counts = (
                ending.value if ending.kind == "returned" else Counts(agreement=f"not counted: {ending.reason}")
            )

    def _check(self) -> None:
        for name in self._alive:
            ending = self._child("check", name, worker.check, name, self.job.measure.device)
            if ending.kind != "returned":
                self.ended[name] = outcome_of(ending)
                continue
            rows: list[Comparison] = ending.value
            failing = next((row for row in rows if not row.passed), None)
            if failing is not None:
                self.ended[name] = wrong(failing)
            else:
                self.worst[name] = max(row.error / row.budget for row in rows)

    def _list_launches(self) -> None:
        for name in self._alive:
            ending = self._child("list launches", name, worker.list_launches, name, self.job.measure.device)
            # What cannot be listed may still be measured; it has no waterline.
            self.launches[name] = ending.value if ending.kind == "returned" else None

    def _time(self) -> None:
        for process in range(self.job.measure.processes):
            for name in self._alive if process % 2 == 0 else reversed(self._alive):
                doing = f"time, process {process + 1} of {self.job.measure.processes}"
                ending = self._child(doing, name, worker.time, name, self.job.measure, process)
                if ending.kind != "returned":
                    self.ended[name] = outcome_of(ending)
                    continue
                timed: worker.Timed = ending.value
                if timed.wrong is not None:
                    self.ended[name] = wrong(timed.wrong)
                    continue
                if not timed.deterministic:
                    self.nondeterministic.add(name)
                for policy, sampling in timed.samplings:
                    self.samplings.setdefault(name, {}).setdefault(policy, []).append(sampling)

    def _measure_memory(self) -> None:
        for name in self._alive:
            ending = self._child("measure memory", name, worker.measure_memory, name, self.job.measure)
            if ending.kind != "returned":
                self.ended[name] = outcome_of(ending)
            else:
                self.memory[name] = ending.value

    def _measured(self, name: str) -> Measured:
        by_policy = self.samplings.get(name, {})
        # Processes begin with different policies; the record lists them in one order.
        order = sorted(by_policy, key=lambda policy: (policy.threads, policy.cache, policy.launch))
        timings = tuple(Timing(policy=policy, processes=tuple(by_policy[policy])) for policy in order)
        flags: list[str] = list(statistics.flags(timings, self.job.measure.precision))
        if name in self.nondeterministic:
            flags.append("nondeterministic")
        if self.job.noisy:
            flags.append("noisy")
        return Measured(
            timings=timings,
            memory=self.memory.get(name, ()),
            worst_error=self.worst.get(name),
            flags=tuple(dict.fromkeys(flags)),
        )

    def _child(self, doing: str, implementation: str, function: Callable[..., Any], *arguments: object) -> Ending:
        self.job.observer.phase(self.case, implementation, doing)
        return isolation.run(
            function,
            self.job.registry,
            self.case,
            *arguments,
            timeout_seconds=self.job.measure.timeout_seconds,
            cuda=self.job.measure.device == "cuda",
            tick=self.job.observer.tick,
        )


def storable(record: Record) -> Record:
    """Return the record, or one that says why it would not survive the way to the disk and back."""
    try:
        Record.from_json(record.to_json().encode().decode())
    except (TypeError, ValueError) as error:
        reason = f"its results cannot be stored: {said(error)}"
        return Record(case=record.case, implementation=record.implementation, outcome=Failed(reason=reason))
    return record


def outcome_of(ending: Ending) -> Skipped | Failed:
    """Translate the ending of a child that returned nothing."""
    if ending.kind == "unsupported":
        return Skipped(reason=ending.reason)
    if ending.kind == "returned":
        raise ValueError("a child that returned has no such outcome")
    return Failed(status=ending.kind, reason=ending.reason)


def wrong(row: Comparison) -> Wrong:
    """Turn a comparison that failed into an outcome."""
    error = row.error if math.isfinite(row.error) else None
    return Wrong(quantity=row.quantity, error=error, budget=row.budget, where=row.where)


def skipped(refused: Iterable[tuple[Case, str, str]]) -> list[Record]:
    """Make records of what a suite names but its operators refuse: (case, implementation, reason)."""
    return [Record(case=case, implementation=name, outcome=Skipped(reason=reason)) for case, name, reason in refused]
