"""Pareto fronts: who is on them for certain, who may be, who is beaten, and what is drawn of it."""

import math
import re

import pytest

from opbench.cases import Nchw
from opbench.report.charts import Chart, pareto, table
from opbench.report.charts.front import Candidate, line, standings
from opbench.report.charts.names import with_room_below
from opbench.results import Counts, Failed, Measured, Record
from opbench.store import Run
from tests.report.charts.machine import drawn, material
from tests.report.made_up import HOT, comparison, counts, gpu, memory, record, run, timing


def point(x: float, y: float, half: float = 0.0, **changes: object) -> Candidate:
    facts = {"x": x, "x_high": x, "y": y, "low": y - half, "high": y + half, **changes}
    return Candidate(**facts)  # type: ignore[arg-type]


def charts(made: Run) -> dict[str, Chart]:
    return {chart.name: chart for chart in pareto.charts(material(made))}


def measured(operator: str, parameters: int, seconds: float, **changes: object) -> Record:
    facts: dict[str, object] = {
        "spread": 0.001,
        "macs": 1000,
        "unknown": (),
        "flags": (),
        "implementation": "reference",
    }
    facts |= changes
    return record(
        operator,
        Measured(timings=(timing(seconds, spread=facts["spread"]),), memory=memory(3), flags=facts["flags"]),  # type: ignore[arg-type]
        implementation=str(facts["implementation"]),
        counts=counts(facts["macs"], parameters, unknown=facts["unknown"]),  # type: ignore[arg-type]
    )


def front(chart: Chart) -> dict[object, object]:
    return {datum["label"]: datum["front"] for datum in chart.data}


def test_who_is_beaten_in_both_is_off_the_front() -> None:
    assert standings([point(1, 5), point(2, 3), point(3, 4), point(4, 1)]) == ["on it", "on it", "off", "on it"]
    assert line([point(1, 5), point(2, 3), point(3, 4), point(4, 1)]) == [True, True, False, True]


def test_who_is_beaten_in_one_and_equal_in_the_other_is_off_too_and_equals_are_not() -> None:
    assert standings([point(1, 1), point(1, 2), point(2, 1)]) == ["on it", "off", "off"]
    assert standings([point(1, 1), point(1, 1)]) == ["on it", "on it"]
    assert line([point(1, 1), point(1, 1)]) == [True, True]


def test_intervals_that_overlap_beat_nobody() -> None:
    assert standings([point(1, 5, 1), point(2, 5.5, 1)]) == ["on it", "perhaps"]
    assert standings([point(1, 5, 0.1), point(2, 5.5, 0.1)]) == ["on it", "off"]
    # Of equal size, either may be the faster.
    assert standings([point(1, 5, 1), point(1, 5.5, 1)]) == ["perhaps", "perhaps"]


def test_a_time_that_cannot_be_trusted_beats_nobody_and_is_not_beaten() -> None:
    unknown = point(1, 1, low=0.0, high=math.inf)
    assert standings([unknown, point(2, 2)]) == ["on it", "perhaps"]
    assert standings([point(1, 2), point(2, 1, low=0.0, high=math.inf)]) == ["on it", "perhaps"]


def test_a_lower_bound_beats_nobody_but_its_own_source() -> None:
    bound = point(1, 1, x_high=math.inf)
    assert standings([bound, point(2, 2)]) == ["on it", "perhaps"]
    assert standings([point(1, 1), point(2, 2, x_high=math.inf)]) == ["on it", "off"]
    fast, slow = (point(1, y, x_high=math.inf, source="the same case") for y in (1, 2))
    assert standings([fast, slow]) == ["on it", "off"]


def test_nobody_has_a_front_of_nobody() -> None:
    assert standings([]) == []
    assert line([]) == []
    assert standings([point(0, 0)]) == ["on it"]


def test_a_run_has_a_front_of_each_count_and_each_measurement() -> None:
    found = charts(run(measured("small", 10, 3e-3), measured("fast", 20, 1e-3), measured("bad", 30, 2e-3)))
    assert list(found) == [
        "pareto-parameters-latency",
        "pareto-macs-latency",
        "pareto-parameters-memory",
        "pareto-macs-memory",
    ]
    assert front(found["pareto-parameters-latency"]) == {"small": "on it", "fast": "on it", "bad": "off"}
    # Of equal MACs.
    assert front(found["pareto-macs-latency"]) == {"small": "off", "fast": "on it", "bad": "off"}
    # Of equal memory.
    assert front(found["pareto-parameters-memory"]) == {"small": "on it", "fast": "off", "bad": "off"}
    finding = found["pareto-parameters-latency"].finding
    assert finding == "The front of 3 is small (10, 3.00 ms), fast (20, 1.00 ms)."
    names = [datum["name"] for datum in found["pareto-parameters-latency"].data]
    assert names == ["small", "fast", ""]


def test_what_may_be_on_the_front_is_named_with_a_question_mark() -> None:
    near = run(measured("small", 10, 1.001e-3, spread=0.05), measured("large", 20, 1e-3, spread=0.05))
    chart = charts(near)["pareto-parameters-latency"]
    assert front(chart) == {"small": "on it", "large": "perhaps"}
    assert "? large" in {datum["name"] for datum in chart.data}
    assert "of 1 the intervals do not tell" in chart.finding
    noisy = run(measured("small", 10, 1e-3), measured("large", 20, 5e-3, flags=("noisy",)))
    assert front(charts(noisy)["pareto-parameters-latency"])["large"] == "perhaps"


def test_counts_that_are_lower_bounds_are_marked() -> None:
    made = run(measured("odd", 10, 1e-3, macs=5, unknown=("aten::odd",)), measured("even", 20, 2e-3, macs=9))
    chart = charts(made)["pareto-macs-latency"]
    assert [datum["bound"] for datum in chart.data] == ["≥", ""]
    assert front(chart)["even"] == "perhaps"
    assert "odd (≥ 5, 1.00 ms)" in chart.finding
    assert "≥" in table(chart).rows[0][2].text


def test_a_front_is_taken_within_a_setting_and_memory_knows_no_policy() -> None:
    timings = (timing(1e-3), timing(0.5e-3, HOT))
    one = record("one", Measured(timings=timings, memory=memory(3)), counts=counts(5, 5))
    found = charts(run(one))
    assert found["pareto-macs-latency"].settings == ("cold cache", "hot cache")
    assert set(front(found["pareto-macs-latency"]).values()) == {"on it"}
    assert (found["pareto-macs-memory"].settings, len(found["pareto-macs-memory"].data)) == ((), 1)
    training = record("one", Measured(memory=memory(3, "training")), pass_="training", counts=counts(5, 5))
    both = charts(run(training, one))["pareto-macs-memory"]
    assert both.settings == ("forward", "training")
    # In training, what is kept for the backward and the backward's own peak are needed at once.
    assert [datum["peak_bytes"] for datum in both.data] == [3 << 20, 7.5 * (1 << 20)]


def test_no_parameters_and_no_macs_have_a_place_at_zero() -> None:
    chart = charts(run(measured("shift", 0, 1e-3, macs=0), measured("conv", 100, 2e-3, macs=10)))["pareto-macs-latency"]
    assert chart.data[0]["macs_dense"] == 0
    assert 0 < float(str(chart.data[0]["place"])) < 10
    assert front(chart) == {"shift": "on it", "conv": "off"}
    assert ">0<" in drawn(chart)
    assert ">shift<" in drawn(charts(run(measured("shift", 0, 1e-3)))["pareto-parameters-latency"], 320)


def test_the_parameters_of_a_core_are_not_shown_and_what_is_not_counted_is_told() -> None:
    core = record("sasa", Measured(timings=(timing(1e-3),)), scope="core", counts=counts(5, 0))
    assert list(charts(run(core))) == ["pareto-macs-latency"]
    uncounted = record("drconv", Measured(timings=(timing(1e-3),)), counts=Counts(parameters=5))
    chart = charts(run(measured("conv", 5, 1e-3), uncounted))["pareto-macs-latency"]
    assert "Not drawn: 1 × no dense MACs." in chart.finding


def test_without_counts_or_times_the_suite_is_to_be_run() -> None:
    nothing = run(record(outcome=Failed(reason="no")))
    uncounted = run(record(outcome=Measured(timings=(timing(1e-3),))))
    for made in (nothing, uncounted, run()):
        (chart,) = charts(made).values()
        assert "opbench run" in chart.missing


@pytest.mark.parametrize("made", [comparison(), gpu()])
def test_points_the_front_and_its_names_are_drawn(made: Run) -> None:
    chart = charts(made)["pareto-macs-latency"]
    picture = drawn(chart)
    assert picture.count('aria-roledescription="point"') >= 2
    assert 'aria-roledescription="line mark"' in picture
    assert any(f">{datum['name']}<" in picture for datum in chart.data if datum["name"])


def test_names_that_would_cover_each_other_are_left_out() -> None:
    assert with_room_below([(1, 1), (1.001, 1), (100, 50)], ["first", "second", "third"]) == ["first", "", "third"]
    assert with_room_below([], []) == []


def test_hundreds_of_rows_with_hostile_names_are_drawn() -> None:
    records = [
        record(
            f"<b>{index % 20}{'x' * 70}",
            Measured(timings=(timing(1e-4 * (1 + index % 23)),)),
            shape=Nchw(1, 8, 4, 4 + index // 20),
            counts=counts(index + 1, index),
        )
        for index in range(200)
    ]
    chart = charts(run(*records))["pareto-macs-latency"]
    assert len(chart.settings) == 10
    assert "<b>" not in drawn(chart)


def test_names_that_every_object_of_javascript_has_are_drawn_too() -> None:
    names = ("constructor", "__proto__", "toString")
    records = [record(name, Measured(timings=(timing(1e-3),)), counts=counts(5, 5)) for name in names]
    found = charts(run(*records))["pareto-macs-latency"]
    assert ">constructor\u200b<" in drawn(found)


def test_a_lone_point_has_one_tick_and_an_interval_no_longer_than_it_is() -> None:
    picture = drawn(charts(run(measured("lone", 2000, 1e-3)))["pareto-parameters-latency"])
    assert ">2k<" in picture
    assert not any(f">{other}<" in picture for other in ("1k", "5k", "10k", "500µs", "2ms"))
    (length,) = re.findall(r'"rule mark"[^>]* x2="0" y2="(-?[\d.]+)"', picture)
    # Half a percent, of an axis that goes 15 % up and down.
    assert 0 < abs(float(length)) < 10
