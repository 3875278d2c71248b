"""Parquet: the rows of the CSV, with types."""

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings

from opbench import report
from opbench.errors import OpbenchError
from opbench.plain import one_line
from opbench.report.tidy import COLUMNS, tidy
from opbench.results import Measured, Skipped
from opbench.store import Run
from tests.report.made_up import comparison, counts, gpu, machines, record, run, scan, timing
from tests.report.test_markdown import texts

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
parquet = pytest.importorskip("pyarrow.parquet")
to_parquet = pytest.importorskip("opbench.report.to_parquet")


def table_of(view: report.View) -> Any:
    # Without threads: pyarrow's pools may abort an interpreter that ends.
    return parquet.read_table(io.BytesIO(to_parquet.parquet(view)), use_threads=False, pre_buffer=False)


@pytest.mark.parametrize(
    "runs", [[comparison()], [scan()], [gpu()], machines()], ids=["all", "scan", "gpu", "machines"]
)
def test_every_row_comes_back_as_it_was(runs: list[Run]) -> None:
    view = report.view(runs)
    found = table_of(view)
    assert found.column_names == list(COLUMNS)
    expected = [row for section in view.sections for row in tidy(section)]
    for row, known in zip(found.to_pylist(), expected, strict=True):
        assert {**row, "set_params": json.loads(row["set_params"]), "params": json.loads(row["params"])} == known


def test_a_count_that_does_not_fit_is_refused_by_name() -> None:
    fits = run(record("a", Measured(), counts=counts(2**63 - 1 - 2**62)))
    assert table_of(report.view([fits])).num_rows == 1
    with pytest.raises(OpbenchError, match=r"no room for macs_dense of a/8x64x56x56/\S+; csv and json do"):
        to_parquet.parquet(report.view([run(record("a", Measured(), counts=counts(2**63)))]))


def test_types_are_those_of_the_quantities_even_where_all_is_empty() -> None:
    schema = table_of(report.view([run(record(outcome=Skipped(reason="no")))])).schema
    for name in ("batch", "macs_dense", "forward_peak_bytes_allocator", "samples", "threads"):
        assert schema.field(name).type == pa.int64()
    for name in ("latency_seconds_median", "ratio_low", "images_per_second", "sm_clock_hz", "wrong_error"):
        assert schema.field(name).type == pa.float64()
    for name in ("macs_at_least", "repeatable_tracker"):
        assert schema.field(name).type == pa.bool_()
    assert schema.field("flags").type == pa.list_(pa.string())
    assert schema.metadata[b"opbench"] == b"opbench report runs/made-up --format parquet"


def test_pandas_keeps_whole_numbers_whole_beside_empty_cells() -> None:
    frame = table_of(report.view([comparison()])).to_pandas(use_threads=False)
    assert str(frame["macs_dense"].dtype) == "Int64"
    assert frame["macs_dense"].isna().any()
    assert int(frame["macs_dense"].max()) == 3 * 924844032


@settings(max_examples=30)
@given(texts, texts)
def test_hostile_names_and_reasons_are_text_of_one_line(name: str, reason: str) -> None:
    made = run(
        record(name, Skipped(reason=reason)), record("b", Measured(timings=(timing(1e-3),)), set_params={"a": reason})
    )
    first, second = table_of(report.view([made])).to_pylist()
    assert first["operator"] == one_line(name)
    assert json.loads(second["set_params"]) == {"a": reason}
