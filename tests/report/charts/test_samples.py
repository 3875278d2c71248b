"""Samples: nothing unusual is lost on the way to a page, and a page does not grow beyond measure."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from opbench.report.charts import Chart, samples, table, thinned, told
from opbench.results import Failed, Measured, Record, Timing
from opbench.store import Run
from tests.report.charts.machine import drawn, material
from tests.report.made_up import COLD, comparison, gpu, record, run, timing


def chart(made: Run) -> Chart:
    return samples.chart(material(made))


def of(streams: Sequence[Sequence[float]], operator: str = "convolution", flags: tuple[str, ...] = ()) -> Record:
    (any_process,) = timing(1e-3, processes=1).processes
    processes = tuple(replace(any_process, seconds=tuple(stream)) for stream in streams)
    return record(operator, Measured(timings=(Timing(policy=COLD, processes=processes),), flags=flags))


def noise(number: int, seed: int = 0, spread: float = 0.01) -> list[float]:
    generator = np.random.default_rng(seed)
    return [1e-3 * math.exp(spread * value) for value in generator.standard_normal(number)]


def test_few_samples_are_all_kept_in_their_order() -> None:
    assert thinned.extremes([3.0, 1.0, 2.0], most=4) == [3, 1, 2]


def test_of_many_the_least_and_the_most_of_each_stretch_are_kept_in_their_order() -> None:
    assert thinned.extremes([1, 5, 3, 2, 9, 7, 8, 6], most=4) == [1, 5, 9, 6]
    kept = thinned.extremes([*range(1000), 5000, *range(1000, 0, -1)])
    assert len(kept) == thinned.MOST_POINTS
    assert (min(kept), max(kept)) == (0, 5000)


def test_the_course_is_the_medians_of_stretches() -> None:
    assert thinned.course([1, 9, 2, 5, 5, 6], stretches=2) == [2, 5]
    assert thinned.course([4.0], stretches=24) == [4]


def test_a_histogram_counts_every_sample_once() -> None:
    assert thinned.histogram([0, 1, 1, 3, 99], 0, 4, 4) == [0.2, 0.4, 0, 0.4]
    assert sum(thinned.histogram(noise(4000), 0.9e-3, 1.1e-3, 30)) == pytest.approx(1)


def test_a_window_holds_all_but_the_rarest_and_an_interval_of_their_size() -> None:
    stream = [*([1.0] * 500), *([1.1] * 500), 50.0]
    bottom, top = thinned.window([stream], 1.05, 1.04, 1.06)
    assert (bottom, top) == pytest.approx((0.97, 1.13))
    assert thinned.window([stream], 1.05, 0.95, 1.15) == pytest.approx((0.92, 1.18))
    assert thinned.window([stream], 1.05, 0.0, math.inf) == pytest.approx((0.97, 1.13))


def test_equal_samples_have_a_window_all_the_same() -> None:
    bottom, top = thinned.window([[1e-3]], 1e-3, 0.0, math.inf)
    assert bottom < 1e-3 < top


def test_times_are_written_as_steps_from_the_median() -> None:
    assert thinned.as_text([1e-3, 1.002e-3, 0.5e-3], 1e-3) == "0 200 -50000"


def test_each_process_has_its_quantiles_from_all_samples() -> None:
    stream = [1e-3 * (1 + index / 1000) for index in range(1001)]
    found = chart(run(of([stream, stream])))
    assert [datum["process"] for datum in found.data] == [1, 2]
    first = found.data[0]
    assert (first["samples"], first["beyond"]) == (1001, 0)
    quantiles = ("least_seconds", "percentile_5_seconds", "process_median_seconds", "percentile_95_seconds")
    assert [first[key] for key in quantiles] == pytest.approx([1e-3, 1.05e-3, 1.5e-3, 1.95e-3])
    assert len(str(first["drawn"]).split()) == thinned.MOST_POINTS
    assert found.settings == ()
    assert "drawn" not in {column.key for column in table(found).columns}


def test_two_states_are_two_bumps() -> None:
    found = chart(run(of([[1e-3] * 100 + [1.2e-3] * 100])))
    shares = [int(share) for share in str(found.data[0]["shares"]).split()]
    assert sorted(shares)[-2:] == [1000, 1000]
    assert sum(shares) == 2000


def test_rare_samples_far_away_are_counted_and_drawn_at_the_edge() -> None:
    found = chart(run(of([[*noise(500), 0.1]])))
    assert found.data[0]["beyond"] in range(1, 12)
    assert found.data[0]["most_seconds"] == 0.1
    assert str(round((0.1 / float(str(found.data[0]["latency_seconds"])) - 1) / thinned.STEP)) in str(
        found.data[0]["drawn"]
    )


def test_flagged_rows_come_first_then_the_widest_intervals() -> None:
    steady, shaky = of([noise(50, 1, 0.001)], "steady"), of([noise(50, 2, 0.1)], "shaky")
    flagged = of([noise(50, 3, 0.001)], "flagged", flags=("noisy",))
    found = chart(run(steady, shaky, flagged))
    assert found.settings == ("flagged", "shaky", "steady")
    assert found.finding.startswith("150 samples in 3 times. The widest interval is that of shaky (±")
    assert found.finding.endswith("flagged: 1.")


def test_a_page_takes_no_more_than_it_can_hold_and_says_what_is_left_out() -> None:
    stream = noise(300)
    found = chart(run(*(of([stream] * 3, f"operator{index}") for index in range(100))))
    assert len(json.dumps(told(found))) < samples.MOST_BYTES
    assert 25 < len(found.settings) < 100
    assert f"Shown are the {len(found.settings)} least steady" in found.finding
    assert f"{100 - len(found.settings)} are left out" in found.finding


def test_one_long_row_is_shown_however_large_it_is() -> None:
    found = chart(run(of([noise(4000, seed) for seed in range(3)])))
    assert len(found.data) == 3
    assert len(json.dumps(told(found))) < 5000


def test_rows_of_one_name_can_be_told_apart() -> None:
    assert samples._unused("a", []) == "a"
    assert samples._unused("a", ["a"]) == "a (2)"
    assert samples._unused("a", ["a", "a (2)"]) == "a (3)"


def test_without_times_the_suite_is_to_be_run() -> None:
    for made in (run(), run(record(outcome=Failed(reason="no")))):
        assert "opbench run" in chart(made).missing


@pytest.mark.parametrize(
    "made",
    [
        comparison(),
        gpu(),
        run(of([[1e-3]])),
        run(of([[*noise(300), 1.0], noise(60, 1), noise(5, 2)], "<b>&" + "x" * 300)),
    ],
)
def test_samples_are_drawn(made: Run) -> None:
    found = chart(made)
    picture = drawn(found, 320)
    number = sum(
        len(str(datum["drawn"]).split()) for datum in found.data if datum["setting"] == found.data[0]["setting"]
    )
    # The interval and the median have no points.
    assert picture.count('aria-roledescription="point"') == number
    assert "in the order taken" in picture
    assert "<b>" not in picture


def test_names_that_every_object_of_javascript_has_are_drawn_too() -> None:
    names = ("constructor", "__proto__", "toString")
    records = [record(name, Measured(timings=(timing(1e-3),))) for name in names]
    found = chart(run(*records))
    picture = drawn(found)
    assert picture.count('aria-roledescription="point"') == 21
