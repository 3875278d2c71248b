"""CSV with the columns of timm's benchmark results, to be joined with those by `model`.

A line for each network or operator, its forward and its training pass joined where both were measured in the same
setting:

- `model`: 'resnet-50:involution', 'involution/cuda'; in brackets what tells it from other lines of the same name;
- `infer_samples_per_sec`: images per second at the median latency of the forward; `infer_step_time`: that latency in
  milliseconds; `infer_batch_size`; `infer_img_size`: the width of the input;
- `infer_gmacs`: dense multiply-accumulates of the forward for one image, in units of 10⁹; empty for a lower bound;
- `infer_macts`: activations, which opbench does not count: always empty;
- `train_…`: the same of a training pass, which is forward and backward; timm's has the loss and the optimiser's step
  besides, so that the two are not to be compared;
- `param_count`: learnable scalars, in millions; a core has none.

timm rounds to two or three decimals; here are six significant digits, for an operator is smaller than a network.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Hashable, Sequence

from opbench.plain import plain
from opbench.report import keys
from opbench.report.columns import differing_params
from opbench.report.model import View
from opbench.report.rows import Row
from opbench.report.to_csv import inert

_PASSES = {"forward": "infer", "training": "train"}
COLUMNS = (
    "model",
    *(f"infer_{name}" for name in ("samples_per_sec", "step_time", "batch_size", "img_size", "gmacs", "macts")),
    *(f"train_{name}" for name in ("samples_per_sec", "step_time", "batch_size", "img_size")),
    "param_count",
)
_SETTING = ("scope", "shape", "dtype", "memory_format", "policy")


def timm_csv(view: View) -> str:
    """Write a line for each setting of what was measured; what is not known is left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=COLUMNS, lineterminator="\n")
    writer.writeheader()
    labels = view.comparison.labels if view.comparison else [""]
    for label, section in zip(labels, view.sections, strict=True):
        lines = _lines([row for row in section.rows if row.measured])
        for name, line in zip(_names([line[0] for line in lines], label), lines, strict=True):
            writer.writerow({"model": inert(name), **_joined(line)})
    return text.getvalue()


def _lines(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each line: the passes of one thing in one setting."""
    lines: dict[Hashable, list[Row]] = {}
    for row in rows:
        lines.setdefault((row.record.name, row.record.case.params_text, *keys.values(row, _SETTING)), []).append(row)
    return list(lines.values())


def _names(rows: Sequence[Row], label: str) -> list[str]:
    """The name of each line, given by its first row, and in brackets whatever differs among the lines."""
    varying = [key for key in _SETTING if len(keys.distinct(rows, key)) > 1]
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row.record.name, []).append(row)
    params: dict[int, str] = {}
    for namesakes in by_name.values():
        params |= zip(map(id, namesakes), differing_params(namesakes), strict=True)
    names = []
    for row in rows:
        setting = keys.title(varying, keys.values(row, varying)) if varying else ""
        told = "; ".join(filter(None, [params[id(row)], setting, label]))
        names.append(f"{plain(row.record.name)} ({told})" if told else plain(row.record.name))
    return names


def _joined(rows: Sequence[Row]) -> dict[str, str | int]:
    cells: dict[str, str | int] = {}
    for row in rows:
        prefix, shape = _PASSES[row.record.case.pass_], row.record.case.shape
        if row.latency is not None and row.throughput is not None:
            cells[f"{prefix}_samples_per_sec"] = _number(row.throughput)
            cells[f"{prefix}_step_time"] = _number(1e3 * row.latency.median)
        cells |= {f"{prefix}_batch_size": shape.batch, f"{prefix}_img_size": shape.width}
        counts = row.record.counts
        if counts is None:
            continue
        if prefix == "infer" and counts.macs_dense is not None and not counts.at_least and shape.batch:
            cells["infer_gmacs"] = _number(counts.macs_dense / shape.batch / 1e9)
        if counts.parameters is not None and row.record.case.scope != "core":
            cells["param_count"] = _number(counts.parameters / 1e6)
    return cells


def _number(value: float) -> str:
    return f"{value:.6g}"
