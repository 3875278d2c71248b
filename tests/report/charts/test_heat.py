"""Heat maps: which ratio stands in which cell, what stands where there is none, and that figures can be read."""

import pytest

from opbench import report
from opbench.cases import Nchw
from opbench.report.charts import Chart, Material, heat, table
from opbench.results import Failed, Measured, Skipped, Wrong
from opbench.store import Run
from tests.report.charts.machine import drawn
from tests.report.made_up import COLD, HOT, comparison, gpu, record, run, timing


def chart(made: Run, **options: str) -> Chart:
    section = report.view([made], report.Options(**options)).sections[0]  # type: ignore[arg-type]
    return heat.chart(Material(made, section.rows, section.baseline))


def cells(found: Chart) -> dict[tuple[object, object], object]:
    return {(datum["label"], datum["column"]): datum["cell"] for datum in found.data}


def test_a_cell_is_the_time_divided_by_the_baselines() -> None:
    slow = record("sasa", Measured(timings=(timing(3e-3),)))
    found = chart(run(record(outcome=Measured(timings=(timing(2e-3),))), slow, baseline="convolution"))
    assert cells(found) == {("convolution", "forward"): "1×", ("sasa", "forward"): "1.50×"}
    ratio = found.data[1]
    assert ratio["ratio_to_baseline"] == pytest.approx(1.5)
    assert table(found).rows[1][3].text == "1.50×"
    assert found.finding == (
        "Ratios to convolution: 1, of which 0 certainly below 1 (faster) and 1 above (slower); from 1.50× (sasa)."
    )


def test_every_outcome_has_its_mark_and_its_reason() -> None:
    found = cells(chart(comparison()))
    assert found["large_kernel_depthwise/native", "forward, cold cache"] == "0.400×"
    assert found["involution/cuda", "forward, hot cache"] == "–"
    assert found["sasa", "forward, cold cache"] == "✗"
    assert found["xvolution", "forward, cold cache"] == "!"
    notes = {datum["label"]: datum["note"] for datum in chart(comparison()).data}
    assert notes["xvolution"] == "failed: layer.py:12: ValueError: no"


def test_a_refused_ratio_is_not_a_number() -> None:
    hot = record("sasa", Measured(timings=(timing(1e-3, HOT), timing(1e-3))))
    found = chart(run(record(outcome=Measured(timings=(timing(1e-3, COLD),))), hot, baseline="convolution"))
    assert cells(found)["sasa", "hot cache"] == "?"
    assert "timed under another policy" in str(found.data[1]["note"])
    assert "Without a ratio: 1." in found.finding


def test_only_what_is_certainly_fastest_is_framed() -> None:
    base = record(outcome=Measured(timings=(timing(1e-3),)))
    near = record("sasa", Measured(timings=(timing(0.999e-3, spread=0.05),)))
    fast = record("sasa", Measured(timings=(timing(0.5e-3),)))
    noisy = record("sasa", Measured(timings=(timing(0.5e-3),), flags=("noisy",)))
    for rival, best in ((near, ["", ""]), (fast, ["", "fastest"]), (noisy, ["", ""])):
        assert [datum["best"] for datum in chart(run(base, rival, baseline="convolution")).data] == best
    assert "1 not told apart" in chart(run(base, noisy, baseline="convolution")).finding


def test_all_settings_are_columns_as_long_as_they_fit_beside_each_other() -> None:
    def of(shapes: int) -> Chart:
        records = [
            record(name, Measured(timings=(timing(1e-3),)), shape=Nchw(1, 8, side, side), pass_=pass_)
            for pass_ in ("training", "forward")
            for side in range(1, shapes + 1)
            for name in ("convolution", "sasa")
        ]
        return chart(run(*records, baseline="convolution"))

    few, many = of(2), of(9)
    assert few.settings == ()
    assert [datum["column"] for datum in few.data][:2] == ["training, 1x8x1x1"] * 2
    assert many.settings == ("forward", "training")
    assert {datum["column"] for datum in many.data} == {f"1x8x{side}x{side}" for side in range(1, 10)}
    # More shapes than operators: the shapes stand below each other.
    assert (few.facts["down"], many.facts["down"]) == ("label", "column")


def test_without_a_baseline_the_option_is_named() -> None:
    found = chart(run(record("sasa", Measured(timings=(timing(1e-3),)))))
    assert found.missing.endswith("opbench report runs/made-up --baseline sasa.")


def test_without_times_the_suite_is_to_be_run() -> None:
    assert "opbench run" in chart(run(record(outcome=Failed(reason="no")), baseline="convolution")).missing
    assert "opbench run" in chart(run()).missing


def test_a_baseline_alone_or_one_without_times_has_nothing_to_compare() -> None:
    timed = Measured(timings=(timing(1e-3),))
    assert "nothing else was timed" in chart(run(record(outcome=timed), baseline="convolution")).missing
    skipped = record("sasa", Skipped(reason="no GPU"))
    found = chart(run(record(outcome=timed), skipped, baseline="sasa"))
    assert "sasa was not timed: skipped: no GPU" in found.missing
    assert "--baseline NAME" in found.missing


def luminance(colour: str) -> float:
    """WCAG's relative luminance."""
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("end", [heat.FASTER, heat.SLOWER])
def test_figures_stand_out_from_every_colour_between_the_ends(end: str) -> None:
    for step in range(11):
        between = [
            round(int(heat.SAME[i : i + 2], 16) * (10 - step) / 10 + int(end[i : i + 2], 16) * step / 10)
            for i in (1, 3, 5)
        ]
        colour = "#" + "".join(f"{part:02x}" for part in between)
        assert (luminance(colour) + 0.05) / (luminance(heat.TEXT) + 0.05) > 7


def test_cells_figures_and_marks_are_drawn() -> None:
    picture = drawn(chart(comparison()))
    assert all(text in picture for text in (">0.400×<", ">1×<", ">✗<", ">–<", ">!<", "large_kernel_depthwise/native"))


def test_ratios_beyond_all_measure_are_said_to_be_beyond() -> None:
    base = record(outcome=Measured(timings=(timing(1e-6),)))
    far = record("sasa", Measured(timings=(timing(1.0),)))
    assert ">≥ 16×<" in drawn(chart(run(base, far, baseline="convolution")), 320)


@pytest.mark.parametrize("made", [gpu(), run(record(outcome=Measured(timings=(timing(1e-3, processes=1),))))])
def test_launches_and_lone_processes_have_cells(made: Run) -> None:
    found = chart(made)
    assert found.missing or "1×" in cells(found).values()


def test_hundreds_of_rows_with_hostile_names_are_drawn_in_part() -> None:
    records = [
        record(f"<b>&{index}{'x' * 70}", Measured(timings=(timing(1e-3 * (index + 1)),))) for index in range(119)
    ]
    wrong = record("wrong", Wrong(quantity="forward", error=None, budget=0.0, where="x"))
    found = chart(run(*records, wrong, baseline=records[0].name))
    assert "Drawn are 60 lines of 120" in found.finding
    assert len(found.data) == 120
    assert "<b>" not in drawn(found)


def test_names_that_every_object_of_javascript_has_are_drawn_too() -> None:
    names = ("constructor", "__proto__", "toString")
    records = [record(name, Measured(timings=(timing(1e-3),))) for name in names]
    found = chart(run(*records, baseline="constructor"))
    assert ">constructor\u200b<" in drawn(found)
