"""Waterline: bars of a sequence, one row at a time, and long sequences."""

from __future__ import annotations

from dataclasses import replace

import pytest

from opbench.report.charts import Chart, waterline
from opbench.results import Policy
from opbench.store import Run
from tests.report.charts.machine import ONE_THREAD, drawn, judged, launches, material, with_ceilings
from tests.report.made_up import COLD, HOT, comparison, run, timing

STEPS = launches(
    ("aten::convolution", 10**9, 20_000_000),  # 100 FLOP/byte: 10 ms of arithmetic.
    ("aten::relu", 0, 40_000_000),  # 4 ms of moving.
    ("aten::mul", 200_000_000, 60_000_000),  # 6.67 FLOP/byte: 6 ms of moving for 2 ms of arithmetic.
)


def chart(made: Run) -> Chart:
    return waterline.chart(material(made))


def three() -> Run:
    return with_ceilings(
        run(judged("three", [timing(80e-3, COLD), timing(60e-3, HOT)], 12 * 10**8, 10**7, sequence=STEPS))
    )


def test_bars_stand_side_by_side_in_the_order_run() -> None:
    data = chart(three()).data
    assert [(each["operation"], each["start_bytes"], each["bytes"]) for each in data] == [
        ("aten::convolution", 0, 20_000_000),
        ("aten::relu", 20_000_000, 40_000_000),
        ("aten::mul", 60_000_000, 60_000_000),
    ]
    assert [each["flops_per_byte"] for each in data] == pytest.approx([100, 0, 20 / 3])
    assert [each["limit"] for each in data] == ["arithmetic", "memory", "memory"]
    assert [each["least_seconds"] for each in data] == pytest.approx([10e-3, 4e-3, 6e-3])
    assert [each["share"] for each in data] == pytest.approx([0.5, 0.2, 0.3])


def test_the_bars_share_of_bars_and_water_is_the_efficiency() -> None:
    found = chart(three())
    # 12 ms of arithmetic in 20 ms.
    assert found.data[0]["highest_efficiency"] == pytest.approx(0.6)
    area = sum(float(str(each["bytes"])) * max(float(str(each["flops_per_byte"])), 20) for each in found.data)
    assert 2 * 12 * 10**8 / area == pytest.approx(0.6)
    assert found.finding == (
        "What three launches can reach at most 60 % of the arithmetic rate, with the waterline at 20.0 FLOP/byte."
    )


def test_a_row_of_several_policies_is_there_once_for_each_device() -> None:
    found = chart(three())
    assert len(found.data) == 3
    assert found.settings == ()
    twice = replace(ONE_THREAD, threads=2, bytes_per_second=replace(ONE_THREAD.bytes_per_second, value=2e10))
    pair = Policy(cache="cold", threads=2)
    row = judged("three", [timing(80e-3), timing(50e-3, pair)], 12 * 10**8, 10**7, sequence=STEPS)
    assert chart(with_ceilings(run(row), ONE_THREAD, twice)).settings == (f"three, {COLD}", f"three, {pair}")


def test_of_a_long_sequence_equal_launches_are_one_bar() -> None:
    steps = [("aten::mul", 10**6, 10**6), ("aten::add", 0, 3 * 10**6)] * 49
    found = chart(with_ceilings(run(judged("long", [timing(80e-3)], 49 * 10**6, 10**6, sequence=launches(*steps)))))
    assert [(each["launches"], each["bytes"]) for each in found.data] == [(49, 49 * 10**6), (49, 147 * 10**6)]
    assert "mul × 49" in drawn(found)
    assert found.data[0]["note"] == "equal operations are one bar, where the first is run"


def test_a_bar_far_above_the_line_is_broken() -> None:
    high = launches(("aten::convolution", 10**10, 2 * 10**7), ("aten::relu", 0, 2 * 10**7))
    found = chart(with_ceilings(run(judged("high", [timing(1.0)], 10**10, 10**7, sequence=high))))
    svg = drawn(found)
    assert "convolution: 1000 FLOP/byte" in svg
    assert "relu: " not in svg


def test_what_is_unknown_is_noted() -> None:
    short = launches(("aten::mystery", 0, 10**6), left_out=7, unknown=["aten::mystery"])
    found = chart(with_ceilings(run(judged("short", [timing(80e-3)], 10**9, 10**8, sequence=short)))).data[0]
    assert found["note"] == (
        "only 0 % of the MACs it needs are counted in its launches; 7 further launches are not known; "
        "not all its operations can be counted"
    )


def test_words_say_what_to_run() -> None:
    assert "opbench env --ceilings" in chart(comparison()).missing
    words = chart(with_ceilings(comparison())).missing
    assert "which operations it launches" in words
    assert "opbench run 'suites/made up.yaml'" in words


def test_a_hundred_rows_are_enough_to_choose_from() -> None:
    rows = [judged(f"operator_{index}", [timing(80e-3)], 10**9, 10**8, sequence=STEPS) for index in range(120)]
    found = chart(with_ceilings(run(*rows)))
    assert (len(found.settings), len(found.data)) == (100, 300)
    assert "The first 100 rows are here." in found.finding
    long = launches(*(("aten::mul", 10**6 + step, 10**6) for step in range(40)))
    rows = [judged(f"operator_{index}", [timing(80e-3)], 10**9, 10**8, sequence=long) for index in range(50)]
    found = chart(with_ceilings(run(*rows)))
    assert (len(found.settings), len(found.data)) == (37, 1480)
    assert "The first 37 rows are here." in found.finding


@pytest.mark.parametrize("width", [640, 320])
def test_it_has_ink(width: int) -> None:
    svg = drawn(chart(three()), width)
    assert "waterline at 20.0 FLOP/byte" in svg
    assert svg.count('aria-roledescription="rect mark"') >= 5
    assert "NaN" not in svg


def test_names_that_are_markup_stay_names() -> None:
    odd = launches(("aten::<script>\u202e" + "x" * 500, 10, 10**6))
    svg = drawn(chart(with_ceilings(run(judged("<b>&\"'", [timing(80e-3)], 10, 10**6, sequence=odd)))))
    assert "<script>" not in svg
