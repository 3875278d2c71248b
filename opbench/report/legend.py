"""What the numbers and marks of the tables mean; explains what appears, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from opbench import units
from opbench.plain import plain
from opbench.report.columns import NAME_LIMIT
from opbench.report.model import Block
from opbench.report.rows import SOURCES, Row
from opbench.report.words import FLAGS, NONE, NOT_APPLICABLE
from opbench.settings import Measure

_CACHE = {
    "cold": "cold cache: inputs and parameters rotate through more memory than the last-level cache holds",
    "hot": "hot cache: every call reads the same buffers, which may stay in the cache",
}
_LAUNCH = {
    "eager": "eager: each call is launched from Python",
    "graph": "graph: the calls are recorded once and replayed",
}
_ON_A_GPU = (
    "On a GPU a latency is what two events on the stream saw: the stream was held until all calls were queued, so that "
    "launching them is not part of it. For a cold cache L2 was written over and read back before each sample. Calls "
    "shorter than 50 µs are timed both as launched and as a graph; the two are never divided by each other."
)
_INTERVAL = {
    "processes": "a t-interval over the logarithms of the processes' medians",
    "batch_means": "from the batch means of a single process, so it does not know how processes differ",
}
_MEMORY = {
    "tracker": "every live tensor, to the byte",
    "allocator": "what it handed out, to the byte",
    "high_water": "resident memory, within 1 %",
}


def legend(rows: Sequence[Row], measure: Measure, baseline: str | None) -> Block:
    """Explain the tables of a run."""
    parts = (
        _shape(),
        _counting(rows),
        _timing(rows, measure),
        _ratios(rows, baseline),
        _memory(rows),
        flags_explained(rows),
        _signs(),
    )
    return Block(title="How to read this", lines=tuple(line for part in parts for line in part))


def _shape() -> Iterator[str]:
    yield "Shapes are batch x channels x height x width; a number is for the whole batch and the pass of its table."


def _counting(rows: Sequence[Row]) -> Iterator[str]:
    counted = [row.record.counts for row in rows if row.record.counts]
    if not counted:
        return
    yield (
        "One multiply-accumulate is 1 MAC and 2 FLOPs; what papers call FLOPs are mostly MACs. Dense MACs count the "
        "taps on padding too, as papers do; MACs in bounds do not, and are shown where they differ. Bias, "
        "activations, norms and pooling count nothing."
    )
    yield "Parameters are every learnable scalar of the layer, norms included; a core has none."
    if any(row.intensity is not None for row in rows):
        yield (
            "FLOP/byte divides the FLOPs in bounds by the compulsory bytes: each input and parameter read once, each "
            "output written once, in training in both phases and with every gradient."
        )
    if any(counts.at_least for counts in counted):
        yield "≥ marks a lower bound: the footnote names the operations that no counter knows."


def _timing(rows: Sequence[Row], measure: Measure) -> Iterator[str]:
    times = [row.latency for row in rows if row.latency]
    if not times:
        return
    processes = "/".join(str(number) for number in sorted({time.processes for time in times}))
    plural = "process" if processes == "1" else "processes"
    yield f"A latency is the time of one call: the median of the medians of {processes} separate {plural}."
    yield from (f"The 95 % interval is {_INTERVAL[method]}." for method in dict.fromkeys(time.method for time in times))
    yield (
        f"A process stops sampling at an interval of ±{units.percent(measure.precision)}, "
        f"after {units.seconds(measure.max_seconds)} or {measure.max_samples} samples."
    )
    policies = list(dict.fromkeys(time.policy for time in times))
    explained = [*(_CACHE[policy.cache] for policy in policies), *(_LAUNCH[policy.launch] for policy in policies)]
    yield from (f"{text[0].upper()}{text[1:]}." for text in dict.fromkeys(explained))
    if any(policy.device == "cuda" for policy in policies):
        yield _ON_A_GPU


def _ratios(rows: Sequence[Row], baseline: str | None) -> Iterator[str]:
    if baseline and any(row.ratio for row in rows):
        name = plain(baseline, NAME_LIMIT)
        yield (
            f"÷ {name} is the latency divided by that of {name} at the same scope, pass, shape, dtype, memory format "
            "and policy, and at the same parameters where it was measured with several; below 1× is faster."
        )


def _memory(rows: Sequence[Row]) -> Iterator[str]:
    sources = dict.fromkeys(memory.source for row in rows if (memory := row.memory()))
    if not sources:
        return
    read = "; ".join(f"{SOURCES[source]} ({_MEMORY[source]})" for source in sources)
    yield (
        "A peak is what comes on top of what was there before its phase; saved for backward leaves out inputs and "
        f"parameters. Read from the {read}."
    )


def flags_explained(rows: Sequence[Row]) -> Iterator[str]:
    """What the reservations of some rows mean."""
    raised = dict.fromkeys(flag for row in rows if row.measured for flag in row.measured.flags)
    yield from (f"{flag.capitalize()}: {FLAGS[flag]}." for flag in raised if flag in FLAGS)


def _signs() -> Iterator[str]:
    yield f"{NONE} means no value, for the reason in the notes; {NOT_APPLICABLE} means that there is no such quantity."
    yield "Bold is the least of its column, where its interval lies below all others; otherwise nothing is bold."
