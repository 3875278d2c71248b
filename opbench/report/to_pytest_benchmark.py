"""The JSON of pytest-benchmark: `pytest-benchmark compare A.json B.json` sets runs beside each other.

`stats` are what pytest-benchmark itself makes of the samples in `data`, which are those of all processes after one
another. opbench never pools processes: its own median and interval are in `extra_info`, with counts and flags. The
groups are the settings, so that times of different policies are never divided by each other.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from itertools import chain

from opbench.environment import Environment
from opbench.plain import one_line
from opbench.report.benchmarks import Timed, only_section, timed
from opbench.report.model import View
from opbench.report.rows import Row

_FORM = "pytest-benchmark"


def pytest_benchmark(view: View) -> str:
    """Write the latencies of one run."""
    section = only_section(view, _FORM)
    environment = section.run.header.environment
    document = {
        "machine_info": _machine(environment),
        "commit_info": _commit(environment.commit),
        "benchmarks": [_benchmark(each) for each in timed(section, _FORM)],
        "datetime": environment.captured,
        "version": f"opbench {environment.versions.get('opbench', 'unknown')}",
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _machine(environment: Environment) -> dict[str, object]:
    cpu = {"brand_raw": environment.processor, "count": environment.logical_cores}
    return {
        "node": environment.host,
        "processor": environment.processor,
        "python_version": environment.python,
        "system": environment.system,
        "cpu": cpu,
        "gpus": [gpu.name for gpu in environment.gpus],
        "versions": dict(environment.versions),
    }


def _commit(commit: str | None) -> dict[str, object]:
    return {
        "id": (commit or "unknown").removesuffix("+"),
        "time": None,
        "author_time": None,
        "dirty": (commit or "").endswith("+"),
        "project": None,
        "branch": None,
    }


def _benchmark(benchmark: Timed) -> dict[str, object]:
    row = benchmark.row
    processes = row.timing.processes if row.timing else ()
    data = list(chain.from_iterable(process.seconds for process in processes))
    calls = min((process.calls_per_sample for process in processes), default=1)
    return {
        "group": one_line(benchmark.group),
        "name": benchmark.name,
        "fullname": benchmark.name,
        "params": None,
        "param": None,
        "extra_info": _extra(row),
        "options": {},
        "stats": {**stats(data), "data": data, "iterations": calls},
    }


def _extra(row: Row) -> dict[str, object]:
    latency, counts = row.latency, row.record.counts
    return {
        "latency_seconds_median": latency and latency.median,
        "latency_seconds_low": latency and latency.low,
        # JSON has no infinity that every reader takes.
        "latency_seconds_high": latency.high if latency and math.isfinite(latency.high) else None,
        "processes": latency and latency.processes,
        "flags": list(row.measured.flags) if row.measured else [],
        "macs_dense": counts and counts.macs_dense,
        "parameters": counts and counts.parameters,
    }


def stats(data: Sequence[float]) -> dict[str, object]:
    """What pytest-benchmark makes of some samples, by its own definitions."""
    ordered = sorted(data)
    first, third = _quantile(ordered, 0.25), _quantile(ordered, 0.75)
    mean = statistics.mean(data)
    deviation = statistics.stdev(data) if len(data) > 1 else 0.0
    fences = first - 1.5 * (third - first), third + 1.5 * (third - first)
    outside = sum(not mean - deviation <= each <= mean + deviation for each in data)
    beyond = sum(not fences[0] <= each <= fences[1] for each in data)
    return {
        "min": min(data),
        "max": max(data),
        "mean": mean,
        "stddev": deviation,
        "rounds": len(data),
        "median": statistics.median(data),
        "iqr": third - first,
        "q1": first,
        "q3": third,
        "iqr_outliers": beyond,
        "stddev_outliers": outside,
        "outliers": f"{outside};{beyond}",
        "ld15iqr": min(each for each in data if each >= fences[0]),
        "hd15iqr": max(each for each in data if each <= fences[1]),
        "ops": 1 / mean if mean else 0.0,
        "total": sum(data),
    }


def _quantile(ordered: Sequence[float], fraction: float) -> float:
    """Hazen's: the i-th of n values, counted from 1, stands at (i - 1/2) / n."""
    place = min(max(len(ordered) * fraction - 0.5, 0), len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
