"""HTML: one page that holds all it needs, opens from disk, asks nothing of a network, and sorts, filters and draws.

The page may run the scripts that are in it, known by their hashes, and load nothing: a name that holds markup is text.
"""

from __future__ import annotations

import dataclasses
import functools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import altair
import vl_convert

from opbench.plain import plain
from opbench.report import charts
from opbench.report.grid import Grid, grid
from opbench.report.model import Block, Cell, Comparison, Section, Table, View
from opbench.report.pages import json_in_page, policy, style, template, text
from opbench.report.tidy import of_row

_COMMAND_LIMIT = 2000


def html(view: View) -> str:
    """Write the page of a report, its charts included."""
    sources: dict[str, str] = {}
    entries = [_compared(view.comparison)] if view.comparison else []
    entries += [_run(section, f"run-{index}", sources) for index, section in enumerate(view.sections, start=1)]
    scripts = (*((_drawing_library(),) if any(entry.figures for entry in entries) else ()), text("page.js"))
    look = style()
    page = _Page(
        title=" · ".join(dict.fromkeys(section.title for section in view.sections)),
        policy=policy(look, scripts),
        style=look,
        scripts=scripts,
        remarks=view.remarks,
        entries=tuple(entries),
        sources=sources,
        command=f"{view.command} --format html",
    )
    return template("page.html").render(page=page)


@dataclass(frozen=True, kw_only=True)
class _Figure:
    """A chart with its place on the page."""

    anchor: str
    chart: charts.Chart


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One run, or several side by side, as the template tells it."""

    anchor: str
    title: str
    question: str
    answer: str
    alerts: Sequence[str]
    before: Sequence[Block] = ()
    grid: Grid | None = None
    groups: Sequence[tuple[str, Sequence[Sequence[Cell]]]] = ()
    """The grid's rows below the headings of its first grouping."""
    tables: Sequence[Table] = ()
    scans: Sequence[Table] = ()
    figures: Sequence[_Figure] = ()
    undrawn: Sequence[tuple[str, str]] = ()
    """Titles of charts without data, and why they have none."""
    blocks: Sequence[Block] = ()
    suite: str = ""
    suite_path: str = ""
    measured_by: str = ""


@dataclass(frozen=True, kw_only=True)
class _Page:
    """All that the template prints."""

    title: str
    policy: str
    style: str
    scripts: Sequence[str]
    remarks: Sequence[str]
    entries: Sequence[_Entry]
    command: str
    sources: Mapping[str, str] = field(default_factory=dict)
    """What the page's script reads, as JSON by id."""


def _compared(comparison: Comparison) -> _Entry:
    return _Entry(
        anchor="side-by-side",
        title=comparison.title,
        question=comparison.question,
        answer=comparison.answer,
        alerts=comparison.alerts,
        before=(comparison.runs,),
        tables=comparison.tables,
        blocks=comparison.blocks,
    )


def _run(section: Section, anchor: str, sources: dict[str, str]) -> _Entry:
    header = section.run.header
    entry = _Entry(
        anchor=anchor,
        title=section.title,
        question=section.question,
        answer=section.answer,
        alerts=section.alerts,
        tables=section.tables,
        blocks=section.blocks,
        suite=header.suite_text,
        suite_path=plain(header.suite_path),
        measured_by=plain(shlex.join(header.environment.command), _COMMAND_LIMIT),
    )
    if header.report.published or not section.rows:
        return entry
    made = grid(section.rows, section.baseline, section.group_by, section.sort_by)
    sources[f"{anchor}-grid"] = json_in_page(_grid_source(made, section))
    found = charts.of_run(charts.Material(section.run, section.rows, section.baseline))
    figures = [_Figure(anchor=f"{anchor}-{chart.name}", chart=chart) for chart in found if not chart.missing]
    sources |= {f"{figure.anchor}-data": json_in_page(_chart_source(figure.chart)) for figure in figures}
    return dataclasses.replace(
        entry,
        grid=made,
        groups=tuple(_grouped(made)),
        tables=(),
        scans=tuple(table for table in section.tables if table.columns[0].key == "head"),
        figures=figures,
        undrawn=_undrawn(found),
    )


def _undrawn(found: Sequence[charts.Chart]) -> list[tuple[str, str]]:
    """Each reason once."""
    titles: dict[str, list[str]] = {}
    for chart in found:
        if chart.missing:
            titles.setdefault(chart.missing, []).append(chart.title)
    return [(", ".join(of_reason), reason) for reason, of_reason in titles.items()]


def _grouped(made: Grid) -> Iterator[tuple[str, list[Sequence[Cell]]]]:
    """Its rows come in the order of its first grouping."""
    groups: dict[str, list[Sequence[Cell]]] = {}
    for heading, cells in zip(made.groupings[0].headings, made.table.rows, strict=True):
        groups.setdefault(heading, []).append(cells)
    yield from groups.items()


def _grid_source(made: Grid, section: Section) -> dict[str, object]:
    """What the script needs to group the rows otherwise, divide by another baseline, and give them as CSV."""
    tidy = [of_row(row, str(section.run.directory), section.baseline) for row in made.rows]
    columns = {name: [row[name] for row in tidy] for name in tidy[0]}
    return {
        "in_settings": made.in_settings,
        "groupings": [_interned(grouping.headings) for grouping in made.groupings],
        "baseline": made.baseline,
        "baselines": made.baselines,
        "columns": [_packed(name, values) for name, values in columns.items() if any(_says(each) for each in values)],
    }


def _says(value: object) -> bool:
    return value is not None and value != [] and value != {}


def _chart_source(chart: charts.Chart) -> dict[str, object]:
    """What the script needs to draw a chart, and to give its data as CSV and as a plain table."""
    drawn = charts.told(chart)
    fields = {each.key for each in chart.fields}
    values = {
        name: [_short(datum.get(name)) for datum in drawn]
        for name in dict.fromkeys(name for each in drawn for name in each)
    }
    table = charts.table(chart)
    return {
        # Compiled here: a fault in it is found before anybody opens the page.
        "specification": vl_convert.vegalite_to_vega(charts.specification(chart)),
        "length": len(drawn),
        "columns": [
            {**_packed(name, column), **({} if name in fields else {"text": True})} for name, column in values.items()
        ],
        "table": [
            {
                "title": column.title,
                "numeric": column.numeric,
                **_cells(column.key, [row[index].text for row in table.rows], values),
            }
            for index, column in enumerate(table.columns)
        ],
    }


def _cells(key: str, texts: Sequence[str], values: Mapping[str, Sequence[object]]) -> dict[str, object]:
    """The texts of a table's column, or where the drawing has them too, the name they have there."""
    known = next((name for name in (f"{key}_text", key) if values.get(name) == texts), None)
    return _packed(key, texts) if known is None else {"as": known}


def _packed(name: str, values: Sequence[object]) -> dict[str, object]:
    """A column; a value that all rows share is written once, and so are texts if each stands in two rows or more."""
    first = values[0] if values else None
    if all(value == first and type(value) is type(first) for value in values):
        return {"name": name, "all": first}
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) == len(values) and 2 * len(set(texts)) <= len(texts):
        interned = _interned(texts)
        return {"name": name, "of": interned["texts"], "each": interned["rows"]}
    return {"name": name, "each": list(values)}


def _short(value: object) -> object:
    """A number to seven digits, which is more than any measurement has."""
    return float(f"{value:.7g}") if isinstance(value, float) else value


def _interned(texts: Sequence[str]) -> dict[str, object]:
    """Each text once, and for each row which one it is."""
    places: dict[str, int] = {}
    rows = [places.setdefault(text, len(places)) for text in texts]
    return {"texts": list(places), "rows": rows}


@functools.cache
def _drawing_library() -> str:
    """Vega and vega-embed, with all they need, as one script that a page can hold."""
    version = altair.SCHEMA_VERSION.lstrip("v").rsplit(".", 1)[0]
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
    # Its top-level names are its own: in a module they would be, but a module cannot come before the page's script.
    return "{" + bundle.replace("</script", "<\\/script") + "}"
