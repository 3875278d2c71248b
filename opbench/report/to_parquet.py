"""Parquet: the rows of the CSV with a type for each column, so that nothing has to be guessed when it is read.

Counts and bytes are whole numbers, times and ratios floating-point ones, flags lists of text; what a suite set and all
parameters are JSON, since their values have various types. None stays empty, also in columns of whole numbers. The
keys are told in `opbench.report.tidy`; the file's metadata has the command under `opbench`.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from opbench.errors import OpbenchError
from opbench.plain import one_line
from opbench.report.model import View
from opbench.report.tidy import COLUMNS, Value, tidy

_LISTS = re.compile(r"flags|unknown_operations|voided_causes|timing_notes")
_BOOLEANS = re.compile(r"macs_at_least|repeatable_\w+")
_FLOATS = re.compile(
    r"\w*seconds(_median|_low|_high)?|ratio_(to_baseline|low|high)|images_per_second|intensity_\w+|sm_clock_hz"
    r"|wrong_(error|budget)|worst_error_of_budget"
)
_LARGEST = 2**63 - 1
_WHOLE = re.compile(
    r"batch|channels|height|width|parameters|threads|samples|voided_samples|latency_processes|compulsory_bytes"
    r"|flops_dense|macs_(dense|in_bounds|formula|fvcore|torch)|\w+_bytes_\w+"
)


def parquet(view: View) -> bytes:
    """Write the rows of all runs as one table.

    Raises:
        OpbenchError: a count is larger than Parquet's whole numbers.
    """
    rows = [{name: _value(value) for name, value in row.items()} for section in view.sections for row in tidy(section)]
    for row in rows:
        _check_whole_numbers(row)
    # As objects first: whole numbers beside an empty cell would else become floating-point ones.
    frame = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object).astype({name: _in_pandas(name) for name in COLUMNS})
    schema = pa.schema([pa.field(name, _type(name)) for name in COLUMNS])
    # A single thread: a pool is slow to start and may abort an interpreter that ends at once.
    table = pa.Table.from_pandas(frame, schema, preserve_index=False, nthreads=1)
    command = f"{view.command} --format parquet".encode()
    content = io.BytesIO()
    pyarrow.parquet.write_table(
        table.replace_schema_metadata({**table.schema.metadata, b"opbench": command}), content, compression="zstd"
    )
    return content.getvalue()


def _check_whole_numbers(row: Mapping[str, object]) -> None:
    for name, value in row.items():
        if isinstance(value, int) and value > _LARGEST:
            raise OpbenchError(f"--format parquet has no room for {name} of {row['case']}; csv and json do")


def _type(name: str) -> pa.DataType:
    kinds = ((_LISTS, pa.list_(pa.string())), (_BOOLEANS, pa.bool_()), (_FLOATS, pa.float64()), (_WHOLE, pa.int64()))
    return next((kind for pattern, kind in kinds if pattern.fullmatch(name)), pa.string())


def _in_pandas(name: str) -> str:
    """The type that pandas is told to give a column when it reads the file: one that knows empty cells."""
    kinds = {"bool": "boolean", "double": "Float64", "int64": "Int64", "string": "string"}
    return kinds.get(str(_type(name)), "object")


def _value(value: Value) -> object:
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, Mapping):
        return json.dumps(value, allow_nan=False)
    return list(map(one_line, value)) if isinstance(value, list) else value
