"""A row is one record under one policy, with what follows from its samples: the raw numbers of every table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from opbench.measure.statistics import Estimate, Ratio, estimate, ratio
from opbench.report.words import outcome_in_words
from opbench.results import Measured, Memory, Policy, Record, Timing

SOURCES = {"allocator": "GPU allocator", "tracker": "tensor tracker", "high_water": "process's high-water mark"}
"""Where memory is read from, the best first, and its name for readers.

The allocator is exact and also sees scratch space inside operations; the tracker is exact; the high-water mark is not.
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One record under one policy; records without times have one row without a policy."""

    record: Record
    policy: Policy | None = None
    timing: Timing | None = None
    latency: Estimate | None = None
    """Seconds per call."""
    ratio: Ratio | None = None
    """Latency divided by the baseline's; None for the baseline itself."""
    is_baseline: bool = False
    no_ratio: str = ""
    """Why a latency has no ratio, where a baseline was asked for."""

    @property
    def measured(self) -> Measured | None:
        """The outcome, if it is a measured one."""
        return self.record.outcome if isinstance(self.record.outcome, Measured) else None

    @property
    def params(self) -> dict[str, object]:
        """Every parameter known: those the suite set, and the defaults where the operator came to be loaded."""
        return {**self.record.case.params, **self.record.params}

    @property
    def throughput(self) -> float | None:
        """Images per second."""
        return self.record.case.shape.batch / self.latency.median if self.latency else None

    @property
    def intensity(self) -> float | None:
        """FLOPs, taps on padding excluded, for each byte that must be moved."""
        counts = self.record.counts
        if counts is None or counts.macs_in_bounds is None or not counts.compulsory_bytes:
            return None
        return 2 * counts.macs_in_bounds / counts.compulsory_bytes

    def memory(self, source: str | None = None) -> Memory | None:
        """The bytes as one source saw them, or as the most exact source there is."""
        found: dict[str, Memory] = {memory.source: memory for memory in self.measured.memory} if self.measured else {}
        wanted = tuple(SOURCES) if source is None else (source,)
        return next((found[name] for name in wanted if name in found), None)


def rows(records: Iterable[Record], baseline: str | None = None) -> tuple[Row, ...]:
    """Make the rows of a run's records, in their order, with ratios to the baseline where they may be taken."""
    made = tuple(row for record in records for row in _of_record(record))
    return made if baseline is None else compared(made, baseline)


def compared(rows: Sequence[Row], baseline: str) -> tuple[Row, ...]:
    """The same rows with ratios to another baseline."""
    plain = [replace(row, ratio=None, is_baseline=False, no_ratio="") for row in rows]
    rivals: dict[object, list[Row]] = {}
    for row in plain:
        if row.record.name == baseline:
            rivals.setdefault(_circumstances(row.record), []).append(row)
    return tuple(_with_ratio(row, baseline, rivals.get(_circumstances(row.record), [])) for row in plain)


def _of_record(record: Record) -> list[Row]:
    if not isinstance(record.outcome, Measured) or not record.outcome.timings:
        return [Row(record=record)]
    return [
        Row(record=record, policy=timing.policy, timing=timing, latency=estimate(timing))
        for timing in record.outcome.timings
    ]


def _circumstances(record: Record) -> object:
    """All that must be equal, besides the policy, for two times to be compared."""
    case = record.case
    return case.scope, case.pass_, case.shape, case.dtype, case.memory_format


def _with_ratio(row: Row, baseline: str, rivals: Sequence[Row]) -> Row:
    if row.record.name == baseline:
        return replace(row, is_baseline=True)
    if row.latency is None:
        return row
    divisor = _divisor(row, baseline, rivals)
    if isinstance(divisor, str):
        return replace(row, no_ratio=divisor)
    return replace(row, ratio=ratio(row.latency, divisor))


def _divisor(row: Row, baseline: str, rivals: Sequence[Row]) -> Estimate | str:
    """The baseline's time that this row's is divided by, or why there is none."""
    if not rivals:
        return f"{baseline} has no record in this setting"
    cases = {rival.record.case.id for rival in rivals}
    if len(cases) > 1:
        # In a scan, each row is compared with the baseline at the same point of the scan.
        rivals = [rival for rival in rivals if _agree(row.record, rival.record)]
        cases = {rival.record.case.id for rival in rivals}
    if len(cases) != 1:
        fitting = f"{len(cases)} rows that fit" if cases else "no row with the same parameters"
        return f"{baseline} has {fitting}, so there is not one to divide by"
    times = [rival.latency for rival in rivals if rival.latency is not None]
    if not times:
        return f"{baseline} was not timed: {outcome_in_words(rivals[0].record.outcome) or 'it has no times'}"
    under_this_policy = [time for time in times if time.policy == row.policy]
    if not under_this_policy:
        policies = "; ".join(str(time.policy) for time in times)
        return f"{baseline} was timed under another policy ({policies}), and such times are never divided"
    return under_this_policy[0]


def _agree(record: Record, baseline: Record) -> bool:
    """Whether the two cases give the same value to every parameter that both suites' cases set."""
    ours, theirs = record.case.params, baseline.case.params
    return all(ours[name] == theirs[name] for name in ours.keys() & theirs.keys())
