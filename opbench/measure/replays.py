"""Which calls on a GPU are also timed as graphs, and what becomes of those that cannot be.

Every call is timed as it is launched from Python. A call that lasts less than 50 µs is timed once more, as a graph:
so short, its launches cost as much as its work, and frameworks that care record them. The two are different policies,
stated with each time and never divided by each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from opbench.errors import said
from opbench.measure import blocks
from opbench.measure.device_clock import DeviceClock
from opbench.measure.stop import StopRule
from opbench.measure.stream import Call
from opbench.results import Policy, Sampling

Samplings = list[tuple[Policy, Sampling]]


def added(
    launched: Samplings, clock: DeviceClock, calls: Sequence[Call], rule: StopRule
) -> tuple[Samplings, list[Any]]:
    """Add graphs of the short calls to what was sampled; return also what the first call of each graph computed.

    Args:
        launched: what was sampled of launched calls, by policy.
        clock: what sampled them.
        calls: the ring of buffer sets; of a hot cache only the first.
        rule: when to stop.
    """
    samplings: Samplings = []
    results: list[Any] = []
    reason = ""
    for policy, sampling in launched:
        cold = policy.cache == "cold"
        if not blocks.is_short(median(sampling.seconds)):
            samplings.append((policy, sampling))
            continue
        # What cannot be recorded once cannot be again, and must not be tried where a capture has failed.
        if not reason:
            try:
                replayed, computed = clock.replay(calls if cold else calls[:1], rule, cold=cold, launched=sampling)
            except Exception as error:
                reason = f"not timed as a graph: {said(error) or type(error).__name__}"
                clock.stream.wait()  # Raises what has broken the device, and not only the recording.
            else:
                results.append(computed)
                samplings += [(policy, sampling), (replace(policy, launch="graph"), replayed)]
                continue
        samplings.append((policy, replace(sampling, note=reason)))
    return samplings, results
