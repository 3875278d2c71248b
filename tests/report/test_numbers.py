"""CSV and JSON: every number in SI units, for programs."""

import csv
import io
import json
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opbench import report
from opbench.plain import one_line
from opbench.report.tidy import COLUMNS
from opbench.results import Counted, Counts, Measured, Policy, Sampling, Skipped, Timing
from tests.report.made_up import COLD, comparison, gpu, memory, record, run, timing

VIEW = report.view([comparison()])


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_pandas_reads_the_csv_back() -> None:
    frame = pd.read_csv(io.StringIO(report.csv_text(VIEW)))
    assert tuple(frame.columns) == COLUMNS
    # Twelve records, three of them under two policies.
    assert len(frame) == 15
    ours = frame[(frame["name"] == "large_kernel_depthwise/native") & (frame["pass"] == "forward")]
    assert list(ours["cache"]) == ["cold", "hot"]
    assert list(ours["latency_seconds_median"]) == pytest.approx([8e-4, 6e-4])
    assert list(ours["ratio_to_baseline"]) == pytest.approx([0.4, 0.4])
    assert list(ours["forward_peak_bytes_tracker"]) == [6 << 20] * 2
    assert list(ours["forward_peak_bytes_high_water"]) == [(6 << 20) + 4096] * 2
    assert list(ours["flops_dense"]) == [2 * 271352832] * 2
    assert [json.loads(params) for params in ours["params"]] == [{"kernel_size": 13}] * 2
    unmeasured = frame[frame["status"] != "measured"]
    assert len(unmeasured) == 7
    assert unmeasured["latency_seconds_median"].isna().all()
    assert unmeasured["reason"].notna().all()


def test_csv_and_json_hold_the_same_rows() -> None:
    from_csv = list(csv.DictReader(io.StringIO(report.csv_text(VIEW))))
    from_json = strict(report.json_text(VIEW))["runs"][0]["rows"]
    assert len(from_csv) == len(from_json)
    for flat, row in zip(from_csv, from_json, strict=True):
        assert list(flat) == list(row) == list(COLUMNS)
        for name, value in row.items():
            if value is None:
                assert flat[name] == ""
            elif isinstance(value, int | float) and not isinstance(value, bool):
                assert float(flat[name]) == value
            elif isinstance(value, list | dict | bool):
                assert json.loads(flat[name]) == value


def test_json_tells_what_each_record_is_and_what_is_missing() -> None:
    document = strict(report.json_text(VIEW))
    (found,) = document["runs"]
    assert document["schema"] == 1
    assert found["planned"] == 13
    assert found["missing"] == ["sasa/8x64x56x56/float32/layer/training (reference)"]
    assert found["environment"]["physical_cores"] == 4
    assert found["measure"]["processes"] == 3
    wrong = next(row for row in found["rows"] if row["operator"] == "sasa")
    assert (wrong["status"], wrong["wrong_quantity"], wrong["wrong_error"]) == ("wrong", "grad_weight", 0.031)
    lower = next(row for row in found["rows"] if row["operator"] == "involution")
    assert (lower["macs_at_least"], lower["unknown_operations"]) == (True, ["aten::mystery"])


def test_an_interval_without_an_end_is_no_number() -> None:
    once = Sampling(
        seconds=(1e-3,),
        calls_per_sample=1,
        warmup_samples=0,
        first_seconds=1e-3,
        cpu_seconds=1e-3,
        wall_seconds=1e-3,
        overhead_seconds=0.0,
        stopped="max_seconds",
    )
    view = report.view([run(record(outcome=Measured(timings=(Timing(policy=COLD, processes=(once,)),))))])
    (row,) = strict(report.json_text(view))["runs"][0]["rows"]
    assert row["latency_seconds_median"] == 1e-3
    assert row["latency_seconds_high"] is None
    assert "[0, ∞] ms" in report.markdown(view)


def test_each_counter_keeps_its_own_answer() -> None:
    counts = Counts(
        macs_dense=7,
        counters=(
            Counted(source="formula", macs=7),
            Counted(source="fvcore", note="counts forwards only"),
            Counted(source="torch", macs=6),
        ),
        agreement="differ: formula 7, torch 6",
    )
    (row,) = strict(report.json_text(report.view([run(record(counts=counts))])))["runs"][0]["rows"]
    assert (row["macs_formula"], row["macs_fvcore"], row["macs_torch"]) == (7, None, 6)
    assert row["counters_agreement"] == "differ: formula 7, torch 6"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "＝", "\t=", "\r\n@"])
def test_no_cell_is_a_formula(start: str) -> None:
    evil = f"{start}HYPERLINK(1)"
    text = report.csv_text(report.view([run(record(evil, Skipped(reason=evil)))]))
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["operator"].startswith("'")
    assert row["operator"] == f"'{one_line(evil)}"
    assert row["reason"].startswith("skipped: ")


@settings(max_examples=60)
@given(st.text(max_size=30), st.text(st.characters(exclude_categories=()), max_size=30))
def test_hostile_text_is_one_inert_line_in_csv_and_exact_in_json(name: str, reason: str) -> None:
    view = report.view([run(record(name, Skipped(reason=reason), params={"x": reason}))])
    text = report.csv_text(view)
    text.encode()
    assert len(text.splitlines()) == 2
    assert text.count("\x1b") == 0
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["operator"].removeprefix("'") == one_line(name).removeprefix("'")
    assert json.loads(row["params"]) == {"x": reason}
    document = report.json_text(view)
    assert document.isascii()
    assert strict(document)["runs"][0]["rows"][0]["params"] == {"x": reason}
    assert strict(document)["runs"][0]["rows"][0]["operator"] == name


def test_a_run_without_records_still_has_its_column_names() -> None:
    view = report.view([run()])
    assert pd.read_csv(io.StringIO(report.csv_text(view))).columns[0] == "run"
    assert strict(report.json_text(view))["runs"][0]["rows"] == []


def test_times_of_all_processes_are_summed_and_their_firsts_are_not() -> None:
    policy = Policy(cache="hot", threads=2)
    view = report.view([run(record(outcome=Measured(timings=(timing(1e-3, policy),), memory=memory(1))))])
    (row,) = strict(report.json_text(view))["runs"][0]["rows"]
    assert (row["samples"], row["latency_processes"], row["threads"], row["cache"]) == (21, 3, 2, "hot")
    assert row["first_call_seconds"] == pytest.approx(2e-3)


def test_what_launching_and_waiting_take_stands_beside_a_gpu_s_latency() -> None:
    """The made-up call of 400 µs is launched in 50 µs and heard of 10 µs after; three processes dropped 256 each."""
    rows = strict(report.json_text(report.view([gpu()])))["runs"][0]["rows"]
    convolution, launched, graph, waiting, throttled, _ = rows
    assert convolution["host_seconds_median"] == 5e-5
    assert convolution["call_seconds_median"] == pytest.approx(4.6e-4)
    assert convolution["sm_clock_hz"] == 1.5e9
    assert (launched["launch"], graph["launch"]) == ("eager", "graph")
    assert graph["host_seconds_median"] is None
    assert waiting["timing_notes"] == ["not held", "not timed as a graph: it waits"]
    assert (throttled["voided_samples"], throttled["voided_causes"]) == (768, ["not held", "throttled"])


def test_a_gpu_has_no_threads_to_group_by() -> None:
    sections = report.view([gpu()], report.Options(group_by=("device", "threads"))).sections
    assert [table.title for table in sections[0].tables] == ["cuda"]
