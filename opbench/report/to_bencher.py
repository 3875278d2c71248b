"""Bencher Metric Format: JSON for `bencher run --adapter json`.

Each latency is the built-in measure `latency`, in nanoseconds, with the ends of its 95 % interval as `lower_value` and
`upper_value`. Each record's memory, in bytes, is under the name without the policy: `forward-peak`,
`saved-for-backward`, `backward-peak`.
"""

from __future__ import annotations

import json
import math

from opbench.measure.statistics import Estimate
from opbench.report.benchmarks import only_section, sized, timed
from opbench.report.model import View

_FORM = "bencher"


def bencher(view: View) -> str:
    """Write the latencies and the memory of one run."""
    section = only_section(view, _FORM)
    document: dict[str, dict[str, dict[str, float]]] = {}
    for each in timed(section, _FORM):
        if each.row.latency is not None:
            document[each.name] = {"latency": _metric(each.row.latency)}
    for record in sized(section):
        document[record.name] = {title.replace(" ", "-"): {"value": number} for title, number in record.bytes.items()}
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _metric(latency: Estimate) -> dict[str, float]:
    ends = {"value": latency.median, "lower_value": latency.low, "upper_value": latency.high}
    return {name: 1e9 * seconds for name, seconds in ends.items() if math.isfinite(seconds)}
