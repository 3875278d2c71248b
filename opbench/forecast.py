"""What a plan will take, roughly: memory from a pass over meta tensors, time from a crude model of a device.

Memory is foreseen to a few per cent, because tensors without storage still have sizes. Time is an estimate and says
so: it assumes a rate for arithmetic and one for memory, and may be off by a factor of three.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from opbench import isolation, worker
from opbench.cases import Case
from opbench.registry import Registry
from opbench.settings import Measure, Metric

_MACS_PER_SECOND = {"cpu": 1e10, "cuda": 4e12}
_BYTES_PER_SECOND = {"cpu": 4e9, "cuda": 4e11}
_PROCESS_SECONDS = {"cpu": 0.4, "cuda": 2.0}
"""Start of a process and of its device, import of the plugin, making of the inputs."""
_SAMPLES = 120
"""Samples of 1 ms or one call, warm-up included, after which a quiet machine usually stops."""
_CHECK_CALLS, _MEMORY_CALLS = 12, 8
"""How many calls' worth of time the check in float64 and the memory phase take."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One case of a plan and what it will take."""

    case: Case
    implementations: tuple[str, ...]
    peak_bytes: int | None
    seconds: float | None
    """Estimated for all implementations together."""
    trouble: str = ""
    """Why nothing could be foreseen: the row will fail or be skipped for this reason."""


def foresee(
    plan: Sequence[tuple[Case, str]],
    registry: Registry,
    measure: Measure,
    metrics: Collection[Metric],
    tick: Callable[[], None] = lambda: None,
) -> Iterator[Row]:
    """Foresee every case of a plan, in order; each in a child process."""
    for case, group in itertools.groupby(plan, key=lambda item: item[0]):
        names = tuple(name for _, name in group)
        ending = isolation.run(worker.forecast, registry, case, timeout_seconds=measure.timeout_seconds, tick=tick)
        if ending.kind != "returned":
            yield Row(case=case, implementations=names, peak_bytes=None, seconds=None, trouble=ending.reason)
            continue
        forecast: worker.Forecast = ending.value
        seconds = len(names) * estimate_seconds(forecast, measure, metrics)
        yield Row(case=case, implementations=names, peak_bytes=forecast.peak_bytes, seconds=seconds)


def estimate_seconds(forecast: worker.Forecast, measure: Measure, metrics: Collection[Metric]) -> float:
    """Estimate what one implementation of a case takes, from check to memory."""
    device = measure.device
    call = (forecast.macs or 0) / _MACS_PER_SECOND[device] + (forecast.peak_bytes or 0) / _BYTES_PER_SECOND[device]
    process = _PROCESS_SECONDS[device]
    total = process if "counts" in metrics else 0.0
    if {"latency", "memory"} & set(metrics):
        total += process + _CHECK_CALLS * call
    if "latency" in metrics:
        # A GPU has no threads to choose, and short calls are timed once more as graphs.
        policies = (len(measure.threads) if device == "cpu" else 2) * len(measure.cache)
        sampling = min(_SAMPLES * max(call, 1e-3), measure.max_seconds + 1)
        total += measure.processes * (process + policies * max(sampling, call))
    if "memory" in metrics:
        total += process + _MEMORY_CALLS * call
    return total
