"""Memory: parts that add up to what was measured, and nothing counted twice that can be told apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from opbench.report.charts import Chart, memory
from opbench.report.charts.model import number
from opbench.results import Failed, Measured, Memory, Record
from opbench.store import Run
from tests.report import made_up
from tests.report.charts.machine import drawn, material
from tests.report.made_up import COLD, HOT, comparison, record, run, timing

PARTS = ("inputs", "parameters", "output", "saved", "workspace")
FORWARD = Memory(
    source="tracker", inputs_bytes=100, parameters_bytes=20, output_bytes=100, forward_peak_bytes=350, repeatable=True
)
TRAINING = replace(FORWARD, saved_bytes=150, backward_peak_bytes=500)


def chart(made: Run) -> Chart:
    return memory.chart(material(made))


def held(*found: Memory, operator: str = "convolution") -> Record:
    return record(operator, Measured(memory=found))


def parts(found: Chart, index: int = 0) -> list[object]:
    return [found.data[index][f"{part}_bytes"] for part in PARTS]


def test_a_forward_holds_inputs_parameters_output_and_workspace() -> None:
    found = chart(run(held(FORWARD)))
    assert parts(found) == [100, 20, 100, None, 250]
    assert found.data[0]["total_bytes"] == 100 + 20 + 350
    assert found.data[0]["backward_bytes"] is None


def test_in_training_what_is_saved_is_no_workspace() -> None:
    found = chart(run(held(TRAINING)))
    assert parts(found) == [100, 20, 100, 150, 100]
    assert found.data[0]["total_bytes"] == 470
    # Inputs, parameters, output, what is saved, and as large as the output its gradient; then the peak.
    assert found.data[0]["backward_bytes"] == 100 + 20 + 100 + 150 + 100 + 500


@pytest.mark.parametrize(("saved", "peak"), [(300, 350), (900, 350), (0, 350), (10, 50), (0, 0)])
def test_parts_always_add_up_to_what_was_measured(saved: int, peak: int) -> None:
    """Even where the output is saved too, or what was there before is, or where a peak is below the output."""
    found = chart(run(held(replace(TRAINING, saved_bytes=saved, forward_peak_bytes=peak))))
    bytes_ = [number(found.data[0], f"{part}_bytes") for part in PARTS]
    assert min(bytes_) >= 0
    assert sum(bytes_) == found.data[0]["total_bytes"] == 120 + peak


def test_one_source_is_read_and_who_lacks_it_is_noted() -> None:
    resident = replace(FORWARD, source="high_water", forward_peak_bytes=4096)
    found = chart(run(held(resident, FORWARD), held(resident, operator="compiled")))
    assert [each["source"] for each in found.data] == ["tensor tracker", "process's high-water mark"]
    assert [each["note"] for each in found.data] == [
        "",
        "read from the process's high-water mark, so not to be compared",
    ]


def test_a_row_of_several_policies_is_there_once() -> None:
    twice = record("convolution", Measured(timings=(timing(1e-3, COLD), timing(9e-4, HOT)), memory=(FORWARD,)))
    found = chart(run(twice))
    assert len(found.data) == 1
    assert found.settings == ()


def test_forward_and_training_are_settings_and_failures_are_counted() -> None:
    found = chart(comparison())
    assert found.settings == ("forward", "training")
    assert "1 × skipped: no CUDA device" in found.finding
    assert found.finding.startswith("Forward: from 12.3 MiB (large_kernel_depthwise/native) to 46.3 MiB (involution)")


def test_without_memory_the_words_say_what_to_run() -> None:
    assert "opbench run" in chart(run(record("broken", Failed(reason="no")))).missing
    made = run(record("timed", Measured(timings=(timing(1e-3),))))
    made = replace(made, header=replace(made.header, metrics=("latency",)))
    assert "add it to the suite's metrics" in chart(made).missing


@pytest.mark.parametrize("width", [640, 320])
def test_it_has_ink(width: int) -> None:
    svg = drawn(chart(comparison()), width)
    assert svg.count('aria-roledescription="bar"') >= 9
    assert "46.3 MiB" in svg
    assert "skipped: no CUDA device" in svg
    assert "NaN" not in svg


def test_the_backwards_number_stands_beside_the_forwards() -> None:
    svg = drawn(chart(run(record(outcome=Measured(memory=made_up.memory(12, "training")), pass_="training"))))
    assert "; backward " in svg


def test_of_many_rows_forty_are_drawn() -> None:
    rows = [held(replace(FORWARD, forward_peak_bytes=350 + index), operator=f"operator_{index}") for index in range(50)]
    found = chart(run(*rows))
    assert len(found.data) == 50
    assert "Drawn are the 40 least of 50; the table has all." in found.finding
    svg = drawn(found)
    assert ">operator_39<" in svg
    assert ">operator_40<" not in svg
