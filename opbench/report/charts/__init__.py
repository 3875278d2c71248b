"""The charts of a run: what each shows is taken from the rows here; how it looks needs the `html` extra.

`of_run` -> `Chart`s of plain numbers -> `told` and `table` for pages, `specification` for a drawing in Vega-Lite
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

from opbench.report.charts import gap, heat, latency, memory, pareto, roofline, samples, scaling, waterline
from opbench.report.charts.material import Material
from opbench.report.charts.model import Chart, Field, table, told

__all__ = ["Chart", "Field", "Material", "of_run", "specification", "table", "told"]

_KINDS: Mapping[str, ModuleType] = {
    module.KIND: module for module in (latency, heat, pareto, memory, scaling, roofline, gap, waterline, samples)
}
"""In the order of a page. Each module has `draw(chart)`, and `chart(material)` or, for several, `charts(material)`."""


def of_run(material: Material) -> tuple[Chart, ...]:
    """All charts of a run; one whose data are missing says what to run."""
    operators = tuple(dict.fromkeys(row.record.case.name for row in material.rows))
    charts = (chart for module in _KINDS.values() for chart in _of_kind(module, material))
    return tuple(replace(chart, operators=operators) for chart in charts)


def specification(chart: Chart) -> dict[str, Any]:
    """The Vega-Lite specification of a chart that has data, but for the data. Needs altair."""
    drawn: dict[str, Any] = _KINDS[chart.kind].draw(chart)
    return drawn


def _of_kind(module: ModuleType, material: Material) -> tuple[Chart, ...]:
    several: tuple[Chart, ...] = module.charts(material) if hasattr(module, "charts") else (module.chart(material),)
    return several
