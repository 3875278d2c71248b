"""Efficiency gap: the three bounds below a time, by hand, and rows of which not all are known."""

from __future__ import annotations

import pytest

from opbench.report.charts import Chart, gap
from opbench.results import Failed
from opbench.store import Run
from tests.report.charts.machine import drawn, judged, launches, material, with_ceilings
from tests.report.made_up import HOT, comparison, record, run, timing

MOVES = launches(("aten::convolution", 10**9, 50_000_000), ("aten::relu", 0, 100_000_000))
"""10 ms of arithmetic, then 10 ms of moving."""


def chart(made: Run) -> Chart:
    return gap.chart(material(made))


def two() -> Run:
    """One operation after another, against a kernel that does both."""
    eager = judged("eager", [timing(80e-3)], 10**9, 10**8, sequence=MOVES)
    fused = judged(
        "eager", [timing(12.5e-3)], 10**9, 10**8, sequence=launches(("core", 10**9, 10**8)), implementation="cuda"
    )
    return with_ceilings(run(eager, fused))


def test_bounds_below_a_time() -> None:
    eager, fused = chart(two()).data
    assert [eager[f"{bound}_seconds"] for bound in ("ideal", "fused", "waterline")] == [10e-3, 10e-3, 20e-3]
    assert [fused[f"{bound}_seconds"] for bound in ("ideal", "fused", "waterline")] == [10e-3, 10e-3, 10e-3]
    shares = [(each["efficiency"], each["highest_efficiency"], each["reached_share"]) for each in (eager, fused)]
    assert shares[0] == pytest.approx((0.125, 0.5, 0.25), rel=1e-3)
    assert shares[1] == pytest.approx((0.8, 1.0, 0.8), rel=1e-3)
    assert (eager["fusion_ratio"], fused["fusion_ratio"]) == (2, 1)


def test_traffic_that_no_kernel_avoids_is_not_fusions() -> None:
    light = judged("light", [timing(80e-3)], 10**8, 10**8, sequence=launches(("aten::mul", 10**8, 2 * 10**8)))
    found = chart(with_ceilings(run(light))).data[0]
    # 1 ms of arithmetic; but the inputs and the output alone take 10 ms, and this sequence moves twice as much.
    assert [found[f"{bound}_seconds"] for bound in ("ideal", "fused", "waterline")] == [1e-3, 10e-3, 20e-3]


def test_the_finding_tells_fusion_from_kernels() -> None:
    assert chart(two()).finding == (
        "Eager/cuda has the highest efficiency, 80 %, eager the lowest, 12 %; fusion could win most in eager, up to "
        "2.00×; kernels lose most in eager, which takes 4.00× its waterline bound."
    )


def test_fusion_wins_no_more_than_the_time_there_is() -> None:
    # What the convolution left was in a cache still: 15 ms where memory would have taken 20.
    found = chart(with_ceilings(run(judged("cached", [timing(15e-3)], 10**9, 10**8, sequence=MOVES))))
    assert found.data[0]["fusion_ratio"] == pytest.approx(1.5, rel=1e-3)
    assert found.data[0]["reached_share"] == pytest.approx(4 / 3, rel=1e-3)


def test_without_a_sequence_fusion_and_kernels_are_not_told_apart() -> None:
    found = chart(with_ceilings(run(judged("network", [timing(80e-3)], 10**9, None))))
    datum = found.data[0]
    assert (datum["ideal_seconds"], datum["fused_seconds"], datum["waterline_seconds"]) == (10e-3, None, None)
    assert datum["note"] == "what it launches is not known"
    assert "fusion's and the kernels' share" in drawn(found)


def test_no_work_has_no_efficiency_to_speak_of() -> None:
    idle = judged("idle", [timing(80e-3)], 0, 10**8, sequence=launches(("aten::relu", 0, 10**8)))
    found = chart(with_ceilings(run(idle)))
    assert (found.data[0]["ideal_seconds"], found.data[0]["efficiency"]) == (0, 0)
    assert "NaN" not in drawn(found)


def test_what_makes_a_bound_too_low_is_noted() -> None:
    short = launches(("aten::mystery", 0, 10**6), left_out=7, unknown=["aten::mystery"])
    found = chart(with_ceilings(run(judged("short", [timing(80e-3)], 10**9, 10**8, sequence=short)))).data[0]
    assert found["note"] == (
        "only 0 % of the MACs it needs are counted in its launches; 7 further launches are not known; "
        "not all its operations can be counted"
    )


def test_work_that_no_one_needs_is_noted() -> None:
    wasteful = judged("wasteful", [timing(80e-3)], 10**8, 10**8, sequence=MOVES)
    assert chart(with_ceilings(run(wasteful))).data[0]["note"] == "launches 10.0× the MACs it needs"


def test_a_time_below_the_ideal_is_explained() -> None:
    fast = judged("fast", [timing(8e-3, HOT)], 10**9, 10**8)
    assert chart(with_ceilings(run(fast))).finding.endswith(
        "1 of 1 takes less than the ideal time, so the device can do more than was measured as its ceiling."
    )
    assert "ideal time" not in chart(two()).finding


def test_failed_rows_stand_in_their_place_and_are_counted() -> None:
    broken = record("broken", Failed(reason="signal 11", status="crashed"))
    found = chart(with_ceilings(run(judged("eager", [timing(80e-3)], 10**9, 10**8), broken)))
    assert "Not drawn: 1 × crashed: signal 11." in found.finding
    assert "crashed: signal 11" in drawn(found, 320)


def test_what_was_never_timed_stands_in_every_setting_and_counts_once() -> None:
    both = judged("eager", [timing(80e-3), timing(70e-3, HOT)], 10**9, 10**8)
    found = chart(with_ceilings(run(both, record("broken", Failed(reason="signal 11", status="crashed")))))
    assert found.settings == ("cold cache", "hot cache")
    assert [each["setting"] for each in found.data if each["label"] == "broken"] == ["cold cache", "hot cache"]
    assert "Not drawn: 1 × crashed" in found.finding


def test_words_say_what_to_run() -> None:
    assert "opbench env --ceilings" in chart(comparison()).missing
    assert "opbench run" in chart(with_ceilings(run(record("broken", Failed(reason="no"))))).missing


def test_it_has_ink() -> None:
    svg = drawn(chart(two()))
    assert "what fusion could win" in svg
    assert svg.count('aria-roledescription="point"') >= 8
    assert "80 %" in svg


def test_of_many_rows_forty_are_drawn() -> None:
    rows = [judged(f"operator_{index}", [timing((11 + index) * 1e-3)], 10**9, 10**7) for index in range(50)]
    found = chart(with_ceilings(run(*rows)))
    assert len(found.data) == 50
    assert "Drawn are the 40 least of 50; the table has all." in found.finding
    svg = drawn(found)
    assert ">operator_39<" in svg
    assert ">operator_40<" not in svg
