"""JSON for the action github-action-benchmark with `tool: customSmallerIsBetter`.

A list of `name`, `unit`, `value`, `range` and `extra`: each latency in nanoseconds with its 95 % interval, and each
record's memory in bytes. The units never change, so that a chart over commits has one axis.
"""

from __future__ import annotations

import json

from opbench import units
from opbench.plain import one_line
from opbench.report.benchmarks import Timed, only_section, sized, timed
from opbench.report.labels import hardware
from opbench.report.model import Section, View

_FORM = "github-action-benchmark"


def github_action_benchmark(view: View) -> str:
    """Write the latencies and the memory of one run."""
    section = only_section(view, _FORM)
    entries = [_latency(each, section) for each in timed(section, _FORM)]
    entries += [
        {"name": f"{each.name} {title}", "unit": "B", "value": number, "extra": _machine(section)}
        for each in sized(section)
        for title, number in each.bytes.items()
    ]
    return json.dumps(entries, indent=2, allow_nan=False) + "\n"


def _latency(benchmark: Timed, section: Section) -> dict[str, str | float]:
    latency = benchmark.row.latency
    assert latency is not None
    processes = "1 process" if latency.processes == 1 else f"{latency.processes} processes"
    return {
        "name": benchmark.name,
        "unit": "ns",
        "value": 1e9 * latency.median,
        "range": f"95 % interval {_number(latency.low)} to {_number(latency.high)}",
        "extra": f"median of {processes}\n{_machine(section)}",
    }


def _number(seconds: float) -> str:
    return units.significant(1e9 * seconds, 6)


def _machine(section: Section) -> str:
    torch = section.run.header.environment.versions.get("torch", "unknown")
    return one_line(f"{hardware(section.run)}, torch {torch}")
