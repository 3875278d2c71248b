"""The raw numbers in long form: one flat row per record and policy, SI units in the names. CSV and JSON share it.

Every row has every key; None where there is no value. Among the keys:

- `case`, `name`, `operator`, `implementation`, `scope`, `network`, `pass`, `shape`, `batch`, …, `set_params` (what the
  suite set), `params` (all, defaults included): what was run;
- `status` and, for all but measured records, `reason`; `wrong_*` hold the parts of a wrong result;
- `parameters`, `macs_dense`, `macs_in_bounds`, `flops_dense`, `macs_at_least` and `unknown_operations`, `macs_formula`,
  `macs_fvcore`, `macs_torch`, `counters_agreement`, `compulsory_bytes`, `intensity_flops_per_byte`;
- `cache`, `threads`, `device`, `launch`: the policy; `latency_seconds_median` with its 95 % interval
  `latency_seconds_low` … `latency_seconds_high`; `ratio_to_baseline` with `ratio_low` … `ratio_high`, or
  `ratio_refused` with the reason; `images_per_second`;
- on a GPU, `call_seconds_median`: what a caller waits who launches on an idle device, `host_seconds_median`: what
  launching takes the host; `voided_samples` of which `voided_causes` tells why, `sm_clock_hz`, and `timing_notes`;
- `forward_peak_bytes_tracker`, `saved_bytes_tracker`, `backward_peak_bytes_tracker`, and the same of
  `high_water` and `allocator`; of the allocator's peaks also what was asked for, `forward_requested_bytes_allocator`
  and `backward_requested_bytes_allocator`.

What several runs have in common is a row for each case, implementation and policy, and each run but the first:

- `run` and `reference_run`, the directories; `case`, `name`, `operator`, `implementation`;
- `status`, `flags`, `policy` and `latency_seconds_median` … `latency_seconds_high` of the run, and the same of the
  reference with `reference_` before;
- `ratio` (the run's latency divided by the reference's) with `ratio_low` … `ratio_high` and `difference`: 'faster',
  'slower' or 'none shown' where the interval includes 1; or `ratio_refused` with the reason.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from opbench.cases import Case, Nchw
from opbench.measure.statistics import middle_of
from opbench.report.matches import Match, difference
from opbench.report.model import Comparison, Section
from opbench.report.rows import SOURCES, Row
from opbench.report.words import outcome_in_words
from opbench.results import Counts, Record, Skipped, Timing, Wrong

Scalar = str | int | float | bool | None
Value = Scalar | list[str] | Mapping[str, Scalar]


def tidy(section: Section) -> list[dict[str, Value]]:
    """All rows of a run, in the order they were measured."""
    return [of_row(row, str(section.run.directory), section.baseline) for row in section.rows]


def tidy_comparison(comparison: Comparison) -> list[dict[str, Value]]:
    """All that two runs or more have in common, in the order of the first run that has it."""
    return [
        _pair(match, index, comparison.directories)
        for match in comparison.matches
        for index in range(1, len(match.rows))
        if match.rows[index] is not None
    ]


def _pair(match: Match, index: int, directories: Sequence[str]) -> dict[str, Value]:
    record, ratio = match.any_row.record, match.ratios[index]
    return {
        "run": directories[index],
        "reference_run": directories[0],
        "case": record.case.id,
        "name": record.name,
        "operator": record.case.operator,
        "implementation": record.implementation,
        **_side(match.rows[index]),
        **{f"reference_{name}": value for name, value in _side(match.rows[0]).items()},
        "ratio": _of(ratio, "value"),
        "ratio_low": _of(ratio, "low"),
        "ratio_high": _of(ratio, "high"),
        "difference": difference(ratio) if ratio else None,
        "ratio_refused": match.refused[index] or None,
    }


def _side(row: Row | None) -> dict[str, Value]:
    """What one run has of a match; all None where it has nothing."""
    return {
        "status": row.record.status if row else None,
        "flags": list(row.measured.flags) if row and row.measured else [],
        "policy": str(row.policy) if row and row.policy else None,
        **{f"latency_seconds_{name}": _of(row and row.latency, name) for name in ("median", "low", "high")},
    }


def of_row(row: Row, directory: str, baseline: str | None) -> dict[str, Value]:
    """One row, by the keys told above."""
    return {
        "run": directory,
        **_case(row),
        **_outcome(row),
        **_counts(row.record.counts or Counts()),
        "intensity_flops_per_byte": row.intensity,
        **_latency(row),
        "images_per_second": row.throughput,
        **_timing(row.timing),
        "baseline": baseline,
        "ratio_to_baseline": _of(row.ratio, "value"),
        "ratio_low": _of(row.ratio, "low"),
        "ratio_high": _of(row.ratio, "high"),
        "ratio_refused": row.no_ratio or None,
        **_memory(row),
    }


def _case(row: Row) -> dict[str, Value]:
    case = row.record.case
    return {
        "case": case.id,
        "name": row.record.name,
        "operator": case.operator,
        "implementation": row.record.implementation,
        "scope": case.scope,
        "network": case.network,
        "pass": case.pass_,
        "shape": str(case.shape),
        **case.shape._asdict(),
        "dtype": case.dtype,
        "memory_format": case.memory_format,
        "set_params": dict(case.params),
        "params": dict(row.record.params),
    }


def _outcome(row: Row) -> dict[str, Value]:
    outcome = row.record.outcome
    wrong = outcome if isinstance(outcome, Wrong) else None
    return {
        "status": outcome.status,
        "reason": None if row.measured else outcome_in_words(outcome, limit=None),
        **{f"wrong_{name}": _of(wrong, name) for name in ("quantity", "error", "budget", "where")},
        "flags": list(row.measured.flags) if row.measured else [],
        "worst_error_of_budget": _of(row.measured, "worst_error"),
    }


def _counts(counts: Counts) -> dict[str, Value]:
    by_source = {counted.source: counted for counted in counts.counters}
    macs = counts.macs_dense
    return {
        "parameters": counts.parameters,
        "macs_dense": macs,
        "macs_in_bounds": counts.macs_in_bounds,
        "flops_dense": None if macs is None else 2 * macs,
        "macs_at_least": counts.at_least,
        "unknown_operations": sorted({name for counted in counts.counters for name in counted.unknown}),
        **{f"macs_{source}": _of(by_source.get(source), "macs") for source in ("formula", "fvcore", "torch")},
        "counters_agreement": counts.agreement or None,
        "compulsory_bytes": counts.compulsory_bytes,
    }


def _latency(row: Row) -> dict[str, Value]:
    return {
        **{name: _of(row.policy, name) for name in ("cache", "threads", "device", "launch")},
        **{f"latency_seconds_{name}": _of(row.latency, name) for name in ("median", "low", "high")},
        "latency_processes": _of(row.latency, "processes"),
        "latency_interval_method": _of(row.latency, "method"),
    }


def _timing(timing: Timing | None) -> dict[str, Value]:
    """What the samples tell besides the latency; the median of the processes where each has its own."""
    processes = timing.processes if timing else ()
    return {
        "samples": sum(len(process.seconds) for process in processes) if timing else None,
        "first_call_seconds": statistics.median(process.first_seconds for process in processes) if timing else None,
        "overhead_seconds": statistics.median(process.overhead_seconds for process in processes) if timing else None,
        "cpu_seconds": sum(process.cpu_seconds for process in processes) if timing else None,
        "wall_seconds": sum(process.wall_seconds for process in processes) if timing else None,
        "call_seconds_median": middle_of([process.call_seconds for process in processes]),
        "host_seconds_median": middle_of([process.host_seconds for process in processes]),
        "voided_samples": sum(sum(process.voided.values()) for process in processes) if timing else None,
        "voided_causes": sorted({cause for process in processes for cause in process.voided}),
        "sm_clock_hz": middle_of([[process.sm_clock_hz] for process in processes if process.sm_clock_hz]),
        "timing_notes": sorted({note for process in processes for note in (*process.despite, process.note) if note}),
    }


def _memory(row: Row) -> dict[str, Value]:
    common = (
        *("inputs_bytes", "parameters_bytes", "output_bytes"),
        *("forward_peak_bytes", "saved_bytes", "backward_peak_bytes", "repeatable"),
    )
    rounding = {"allocator": ("forward_requested_bytes", "backward_requested_bytes")}
    return {
        f"{name}_{source}": _of(row.memory(source), name)
        for source in SOURCES
        for name in (*common, *rounding.get(source, ()))
    }


def _of(thing: object | None, attribute: str) -> Value:
    """An attribute of something that may not be there; None also for the infinite end of an interval.

    CSV and JSON have no infinity that every reader takes.
    """
    value: Value = getattr(thing, attribute, None)
    return None if isinstance(value, float) and not math.isfinite(value) else value


_ANY_RECORD = Record(case=Case(operator="", shape=Nchw(1, 1, 1, 1)), implementation="", outcome=Skipped(reason=""))
COLUMNS = tuple(of_row(Row(record=_ANY_RECORD), "", None))
"""The keys of every row, in order."""
