"""Under what policies this machine measures what a suite asks for."""

from __future__ import annotations

from collections.abc import Sequence

from opbench.measure import processor
from opbench.results import Policy
from opbench.settings import Measure


def thread_counts(measure: Measure) -> list[int]:
    """Threads that the cases are timed with, each count once."""
    # What runs on a GPU is launched by one thread, however many the suite asks for.
    asked: Sequence[int | str] = measure.threads if measure.device == "cpu" else (1,)
    counts = [processor.physical_cores() if count == "physical" else int(count) for count in asked]
    return [*dict.fromkeys(counts)]


def policies_of(measure: Measure) -> list[Policy]:
    """Every policy that is timed first; a GPU adds graphs where calls are short."""
    return [
        Policy(cache=cache, threads=count, device=measure.device)
        for count in thread_counts(measure)
        for cache in dict.fromkeys(measure.cache)
    ]
