"""Latency bars: how long each took in one setting, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opbench import units
from opbench.report.charts import style
from opbench.report.charts.material import Material, finite, is_doubtful
from opbench.report.charts.model import Chart, Field, Value
from opbench.report.rows import Row
from opbench.report.words import outcome_in_words

KIND = "latency"
TITLE = "Latency"
READING = (
    "A bar is the median time of one call; the line across its end is the 95 % interval. Shorter is faster. Bars whose "
    "intervals overlap are not told apart by this run."
)
_FIELDS = (
    Field(key="setting", title="setting"),
    Field(key="label", title="operator"),
    Field(key="operator", title="operator", shown=False),
    Field(key="latency_seconds", title="latency", unit="seconds"),
    Field(key="low_seconds", title="95 % from", unit="seconds"),
    Field(key="high_seconds", title="to", unit="seconds"),
    Field(key="note", title="note"),
)


def chart(material: Material) -> Chart:
    """Make the chart of a run's times."""
    timed = [row for row in material.rows if row.latency]
    if not timed:
        return Chart(kind=KIND, title=TITLE, reading=READING, missing=material.to_measure("latency"))
    known = set(material.settings(timed)) or {material.setting(timed[0])}
    shown = [row for row in material.rows if material.setting(row) in known]
    return Chart(
        kind=KIND,
        title=TITLE,
        reading=READING,
        finding=_finding(material, timed),
        fields=_FIELDS,
        data=tuple(_datum(material, row) for row in shown),
        settings=material.settings(timed),
    )


def draw(chart: Chart) -> dict[str, Any]:
    """Draw bars from zero, the fastest on top; what has no time says why in its place."""
    import altair as alt

    base = alt.Chart(style.data()).encode(
        y=alt.Y("label:N", sort=alt.EncodingSortField("latency_seconds", op="min"), title=None, axis=style.names()),
        tooltip=[
            alt.Tooltip("label:N", title="operator"),
            alt.Tooltip("latency_seconds_text:N", title="median"),
            alt.Tooltip("low_seconds_text:N", title="95 % from"),
            alt.Tooltip("high_seconds_text:N", title="to"),
            alt.Tooltip("note:N"),
        ],
    )
    seconds = alt.X("latency_seconds:Q", title="time of a call", axis=alt.Axis(labelExpr=style.SECONDS, tickCount=5))
    bars = base.mark_bar(height={"band": 0.7}, color=style.COLOURS[0]).encode(x=seconds)
    intervals = base.mark_rule(strokeWidth=2).encode(x="low_seconds:Q", x2="high_seconds:Q")
    words = base.mark_text(align="left", dx=6, limit=400).encode(x="edge:Q", text="words:N")
    # Nothing is seen of it: it keeps room for the words beside the longest bar.
    room = base.mark_point(opacity=0).encode(x="beyond:Q")
    drawing = (
        alt.layer(bars, intervals, words, room)
        .transform_calculate(edge="datum.latency_seconds ? max(datum.high_seconds, datum.latency_seconds) : 0")
        .transform_calculate(aside=f"datum.note && !{style.NARROW} ? ' (' + datum.note + ')' : ''")
        .transform_calculate(words="datum.latency_seconds ? datum.latency_seconds_text + datum.aside : datum.note")
        .transform_calculate(beyond=style.beyond("datum.edge", "datum.words"))
    )
    return style.finished(style.one_setting(drawing, chart.settings), chart.reading)


def _datum(material: Material, row: Row) -> dict[str, Value]:
    latency = row.latency
    return {
        "setting": material.setting(row),
        "label": material.label(row),
        "operator": row.record.case.name,
        "latency_seconds": latency.median if latency else None,
        "low_seconds": latency.low if latency else None,
        "high_seconds": finite(latency.high) if latency else None,
        "note": outcome_in_words(row.record.outcome),
    }


def _finding(material: Material, timed: Sequence[Row]) -> str:
    """'Forward: from 145 µs (large_kernel_depthwise/native) to 5.70 ms (drconv), 39 times as long', for the first."""
    setting = next(iter(material.settings(timed)), material.setting(timed[0]))
    found = sorted((row for row in timed if material.setting(row) == setting), key=_median)
    least, most = found[0], found[-1]
    head = f"{setting}: " if setting else ""
    text = f"{head}from {units.seconds(_median(least))} ({material.label(least)})"
    if least is not most:
        text += f" to {units.seconds(_median(most))} ({material.label(most)}), {_times(most, least)}"
    doubted = sum(map(is_doubtful, found))
    if doubted:
        text += f"; the intervals of {doubted} of {len(found)} cannot be trusted: the notes say why"
    return f"{text[0].upper()}{text[1:]}."


def _times(most: Row, least: Row) -> str:
    return f"{units.ratio(_median(most) / _median(least))} as long"


def _median(row: Row) -> float:
    return row.latency.median if row.latency else 0.0
