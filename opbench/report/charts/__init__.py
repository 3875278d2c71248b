"""The charts of a run: what each shows is taken from the rows here; how it looks needs the `html` extra.

`of_run` -> `Chart`s of plain numbers -> `told` and `table` for pages, `specification` for a drawing in Vega-Lite
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from opbench.report.charts import latency
from opbench.report.charts.material import Material
from opbench.report.charts.model import Chart, Field, table, told

__all__ = ["Chart", "Field", "Material", "of_run", "specification", "table", "told"]

_KINDS: Mapping[str, ModuleType] = {module.KIND: module for module in (latency,)}
"""In the order of a page. Each module has `chart(material)` and `draw(chart)`."""


def of_run(material: Material) -> tuple[Chart, ...]:
    """All charts of a run; one whose data are missing says what to run."""
    return tuple(module.chart(material) for module in _KINDS.values())


def specification(chart: Chart) -> dict[str, Any]:
    """The Vega-Lite specification of a chart that has data, but for the data. Needs altair."""
    drawn: dict[str, Any] = _KINDS[chart.kind].draw(chart)
    return drawn
