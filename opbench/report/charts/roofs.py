"""Which of a run's measured ceilings hold for a row and how well they are known, or in words why none does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from opbench import units
from opbench.measure.ceilings import Ceiling, Ceilings
from opbench.plain import plain
from opbench.report import keys
from opbench.report.charts.bounds import Roof, works
from opbench.report.charts.material import Material
from opbench.report.charts.model import Value, number
from opbench.report.rows import Row
from opbench.report.words import outcome_in_words
from opbench.results import Counts, Policy

KINDS_OF_ABSENCE, REASON_LIMIT = 4, 60
WELL_KNOWN = 0.05
"""Half-width of a ceiling's interval, as a part of it, of which nothing need be said."""
SAME_WORK = 0.02
"""By how much of them the MACs of the launches may differ from those counted unsaid."""


def of_row(row: Row, ceilings: Sequence[Ceilings]) -> Roof | str:
    """The ceilings of the row's device, threads and data type; else why there are none, or no time to judge by them."""
    if row.latency is None or row.policy is None:
        return outcome_in_words(row.record.outcome) or "no time"
    policy, dtype = row.policy, row.record.case.dtype
    found = _of(policy, ceilings)
    if found is None:
        return f"no ceilings of {_where(policy)}"
    rate = found.macs_per_second.get(dtype)
    if rate is None:
        return f"no {dtype} ceiling of {_where(policy)}"
    return Roof(macs_per_second=rate.value, bytes_per_second=found.bytes_per_second.value)


def of_datum(datum: Mapping[str, Value]) -> Roof:
    """The roof that a chart's data hold."""
    return Roof(
        macs_per_second=number(datum, "roof_macs_per_second"),
        bytes_per_second=number(datum, "roof_bytes_per_second"),
    )


def doubt(rows: Iterable[Row], ceilings: Sequence[Ceilings]) -> str:
    """' The ceilings of the CPU with 1 thread are in doubt: copying ±42 %, arithmetic ±44 %.'; '' where none are.

    Of several that are, the first.
    """
    for policy, dtype in dict.fromkeys((row.policy, row.record.case.dtype) for row in rows):
        found = _of(policy, ceilings) if policy else None
        if policy is None or found is None or dtype not in found.macs_per_second:
            continue
        halves = {
            "copying": _half_width(found.bytes_per_second),
            "arithmetic": _half_width(found.macs_per_second[dtype]),
        }
        if found.remark or max(halves.values()) > WELL_KNOWN:
            known = ", ".join(f"{what} ±{units.percent(half)}" for what, half in halves.items())
            # Its later clauses say what to do about it, which is too late for a chart.
            meanwhile = f"; measured while {plain(found.remark.split(';')[0])}" if found.remark else ""
            return f" The ceilings of {_where(policy)} are in doubt: {known}{meanwhile}."
    return ""


def remarks(counts: Counts | None) -> list[str]:
    """What keeps the launches from being the work that is counted, and makes their bound less than it should be."""
    launches = counts and counts.launches
    if not counts or not launches:
        return []
    notes = []
    if counts.macs_in_bounds:
        share = sum(each.macs for each in works(launches)) / counts.macs_in_bounds
        if share > 1 + SAME_WORK:
            notes.append(f"launches {units.ratio(share)} the MACs it needs")
        elif share < 1 - SAME_WORK:
            notes.append(f"only {units.percent(share)} of the MACs it needs are counted in its launches")
    if launches.left_out:
        notes.append(f"{launches.left_out} further launches are not known")
    if any(each.unknown for each in launches.kinds):
        notes.append("not all its operations can be counted")
    return notes


def missing(material: Material) -> str:
    """Why no row can be judged by ceilings, and what to run; '' where some can."""
    if not any(row.latency for row in material.rows):
        return material.to_measure("latency")
    ceilings = material.run.header.environment.ceilings
    if not ceilings:
        return (
            "This run has no ceilings to judge its times by. A new run measures and stores them: "
            f"{material.command}; what they are on this machine shows opbench env --ceilings."
        )
    reasons = [found for row in material.rows if row.latency and isinstance(found := of_row(row, ceilings), str)]
    timed = sum(row.latency is not None for row in material.rows)
    if len(reasons) == timed:
        return f"No time of this run can be judged by its ceilings: {reasons[0]}; opbench env --ceilings shows them."
    return ""


def absence(reasons: Iterable[str]) -> str:
    """' Not drawn: 2 × skipped: no CUDA device; 1 × timed out.'; '' where nothing is absent."""
    counted = Counter(reason for reason in reasons if reason).most_common()
    if not counted:
        return ""
    texts = [f"{number} × {plain(reason, REASON_LIMIT)}" for reason, number in counted[:KINDS_OF_ABSENCE]]
    others = sum(number for _, number in counted[KINDS_OF_ABSENCE:])
    return f" Not drawn: {'; '.join([*texts, *([f'{others} for other reasons'] if others else [])])}."


def _of(policy: Policy, ceilings: Iterable[Ceilings]) -> Ceilings | None:
    return next((each for each in ceilings if _is_of(each, policy)), None)


def _half_width(ceiling: Ceiling) -> float:
    return (ceiling.high - ceiling.low) / (2 * ceiling.value)


def _is_of(ceilings: Ceilings, policy: Policy) -> bool:
    return ceilings.device == policy.device and (policy.device != "cpu" or ceilings.threads == policy.threads)


def _where(policy: Policy) -> str:
    return f"the CPU with {keys.text('threads', policy.threads)}" if policy.device == "cpu" else plain(policy.device)
