"""CSV: one file in long form, a line for each record and policy of every run."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping

from opbench.plain import one_line
from opbench.report.model import View
from opbench.report.tidy import COLUMNS, Value, tidy

_FORMULA_STARTS = tuple("=+-@＝＋－＠")


def csv_text(view: View) -> str:
    """Write the rows of all sections below one line of names; lists and mappings as JSON."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=COLUMNS, lineterminator="\n")
    writer.writeheader()
    for section in view.sections:
        writer.writerows({name: _field(value) for name, value in row.items()} for row in tidy(section))
    return text.getvalue()


def _field(value: Value) -> str | int | float | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | Mapping):
        return json.dumps(value, allow_nan=False)
    return inert(value) if isinstance(value, str) else value


def inert(text: str) -> str:
    """One line without control characters; a quote before what a spreadsheet would compute."""
    line = one_line(text)
    return f"'{line}" if line.startswith(_FORMULA_STARTS) else line
