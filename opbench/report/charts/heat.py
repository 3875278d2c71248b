"""Heat map: how each compares with the baseline, in all settings at once."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from opbench import units
from opbench.plain import plain
from opbench.report import keys
from opbench.report.cells import Draft, winner
from opbench.report.charts import style
from opbench.report.charts.material import Material, ends, is_doubtful
from opbench.report.charts.model import Chart, Field, Value, own
from opbench.report.columns import latency_draft, ratio_text
from opbench.report.rows import Row
from opbench.report.words import outcome_in_words
from opbench.results import Failed, Skipped, Wrong

KIND = "heat"
TITLE = "Ratios to the baseline"
READING = (
    "A cell is a time divided by the baseline's in the same setting: 0.5× takes half as long and is blue, 2× takes "
    "twice as long and is orange. Framed and bold is the fastest of a setting, where the intervals are certain about "
    "it. Cells without a ratio: – skipped, ✗ wrong, ! failed, ? not to be compared; the table says why."
)
FASTER, SAME, SLOWER, TEXT = "#5AA9E0", "#F2F2F2", "#F08A3C", "#111111"
"""Light enough for dark figures, in a light page as in a dark one."""
MOST_ACROSS = 8
"""Columns whose figures can be read on a page; more are shown one part of their setting at a time."""
MOST_DOWN = 60
"""Lines of cells that are drawn of a setting."""
MOST_DOUBLINGS = 4
"""Ratios beyond 16× and 0.0625× all have the colour of these."""
STEP = 24
LETTERS_ACROSS, LETTERS_ACROSS_NARROW = 55, 20
_MARKS = {Skipped: "–", Wrong: "✗", Failed: "!"}
_NO_RATIO = "?"
_FIELDS = (
    Field(key="setting", title="setting"),
    Field(key="column", title="in"),
    Field(key="label", title="operator"),
    Field(key="operator", title="operator", shown=False),
    Field(key="ratio_to_baseline", title="ratio", unit="ratio"),
    Field(key="ratio_low", title="95 % from", unit="ratio"),
    Field(key="ratio_high", title="to", unit="ratio"),
    Field(key="latency_seconds", title="latency", unit="seconds"),
    Field(key="cell", title="cell", shown=False),
    Field(key="best", title="fastest"),
    Field(key="note", title="note"),
)


def chart(material: Material) -> Chart:
    """Make the chart of a run's ratios."""
    material = material.spread
    if missing := _missing(material):
        return Chart(kind=KIND, title=TITLE, reading=READING, missing=missing)
    across = _across(material)
    settings = material.settings(material.rows, without=across)
    best = _best(material.rows)
    data = [_datum(material, row, across, id(row) in best) for row in material.rows]
    data.sort(key=lambda datum: settings.index(str(datum["setting"])) if settings else 0)
    labels, columns = _distinct(data, "label"), _distinct(data, "column")
    # A page is as long as need be, and no wider than it is.
    down = "column" if len(columns) > max(MOST_ACROSS, len(labels)) else "label"
    return Chart(
        kind=KIND,
        title=TITLE,
        reading=READING,
        finding=_finding(material) + _remark(data, down),
        fields=_FIELDS,
        data=tuple(data),
        settings=settings,
        facts={"baseline": plain(str(material.baseline), 60), "down": down},
    )


def draw(chart: Chart) -> dict[str, Any]:
    """Draw a cell for each row of a setting, the ratio printed in it."""
    import altair as alt

    down, across = ("column", "label") if chart.facts["down"] == "column" else ("label", "column")
    farthest = _farthest(chart.data)
    most = min(farthest, MOST_DOUBLINGS)
    # As far as the colours go, and farther.
    beyond = f"(datum.value >= {most} ? '≥ ' : datum.value <= -{most} ? '≤ ' : '')" if farthest > most else "''"
    base = (
        alt.Chart(style.data())
        .transform_filter(alt.FieldOneOfPredicate(field=down, oneOf=_drawn(chart.data, down)))
        .encode(
            x=alt.X(
                f"{across}:N",
                sort=None,
                title=None,
                scale=alt.Scale(paddingInner=0.02),
                axis=_heading(_distinct(chart.data, across)),
            ),
            y=alt.Y(
                f"{down}:N",
                sort=None,
                title=None,
                scale=alt.Scale(paddingInner=0.06),
                axis=style.names(ticks=False, domain=False),
            ),
            tooltip=[
                alt.Tooltip("label:N", title="operator"),
                alt.Tooltip("column:N", title="in"),
                alt.Tooltip("ratio_to_baseline_text:N", title="ratio"),
                alt.Tooltip("ratio_low_text:N", title="95 % from"),
                alt.Tooltip("ratio_high_text:N", title="to"),
                alt.Tooltip("latency_seconds_text:N", title="median"),
                alt.Tooltip("note:N"),
            ],
        )
    )
    colour = alt.Color(
        "doublings:Q",
        scale=alt.Scale(domain=[-most, 0, most], range=[FASTER, SAME, SLOWER], clamp=True, interpolate="rgb"),
        legend=alt.Legend(
            title=f"time ÷ {chart.facts['baseline']}",
            labelExpr=f"{beyond} + format(pow(2, datum.value), '~r') + '×'",
            values=[-most, 0, most],
            gradientLength=style.on_narrow_pages(110, 200),
            titleLimit=style.on_narrow_pages(150, 300),
        ),
    )
    compared = base.transform_filter("isValid(datum.ratio_to_baseline)")
    cells = (
        compared.transform_calculate(doublings="log(datum.ratio_to_baseline) / LN2").mark_rect().encode(color=colour)
    )
    frames = base.transform_filter("datum.best !== ''").mark_rect(fill=None, stroke="currentColor", strokeWidth=2.5)
    size = alt.expr("bandwidth('x') < 28 ? 0 : min(12, bandwidth('x') / 3.7)")
    weight = alt.expr("datum.best !== '' ? 'bold' : 'normal'")
    figures = compared.mark_text(fill=TEXT, fontSize=size, fontWeight=weight).encode(text="cell:N")
    marks = base.transform_filter("!isValid(datum.ratio_to_baseline)").mark_text(fontSize=13).encode(text="cell:N")
    drawing = style.one_setting(alt.layer(cells, frames, figures, marks), chart.settings)
    return style.finished(drawing, chart.reading, height=STEP * _height(chart.data, down))


def _across(material: Material) -> tuple[str, ...]:
    """The keys that tell columns apart: all that vary, if few enough, else the one that varies most."""
    settings = {keys.values(row, material.varying) for row in material.rows}
    if len(settings) <= MOST_ACROSS:
        return material.varying
    return (max(material.varying, key=lambda key: len(keys.distinct(material.rows, key))),)


def _datum(material: Material, row: Row, across: Sequence[str], best: bool) -> dict[str, Value]:
    latency, ratio = row.latency, row.ratio
    low, high = ends(ratio.low, ratio.high) if ratio else (None, None)
    is_one = row.is_baseline and latency is not None
    return {
        "setting": material.setting(row, without=across),
        "column": material.told_by(row, across) or keys.text("pass", row.record.case.pass_),
        "label": material.label(row),
        "operator": row.record.case.name,
        "ratio_to_baseline": 1.0 if is_one else ratio.value if ratio else None,
        "ratio_low": low,
        "ratio_high": high,
        "latency_seconds": latency.median if latency else None,
        "cell": "1×" if is_one else ratio_text(ratio) if ratio else _MARKS.get(type(row.record.outcome), _NO_RATIO),
        "best": "fastest" if best else "",
        "note": "; ".join(filter(None, [_role(row), outcome_in_words(row.record.outcome)])),
    }


def _role(row: Row) -> str:
    if row.is_baseline:
        return "the baseline"
    if row.measured and row.latency is None:
        return "no time"
    return plain(row.no_ratio)


def _best(rows: Sequence[Row]) -> set[int]:
    """Identities of the rows that certainly took least time in their setting."""
    found = set()
    for group in keys.grouped(rows, keys.COMPARABLE).values():
        contestants = [row for row in group if row.measured]
        index = winner([latency_draft(row, "") if row.latency else Draft.unknown() for row in contestants])
        if index is not None:
            found.add(id(contestants[index]))
    return found


def _finding(material: Material) -> str:
    """'Ratios to convolution: 12, of which 5 certainly below 1 (faster) and …; from 0.13× (…) to 22.1× (…).'."""
    ratios = [(row.ratio, row) for row in material.rows if row.ratio]
    doubted = {keys.values(row, keys.COMPARABLE) for row in material.rows if row.is_baseline and is_doubtful(row)}
    sure = [ratio for ratio, row in ratios if not is_doubtful(row) and keys.values(row, keys.COMPARABLE) not in doubted]
    shorter, longer = sum(ratio.high < 1 for ratio in sure), sum(ratio.low > 1 for ratio in sure)
    least, most = min(ratios, key=lambda each: each[0].value), max(ratios, key=lambda each: each[0].value)
    extremes = " to ".join(
        dict.fromkeys(f"{units.ratio(ratio.value)} ({_named(material, row)})" for ratio, row in (least, most))
    )
    undecided = len(ratios) - shorter - longer
    text = (
        f"Ratios to {plain(str(material.baseline), 60)}: {len(ratios)}, of which {shorter} certainly below 1 (faster) "
        f"and {longer} above (slower){f', {undecided} not told apart' if undecided else ''}; from {extremes}."
    )
    without = sum(row.ratio is None and not row.is_baseline for row in material.rows)
    return f"{text} Without a ratio: {without}." if without else text


def _named(material: Material, row: Row) -> str:
    return ", ".join(filter(None, [material.label(row), material.setting(row)]))


def _missing(material: Material) -> str:
    """Why there is no ratio, and what to do about it; '' where there is one."""
    timed = [row for row in material.rows if row.latency]
    if not timed:
        return material.to_measure("latency")
    directory = str(material.run.directory)
    if material.baseline is None:
        command = plain(shlex.join(["opbench", "report", directory, "--baseline", timed[0].record.name]))
        return f"A ratio needs a baseline: --baseline NAME says which, as in {command}."
    if any(row.ratio for row in timed):
        return ""
    reason = next((plain(row.no_ratio) for row in timed if row.no_ratio), "nothing else was timed")
    command = plain(shlex.join(["opbench", "report", directory, "--baseline"]))
    return f"No time can be divided by that of {plain(material.baseline, 60)}: {reason}; {command} NAME takes another."


def _heading(texts: Sequence[str]) -> Any:
    """The axis above the cells, with its texts slanted where they would not stand side by side."""
    import altair as alt

    letters = max(map(len, texts), default=0) * len(texts)
    slanted = f"{letters} > ({style.NARROW} ? {LETTERS_ACROSS_NARROW} : {LETTERS_ACROSS})"
    return alt.Axis(
        orient="top",
        labelAngle=alt.expr(f"{slanted} ? 35 : 0"),
        labelAlign=alt.expr(f"{slanted} ? 'right' : 'center'"),
        labelLimit=170,
        ticks=False,
        domain=False,
    )


def _farthest(data: Iterable[Mapping[str, Value]]) -> int:
    """Doublings, or halvings, of the farthest ratio, rounded up."""
    ratios = (datum["ratio_to_baseline"] for datum in data)
    return max([1, *(math.ceil(abs(math.log2(ratio))) for ratio in ratios if isinstance(ratio, int | float))])


def _lines(data: Sequence[Mapping[str, Value]], down: str) -> list[list[str]]:
    """The first lines of cells of each setting, as many as one has patience for."""
    return [
        _distinct((datum for datum in data if datum["setting"] == setting), down)[:MOST_DOWN]
        for setting in dict.fromkeys(datum["setting"] for datum in data)
    ]


def _drawn(data: Sequence[Mapping[str, Value]], down: str) -> list[str]:
    return list(dict.fromkeys(own(line) for lines in _lines(data, down) for line in lines))


def _height(data: Sequence[Mapping[str, Value]], down: str) -> int:
    return max(map(len, _lines(data, down)))


def _remark(data: Sequence[Mapping[str, Value]], down: str) -> str:
    drawn, number = len(_drawn(data, down)), len(_distinct(data, down))
    return f" Drawn are {drawn} lines of {number}; the table has all." if drawn < number else ""


def _distinct(data: Iterable[Mapping[str, Value]], key: str) -> list[str]:
    return list(dict.fromkeys(str(datum[key]) for datum in data))
