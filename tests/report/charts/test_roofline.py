"""Roofline: where rows stand, what the roof over them is, and what has no place."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest

from opbench.measure.ceilings import Ceiling
from opbench.report.charts import Chart, gap, roofline, table, waterline
from opbench.report.charts.model import number
from opbench.results import Failed, Measured, Policy
from opbench.store import Run
from tests.report.charts.machine import ONE_THREAD, drawn, judged, launches, material, with_ceilings
from tests.report.made_up import HOT, comparison, counts, gpu, record, run, timing


def chart(made: Run) -> Chart:
    return roofline.chart(material(made))


def two() -> Run:
    """One row in the light of memory, one of arithmetic: 10 and 200 FLOP/byte."""
    light = judged("light", [timing(20e-3)], 500_000_000, 100_000_000)
    heavy = judged("heavy", [timing(20e-3)], 1_000_000_000, 10_000_000, dense=1_250_000_000, implementation="native")
    return with_ceilings(run(light, heavy))


def test_rates_are_judged_by_the_roof_at_their_intensity() -> None:
    light, heavy = chart(two()).data
    # 25 GMAC/s, where copying 10 GB/s allows 50; and 50 GMAC/s, of which the products allow 100.
    assert light["flops_per_byte"] == 10
    assert light["macs_per_second"] == pytest.approx(25e9, rel=1e-3)
    assert (light["attainable_macs_per_second"], light["limit"]) == (50e9, "memory")
    assert heavy["flops_per_byte"] == 200
    assert heavy["macs_per_second"] == pytest.approx(50e9, rel=1e-3)
    assert (heavy["attainable_macs_per_second"], heavy["limit"]) == (100e9, "arithmetic")
    assert [each["attained_share"] for each in (light, heavy)] == pytest.approx([0.5, 0.5], rel=1e-3)


def test_dense_macs_stand_beside_those_in_bounds() -> None:
    light, heavy = chart(two()).data
    assert heavy["dense_macs_per_second"] == pytest.approx(62.5e9, rel=1e-3)
    assert heavy["dense_flops_per_byte"] == 250
    assert light["dense_macs_per_second"] == light["macs_per_second"]


def test_an_interval_of_time_is_one_of_the_rate_the_other_way_round() -> None:
    found = chart(two()).data[0]
    low, middle, high = (number(found, f"{end}macs_per_second") for end in ("low_", "", "high_"))
    assert low < middle < high


def test_a_single_sample_has_no_interval() -> None:
    once = timing(20e-3, processes=1)
    single = replace(once, processes=(replace(once.processes[0], seconds=(20e-3,)),))
    found = chart(with_ceilings(run(judged("single", [single], 10**9, 10**7))))
    assert (found.data[0]["low_macs_per_second"], found.data[0]["high_macs_per_second"]) == (None, None)
    assert ">single<" in drawn(found)


def test_the_finding_counts_what_memory_limits() -> None:
    text = chart(two()).finding
    assert text.startswith("Memory limits 1 of 2 rows, those below 20.0 FLOP/byte; ")
    assert "lies above the line" not in text


def test_what_lies_above_the_line_is_counted() -> None:
    fast = judged("fast", [timing(1e-3, HOT)], 500_000_000, 100_000_000)
    assert "; 1 of them lies above the line." in chart(with_ceilings(run(fast))).finding


@pytest.mark.parametrize("module", [roofline, gap, waterline])
def test_doubtful_ceilings_are_called_so(module: ModuleType) -> None:
    noisy = replace(
        ONE_THREAD,
        bytes_per_second=Ceiling(value=10e9, low=8e9, high=12.5e9),
        remark="in 9 % of the last ten seconds a task waited for a processor; stop what else is running",
    )
    row = judged("one", [timing(20e-3)], 10**9, 10**8, sequence=launches(("core", 10**9, 10**8)))
    assert (
        " The ceilings of the CPU with 1 thread are in doubt: copying ±22 %, arithmetic ±1 %; measured while in 9 % of "
        "the last ten seconds a task waited for a processor."
    ) in module.chart(material(with_ceilings(run(row), noisy))).finding
    assert "in doubt" not in module.chart(material(with_ceilings(run(row)))).finding


def test_each_device_and_thread_count_has_its_own_roof() -> None:
    pair = Policy(cache="cold", threads=2)
    twice = replace(
        ONE_THREAD, threads=2, macs_per_second={"float32": replace(ONE_THREAD.bytes_per_second, value=2e11)}
    )
    row = judged("heavy", [timing(20e-3), timing(12e-3, pair)], 10**9, 10**7)
    one, two_ = chart(with_ceilings(run(row), ONE_THREAD, twice)).data
    assert (one["roof_macs_per_second"], two_["roof_macs_per_second"]) == (100e9, 200e9)
    lone = chart(with_ceilings(run(row), ONE_THREAD))
    assert lone.data[1]["note"] == "no ceilings of the CPU with 2 threads"
    assert "1 × no ceilings of the CPU with 2 threads" in lone.finding


def test_what_has_no_place_says_why() -> None:
    found = chart(
        with_ceilings(
            run(
                judged("heavy", [timing(20e-3)], 10**9, 10**7),
                judged("idle", [timing(20e-3)], 0, 10**7),
                judged("network", [timing(20e-3)], 10**9, None),
                record("uncounted", timings_of(), counts=counts(5, unknown=["aten::mystery"])),
                record("broken", Failed(reason="no result after 300 s", status="timed_out")),
            )
        )
    )
    notes = [each["note"] for each in found.data]
    assert notes == [
        "",
        "no MACs",
        "its compulsory bytes are not known",
        "its MACs in bounds are not known",
        "timed out: no result after 300 s",
    ]
    assert all(f"1 × {note}" in found.finding for note in notes[1:])
    assert len(table(found).rows) == 5


def timings_of() -> Measured:
    return Measured(timings=(timing(20e-3),))


def test_without_ceilings_the_words_say_what_to_run() -> None:
    words = chart(comparison()).missing
    assert "opbench run 'suites/made up.yaml'" in words
    assert "opbench env --ceilings" in words


def test_without_a_ceiling_for_its_data_type_nothing_is_judged() -> None:
    no_rate = replace(ONE_THREAD, macs_per_second={})
    words = chart(with_ceilings(two(), no_rate)).missing
    assert "no float32 ceiling of the CPU with 1 thread" in words


def test_without_times_the_words_say_what_to_run() -> None:
    words = chart(with_ceilings(run(record("broken", Failed(reason="no"))))).missing
    assert "opbench run" in words


def test_without_counts_the_words_say_so() -> None:
    words = chart(with_ceilings(run(record("bare", timings_of())))).missing
    assert "its MACs in bounds are not known" in words


@pytest.mark.parametrize(
    ("made", "width"), [(two(), 640), (with_ceilings(comparison()), 320), (with_ceilings(gpu()), 640)]
)
def test_it_has_ink(made: Run, width: int) -> None:
    svg = drawn(chart(made), width)
    assert "B/s" in svg
    assert svg.count('aria-roledescription="point"') >= 2
    assert "NaN" not in svg


def test_names_that_are_markup_stay_names() -> None:
    svg = drawn(chart(with_ceilings(run(judged("<b>&\"'</b>" + "x" * 500, [timing(20e-3)], 10**9, 10**7)))))
    assert "<b>" not in svg


def test_of_many_rows_few_are_labelled() -> None:
    rows = [judged(f"operator_{index}", [timing((1 + index) * 1e-3)], 10**9 + index, 10**7) for index in range(50)]
    found = chart(with_ceilings(run(*rows)))
    svg = drawn(found)
    assert svg.count('aria-roledescription="point"') >= 50
    # The legend names thirty and says how many more there are.
    assert 30 + 3 <= svg.count(">operator_") <= 30 + 20
