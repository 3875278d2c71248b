"""What other tools read: pytest-benchmark, github-action-benchmark, Bencher."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_benchmark.stats import Stats

from opbench import report
from opbench.errors import OpbenchError
from opbench.plain import one_line
from opbench.report.to_bencher import bencher
from opbench.report.to_github_action import github_action_benchmark
from opbench.report.to_pytest_benchmark import pytest_benchmark, stats
from opbench.results import Measured, Skipped
from opbench.store import Run
from tests.report.made_up import COLD, HOT, comparison, counts, gpu, memory, record, run, scan, timing
from tests.report.test_markdown import texts

COLD_FORWARD = "convolution/reference/8x64x56x56/float32/layer/forward (cold cache, 1 thread, cpu, eager)"
WRITERS = [pytest_benchmark, github_action_benchmark, bencher]

BENCHER = {
    "type": "object",
    "patternProperties": {
        ".+": {
            "type": "object",
            "patternProperties": {
                ".+": {
                    "type": "object",
                    "properties": {name: {"type": "number"} for name in ("value", "lower_value", "upper_value")},
                    "required": ["value"],
                    "additionalProperties": False,
                }
            },
        }
    },
}
"""What Bencher's documentation says of its format."""


def names(view: report.View) -> list[list[str]]:
    """The names in each of the three formats."""
    of_bencher: list[tuple[str, Any]] = json.loads(bencher(view), object_pairs_hook=list)
    return [
        [each["name"] for each in json.loads(pytest_benchmark(view))["benchmarks"]],
        [each["name"] for each in json.loads(github_action_benchmark(view))],
        [name for name, _ in of_bencher],
    ]


# Names


@pytest.mark.parametrize("made", [comparison(), scan(), gpu()], ids=["comparison", "scan", "gpu"])
def test_names_are_unique_and_the_same_in_every_run(made: Run) -> None:
    first, again = names(report.view([made])), names(report.view([made], report.Options(sort_by="latency")))
    assert first == again
    for found in first:
        assert len(set(found)) == len(found)


def test_a_name_says_operator_implementation_case_and_policy() -> None:
    for found in names(report.view([comparison()])):
        assert COLD_FORWARD in found


@settings(max_examples=60)
@given(st.lists(texts, min_size=2, max_size=5, unique=True))
def test_hostile_names_are_one_short_line_and_stay_apart(operators: list[str]) -> None:
    made = run(*(record(each, Measured(timings=(timing(1e-3),), memory=memory(3))) for each in operators))
    for found in names(report.view([made])):
        assert len(set(found)) == len(found)
        assert all(name == one_line(name) and len(name) <= 1024 for name in found)


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_holds_one_run_that_was_timed(write: Any) -> None:
    with pytest.raises(OpbenchError, match="holds one run; write a file for each DIR"):
        write(report.view([comparison(), scan()]))
    with pytest.raises(OpbenchError, match="nothing was timed in runs/made-up"):
        write(report.view([run(record(outcome=Skipped(reason="no")), record("b", counts=counts(3)))]))


# pytest-benchmark


def stats_of_pytest_benchmark(samples: list[float]) -> Any:
    made: Any = Stats
    theirs = made()
    for sample in samples:
        theirs.update(sample)
    return theirs


@given(st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=40))
def test_the_statistics_are_those_of_pytest_benchmark(samples: list[float]) -> None:
    theirs = stats_of_pytest_benchmark(samples)
    ours = stats(samples)
    assert set(ours) == set(Stats.fields)
    for field in Stats.fields:
        if field not in ("outliers", "stddev_outliers", "iqr_outliers", "ld15iqr", "hd15iqr"):
            assert ours[field] == pytest.approx(getattr(theirs, field), rel=1e-9, abs=1e-15)


def test_outliers_are_counted_as_pytest_benchmark_counts_them() -> None:
    samples = [1.0, 1.1, 1.2, 1.05, 9.0, 1.15, 0.95, 1.25]
    theirs = stats_of_pytest_benchmark(samples)
    ours = stats(samples)
    assert ours["outliers"] == theirs.outliers == "1;1"
    assert (ours["ld15iqr"], ours["hd15iqr"]) == (theirs.ld15iqr, 1.25)


def test_pytest_benchmark_compares_two_runs(tmp_path: Path) -> None:
    slower = run(record(outcome=Measured(timings=(timing(4e-3, COLD), timing(3e-3, HOT)))))
    (tmp_path / "before.json").write_text(pytest_benchmark(report.view([comparison()])))
    (tmp_path / "after.json").write_text(pytest_benchmark(report.view([slower])))
    command = Path(sys.executable).with_name("pytest-benchmark")
    if not command.exists():
        pytest.skip("the command pytest-benchmark is not beside this Python")
    compare = [
        str(command),
        "compare",
        "before.json",
        "after.json",
        "--columns=median,rounds,iterations",
        "--csv=both.csv",
    ]
    done = subprocess.run(compare, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith(f"{COLD_FORWARD} (")]
    assert len(lines) == 2
    assert (
        "benchmark 'layer, forward, 8x64x56x56, float32, contiguous, cold cache, 1 thread, cpu, eager'" in done.stdout
    )
    assert (tmp_path / "both.csv").read_text().count(COLD_FORWARD) == 2


def test_pytest_benchmark_takes_it_as_what_a_test_is_compared_with(tmp_path: Path) -> None:
    (tmp_path / "before.json").write_text(pytest_benchmark(report.view([comparison()])))
    (tmp_path / "test_it.py").write_text("def test_it(benchmark): benchmark(lambda: None)\n")
    options = ["-p", "no:cacheprovider", "--benchmark-compare=before.json", "--benchmark-max-time=0.001"]
    command = [sys.executable, "-m", "pytest", "-q", *options, "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Comparing against benchmarks from: before.json" in done.stdout + done.stderr


def test_own_median_and_interval_stand_beside() -> None:
    found = json.loads(pytest_benchmark(report.view([comparison()])))
    (benchmark,) = [each for each in found["benchmarks"] if each["name"] == COLD_FORWARD]
    assert benchmark["extra_info"]["latency_seconds_median"] == pytest.approx(2e-3)
    assert benchmark["stats"]["rounds"] == len(benchmark["stats"]["data"]) == 21
    assert benchmark["stats"]["iterations"] == 10
    assert found["commit_info"] == {**found["commit_info"], "id": "0123456789ab", "dirty": False}


# github-action-benchmark


def test_the_action_gets_names_numbers_and_units_that_never_change() -> None:
    entries = json.loads(github_action_benchmark(report.view([comparison()])))
    assert {entry["unit"] for entry in entries} == {"ns", "B"}
    for entry in entries:
        assert set(entry) <= {"name", "unit", "value", "range", "extra"}
        assert isinstance(entry["value"], int | float)
        assert all(isinstance(entry[key], str) for key in entry.keys() - {"value"})
    (latency,) = [entry for entry in entries if entry["name"] == COLD_FORWARD]
    assert latency["value"] == pytest.approx(2e6)
    assert latency["range"].startswith("95 % interval 1990")
    peaks = {entry["name"]: entry["value"] for entry in entries if entry["unit"] == "B"}
    assert peaks["convolution/reference/8x64x56x56/float32/layer/forward forward peak"] == 12 << 20


# Bencher


def test_bencher_gets_its_own_format() -> None:
    document = json.loads(bencher(report.view([comparison()])))
    jsonschema.validate(document, BENCHER)
    latency = document[COLD_FORWARD]["latency"]
    assert latency["value"] == pytest.approx(2e6)
    assert latency["lower_value"] < latency["value"] < latency["upper_value"]
    assert document[COLD_FORWARD.split(" (")[0]] == {"forward-peak": {"value": 12 << 20}}


def test_an_end_that_is_not_known_is_left_out() -> None:
    usual = timing(1e-3, processes=1)
    once = replace(usual, processes=tuple(replace(process, seconds=(1e-3,)) for process in usual.processes))
    view = report.view([run(record(outcome=Measured(timings=(once,))))])
    (metrics,) = json.loads(bencher(view)).values()
    assert "upper_value" not in metrics["latency"]
    (benchmark,) = json.loads(pytest_benchmark(view))["benchmarks"]
    assert benchmark["extra_info"]["latency_seconds_high"] is None
    assert benchmark["stats"]["stddev"] == 0
