"""Samples: what the interval of a time is made of, in the order taken and as a distribution."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from opbench import units
from opbench.report.charts import style
from opbench.report.charts.material import Material, ends, finite
from opbench.report.charts.model import Chart, Field, Value, own, told
from opbench.report.charts.thinned import (
    MOST_POINTS,
    STEP,
    as_text,
    bins,
    course,
    extremes,
    histogram,
    window,
)
from opbench.report.rows import Row
from opbench.report.words import outcome_in_words
from opbench.results import Sampling, Timing

KIND = "samples"
TITLE = "Samples"
READING = (
    "Left are the samples of each process in the order taken, one process after the other; a line joins the medians "
    "of successive ones. Right is how often each time came, of all samples of a process: two bumps are two states, as "
    "of a clock. The broken line is the median, the band its 95 % interval; triangles at the edge lie beyond it. Of a "
    f"process with more than {MOST_POINTS} samples, the least and the most of each of {MOST_POINTS // 2} successive "
    "stretches are drawn, so that nothing unusual is missing."
)
HEIGHT = 280
MOST_BYTES = 150_000
"""Of data for one page."""
TIMES_END, DISTRIBUTION_START = 0.7, 0.74
"""Where the left part of the plot ends, and where the right one starts."""
_FIELDS = (
    Field(key="setting", title="of"),
    Field(key="process", title="process"),
    Field(key="samples", title="samples"),
    Field(key="least_seconds", title="least", unit="seconds"),
    Field(key="percentile_5_seconds", title="5 % below", unit="seconds"),
    Field(key="process_median_seconds", title="median", unit="seconds"),
    Field(key="percentile_95_seconds", title="95 % below", unit="seconds"),
    Field(key="most_seconds", title="most", unit="seconds"),
    Field(key="beyond", title="beyond the edge"),
    Field(key="latency_seconds", title="median of all", unit="seconds"),
    Field(key="low_seconds", title="95 % from", unit="seconds"),
    Field(key="high_seconds", title="to", unit="seconds"),
    Field(key="processes", title="processes", shown=False),
    Field(key="bottom_seconds", title="bottom", shown=False),
    Field(key="top_seconds", title="top", shown=False),
    Field(key="drawn", title="drawn", shown=False),
    Field(key="course", title="course", shown=False),
    Field(key="shares", title="shares", shown=False),
    Field(key="note", title="note"),
)


def chart(material: Material) -> Chart:
    """Make the chart of a run's samples, the least steady row first."""
    timed = sorted((row for row in material.rows if row.latency), key=_steadiness)
    if not timed:
        return Chart(kind=KIND, title=TITLE, reading=READING, missing=material.to_measure("latency"))
    data: list[dict[str, Value]] = []
    names: list[str] = []
    size = 0
    for row in timed:
        name = _unused(own(", ".join(filter(None, [material.label(row), material.setting(row)]))), names)
        found = _data(row, name)
        size += len(json.dumps(told(Chart(kind=KIND, title=TITLE, reading="", fields=_FIELDS, data=tuple(found)))))
        if names and size > MOST_BYTES:
            break
        data += found
        names.append(name)
    return Chart(
        kind=KIND,
        title=TITLE,
        reading=READING,
        finding=_finding(material, timed, len(names)),
        fields=_FIELDS,
        data=tuple(data),
        settings=tuple(names) if len(names) > 1 else (),
    )


def draw(chart: Chart) -> dict[str, Any]:
    """Draw both parts over one axis of time, so that a bump stands beside the samples that make it."""
    import altair as alt

    processes = sorted({int(str(datum["process"])) for datum in chart.data})
    legend = alt.Legend(title="process", symbolOpacity=1, symbolDash=[1, 0], symbolStrokeWidth=0)
    colour = alt.Color(
        "process:O", scale=alt.Scale(domain=processes, range=_looks(style.COLOURS, processes)), legend=legend
    )
    shape = alt.Shape(
        "process:O", scale=alt.Scale(domain=processes, range=_looks(style.SHAPES, processes)), legend=legend
    )
    dash = alt.StrokeDash(
        "process:O", scale=alt.Scale(domain=processes, range=_looks(style.DASHES, processes)), legend=None
    )
    titles = f"datum.value < {TIMES_END} ? 'in the order taken' : 'how often'"
    x = alt.X(
        "x_:Q",
        title=None,
        scale=alt.Scale(domain=[0, 1], nice=False),
        axis=alt.Axis(
            values=[TIMES_END / 2, (1 + DISTRIBUTION_START) / 2],
            labelExpr=titles,
            grid=False,
            ticks=False,
            domain=False,
        ),
    )
    y = alt.Y(
        "y_:Q",
        title="time of a call",
        scale=alt.Scale(zero=False, nice=False),
        axis=alt.Axis(labelExpr=style.SECONDS, tickCount=6),
    )
    base = alt.Chart(style.data()).encode(x=x, y=y)
    samples = _flat(base, "drawn").transform_calculate(time_="format(1e6 * datum.seconds_, ',.5~r') + ' µs'")
    is_within = "datum.seconds_ >= datum.bottom_seconds && datum.seconds_ <= datum.top_seconds"
    tooltip = [alt.Tooltip("process:N"), alt.Tooltip("time_:N", title="sample")]
    points = (
        samples.transform_filter(is_within)
        .mark_point(size=18, opacity=0.7)
        .encode(color=colour, shape=shape, tooltip=tooltip)
    )
    beyond = samples.transform_filter(f"!({is_within})").mark_point(size=60, filled=True, opacity=1)
    above = beyond.transform_filter("datum.seconds_ > datum.top_seconds")
    edges = [
        each.encode(color=colour, shape=alt.value(triangle), tooltip=tooltip)
        for each, triangle in (
            (above, "triangle-up"),
            (beyond.transform_filter("datum.seconds_ < datum.bottom_seconds"), "triangle-down"),
        )
    ]
    courses = _flat(base, "course").mark_line(strokeWidth=1.5).encode(color=colour, strokeDash=dash, order="index_:Q")
    shares = (
        base.transform_calculate(each_="split(datum.shares, ' ')")
        .transform_calculate(number_="length(datum.each_)", index_="sequence(length(datum.each_))")
        .transform_flatten(["each_", "index_"])
        .transform_calculate(
            x_=f"{DISTRIBUTION_START} + {1 - DISTRIBUTION_START} * toNumber(datum.each_) / 1000",
            y_="lerp([datum.bottom_seconds, datum.top_seconds], (datum.index_ + 0.5) / datum.number_)",
        )
        .mark_line(strokeWidth=2)
        .encode(color=colour, strokeDash=dash, order="index_:Q")
    )
    once = base.transform_filter("datum.process === 1")
    middle = (
        once.transform_calculate(x_="0", x2_="1", y_="datum.latency_seconds")
        .mark_rule(strokeDash=[6, 4], strokeWidth=1.5)
        .encode(x2="x2_:Q")
    )
    band = (
        once.transform_filter("isValid(datum.high_seconds)")
        .transform_calculate(
            x_="0",
            x2_="1",
            y_="max(datum.low_seconds, datum.bottom_seconds)",
            y2_="min(datum.high_seconds, datum.top_seconds)",
        )
        .mark_rect(fill="currentColor", opacity=0.13)
        .encode(x2="x2_:Q", y2="y2_:Q")
    )
    drawing = alt.layer(band, middle, points, *edges, courses, shares)
    return style.finished(style.one_setting(drawing, chart.settings), chart.reading, height=HEIGHT)


def _flat(base: Any, field: str) -> Any:
    """A mark for each of the times that a field lists: `seconds_`, with its place, clipped to the plot."""
    start = f"{TIMES_END} / datum.processes"
    return (
        base.transform_calculate(each_=f"split(datum.{field}, ' ')")
        .transform_calculate(number_="length(datum.each_)", index_="sequence(length(datum.each_))")
        .transform_flatten(["each_", "index_"])
        .transform_calculate(
            seconds_=f"datum.latency_seconds * (1 + {STEP} * toNumber(datum.each_))",
            x_=f"{start} * (datum.process - 1 + 0.03 + 0.94 * (datum.index_ + 0.5) / datum.number_)",
        )
        .transform_calculate(y_="clamp(datum.seconds_, datum.bottom_seconds, datum.top_seconds)")
    )


def _looks(looks: Sequence[Any], processes: Sequence[int]) -> list[Any]:
    return [looks[(process - 1) % len(looks)] for process in processes]


def _steadiness(row: Row) -> tuple[bool, float]:
    """Flagged rows come first, then those of the widest intervals."""
    flagged = row.measured is not None and bool(row.measured.flags)
    return not flagged, -_half_width(row)


def _half_width(row: Row) -> float:
    return row.latency.relative_half_width if row.latency else math.inf


def _data(row: Row, name: str) -> list[dict[str, Value]]:
    """A datum for each process of a row."""
    latency, timing = row.latency, row.timing
    if latency is None or timing is None:
        return []
    streams = [process.seconds for process in timing.processes]
    bottom, top = window(streams, latency.median, latency.low, latency.high)
    middle, bottom, top = (_short(value) for value in (latency.median, bottom, top))
    low, high = ends(latency.low, latency.high)
    shares = [histogram(stream, bottom, top, bins(streams)) for stream in streams]
    tallest = max(map(max, shares))
    common: dict[str, Value] = {
        "setting": name,
        "latency_seconds": middle,
        "low_seconds": None if low is None else _short(low),
        "high_seconds": None if high is None else _short(high),
        "processes": len(timing.processes),
        "bottom_seconds": bottom,
        "top_seconds": top,
        "note": outcome_in_words(row.record.outcome),
    }
    return [
        {
            **common,
            "process": number,
            **_quantiles(process, bottom, top),
            "drawn": as_text(extremes(process.seconds), middle),
            "course": as_text(course(process.seconds), middle),
            "shares": " ".join(str(round(1000 * value / tallest)) for value in share),
        }
        for number, (process, share) in enumerate(zip(timing.processes, shares, strict=True), start=1)
    ]


def _quantiles(process: Sampling, bottom: float, top: float) -> dict[str, Value]:
    least, below, middle, above, most = np.percentile(process.seconds, (0, 5, 50, 95, 100))
    return {
        "samples": len(process.seconds),
        "least_seconds": _short(least),
        "percentile_5_seconds": _short(below),
        "process_median_seconds": _short(middle),
        "percentile_95_seconds": _short(above),
        "most_seconds": _short(most),
        "beyond": sum(not bottom <= value <= top for value in process.seconds),
    }


def _short(value: float) -> float:
    return float(f"{value:.7g}")


def _unused(name: str, used: Sequence[str]) -> str:
    """The name, with a number where another row has it."""
    number = 1 + sum(each == name or each.startswith(f"{name} (") for each in used)
    return name if number == 1 else f"{name} ({number})"


def _finding(material: Material, timed: Sequence[Row], offered: int) -> str:
    """'1950 samples of 26 times. The widest interval is … (±8.1 %), the narrowest …'."""
    widest, narrowest = max(timed, key=_half_width), min(timed, key=_half_width)
    number = sum(_number(row.timing) for row in timed)
    text = f"{number} samples in {len(timed)} times. " if len(timed) > 1 else f"{number} samples. "
    text += f"The widest interval is that of {_told(material, widest)}"
    if narrowest is not widest:
        text += f", the narrowest that of {_told(material, narrowest)}"
    flagged = sum(bool(row.measured and row.measured.flags) for row in timed)
    if flagged:
        text += f"; flagged: {flagged}"
    left_out = len(timed) - offered
    rest = f" Shown are the {offered} least steady, flagged ones first; {left_out} are left out." if left_out else ""
    return f"{text}.{rest}"


def _told(material: Material, row: Row) -> str:
    name = ", ".join(filter(None, [material.label(row), material.setting(row)]))
    half = finite(_half_width(row))
    return f"{name} ({'not known' if half is None else f'±{units.percent(half)}'})"


def _number(timing: Timing | None) -> int:
    return sum(len(process.seconds) for process in timing.processes) if timing else 0
