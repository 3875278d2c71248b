"""Which of a run's measured ceilings hold for a row, or in words why none does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from opbench.measure.ceilings import Ceilings
from opbench.plain import plain
from opbench.report import keys
from opbench.report.charts.bounds import Roof
from opbench.report.charts.material import Material
from opbench.report.rows import Row
from opbench.report.words import outcome_in_words
from opbench.results import Policy

KINDS_OF_ABSENCE, REASON_LIMIT = 4, 60


def of_row(row: Row, ceilings: Sequence[Ceilings]) -> Roof | str:
    """The ceilings of the row's device, threads and data type; else why there are none, or no time to judge by them."""
    if row.latency is None or row.policy is None:
        return outcome_in_words(row.record.outcome) or "no time"
    policy, dtype = row.policy, row.record.case.dtype
    found = next((each for each in ceilings if _is_of(each, policy)), None)
    if found is None:
        return f"no ceilings of {_where(policy)}"
    rate = found.macs_per_second.get(dtype)
    if rate is None:
        return f"no {dtype} ceiling of {_where(policy)}"
    return Roof(macs_per_second=rate.value, bytes_per_second=found.bytes_per_second.value)


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


def _is_of(ceilings: Ceilings, policy: Policy) -> bool:
    return ceilings.device == policy.device and (policy.device != "cpu" or ceilings.threads == policy.threads)


def _where(policy: Policy) -> str:
    return f"the CPU with {keys.text('threads', policy.threads)}" if policy.device == "cpu" else plain(policy.device)
