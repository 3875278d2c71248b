"""Charts as SVG files, for pages that cannot draw: a Markdown report with its pictures beside it."""

from __future__ import annotations

import vl_convert

from opbench.report import charts
from opbench.report.charts import style
from opbench.report.model import Section, View
from opbench.report.to_markdown import Illustration, markdown

KINDS = ("latency", "heat", "pareto", "memory", "scaling", "roofline", "gap")
"""What a still picture shows well, in the order of a page."""
WIDTH_PIXELS = 760
FONT = "Arial, Liberation Sans, Helvetica, sans-serif"
"""Of one width wherever it is found: a picture is laid out here, and what a reader's system takes must fit in it."""

_THEME = (
    "<style>svg{color:#1c2024;background:#fff}"
    "@media(prefers-color-scheme:dark){svg{color:#e8eaed;background:#14171a}}</style>"
)
"""A picture in a page cannot take the page's colours; it asks the reader's system for the theme."""


def illustrated(view: View, folder: str) -> tuple[str, dict[str, str]]:
    """Write a Markdown report with charts, each in its first setting.

    Args:
        view: the report.
        folder: where the pictures will lie, relative to the report.

    Returns:
        The report, and the text of every picture by the name of its file in the folder.
    """
    files: dict[str, str] = {}
    illustrations = []
    for number, section in enumerate(view.sections, start=1):
        prefix = f"{number}-" if len(view.sections) > 1 else ""
        drawn = {f"{prefix}{chart.name}.svg": chart for chart in _charts(section)}
        files |= {name: _svg(chart) for name, chart in drawn.items()}
        illustrations.append([_illustration(f"{folder}/{name}", chart) for name, chart in drawn.items()])
    return markdown(view, illustrations), files


def _charts(section: Section) -> list[charts.Chart]:
    if section.run.header.report.published or not section.rows:
        return []
    material = charts.Material(section.run, section.rows, section.baseline)
    return [chart for chart in charts.of_run(material) if chart.kind in KINDS and not chart.missing]


def _svg(chart: charts.Chart) -> str:
    drawing = style.embedded(charts.specification(chart), charts.told(chart), WIDTH_PIXELS)
    drawing["config"] = {**drawing["config"], "font": FONT}
    return vl_convert.vegalite_to_svg(drawing).replace(">", f">{_THEME}", 1)


def of_ours(svg: str) -> bool:
    """Whether a picture was drawn here, so that a later report may take its place."""
    return _THEME in svg


def _illustration(path: str, chart: charts.Chart) -> Illustration:
    shown = f"Shown: {chart.settings[0]}; the HTML report has all settings." if chart.settings else ""
    caption = " ".join(filter(None, [chart.finding, shown, chart.reading]))
    return Illustration(path=path, title=chart.title, caption=caption)
