"""Latency bars: numbers, what the finding says of noise, and what stands beside a bar."""

from __future__ import annotations

import pytest

from opbench.report.charts import Chart, latency
from opbench.results import Failed, Measured
from opbench.store import Run
from tests.report.charts.machine import drawn, material
from tests.report.made_up import record, run, timing


def chart(made: Run) -> Chart:
    return latency.chart(material(made))


def two(flags: tuple[str, ...] = ()) -> Run:
    return run(
        record("quick", Measured(timings=(timing(2e-3),), flags=flags)),
        record("slow", Measured(timings=(timing(8e-3),))),
    )


def test_the_finding_names_the_least_and_the_most() -> None:
    assert chart(two()).finding == "From 2.00 ms (quick) to 8.00 ms (slow), 4.00× as long."


def test_an_interval_that_cannot_be_trusted_is_said_to_be_so() -> None:
    assert chart(two(("noisy",))).finding.endswith("; the intervals of 1 of 2 cannot be trusted: the notes say why.")
    assert "trusted" not in chart(two(("imprecise",))).finding


def test_flags_stand_beside_bars() -> None:
    assert "2.00 ms (noisy)" in drawn(chart(two(("noisy",))))


@pytest.mark.parametrize("width", [320, 640])
def test_what_has_no_time_says_why(width: int) -> None:
    broken = record("broken", Failed(reason="signal 11", status="crashed"))
    assert "crashed: signal 11" in drawn(chart(run(record("quick", Measured(timings=(timing(2e-3),))), broken)), width)


def test_without_times_the_words_say_what_to_run() -> None:
    assert "opbench run" in chart(run(record("idle", Measured(timings=())))).missing


def test_names_that_are_cut_alike_keep_bars_of_their_own() -> None:
    long = "deformable_large_kernel_attention_" * 4
    made = run(*(record(f"{long}{end}", Measured(timings=(timing(1e-3),))) for end in "ab"))
    first, second = (str(datum["label"]) for datum in chart(made).data)
    assert second == f"{first} (2)"
