"""Efficiency gap: how far each row is from the ideal time, and what of that fusion could win or the kernels lose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opbench import units
from opbench.report.charts import crowding, roofs, style
from opbench.report.charts.bounds import Roof, works
from opbench.report.charts.material import Material, finite
from opbench.report.charts.model import Chart, Field, Value, number
from opbench.report.rows import Row
from opbench.results import Counts

KIND = "gap"
TITLE = "Efficiency gap"
_WASTES = (
    "what moving its data costs",
    "what fusion could win",
    "what the kernels lose",
    "fusion's and the kernels' share",
)
_TIMES = ("ideal: arithmetic alone", "fused: one kernel", "waterline: its operations", "measured")
READING = (
    "Each row reads from left to right. Ideal: its arithmetic at the device's measured best rate. Fused: the bound of "
    "one kernel that moves nothing but inputs, parameters and output. Waterline: the bound of the operations it "
    "launches, one after the other. Measured: its time with the 95 % interval, and beside it the efficiency, ideal by "
    "measured. Between fused and waterline is what fusing the operations could win, from there on what the kernels "
    "lose. Taps on padding do not count. The bounds fetch everything from memory: a time to the left of them found "
    "data in a cache."
)
_FIELDS = (
    Field(key="setting", title="setting"),
    Field(key="label", title="operator"),
    Field(key="operator", title="operator", shown=False),
    Field(key="ideal_seconds", title="ideal", unit="seconds"),
    Field(key="fused_seconds", title="one fused kernel", unit="seconds"),
    Field(key="waterline_seconds", title="waterline bound", unit="seconds"),
    Field(key="latency_seconds", title="measured", unit="seconds"),
    Field(key="low_seconds", title="95 % from", unit="seconds"),
    Field(key="high_seconds", title="to", unit="seconds"),
    Field(key="efficiency", title="efficiency: ideal / measured", unit="percent"),
    Field(key="highest_efficiency", title="at most: ideal / waterline", unit="percent"),
    Field(key="reached_share", title="reached: waterline / measured", unit="percent"),
    Field(key="fusion_ratio", title="fusion could win", unit="ratio"),
    Field(key="note", title="note"),
)


def chart(material: Material) -> Chart:
    """Make the chart of a run's times and of the bounds below them."""
    data = tuple(_datum(material, row) for row in material.rows)
    judged = [row for row, datum in zip(material.rows, data, strict=True) if datum["latency_seconds"] is not None]
    if not judged:
        return Chart(kind=KIND, title=TITLE, reading=READING, missing=_missing(material, data))
    settings = material.settings(judged)
    known = settings or (material.setting(judged[0]),)
    everywhere = material.spread
    shown = tuple(_datum(everywhere, row) for row in everywhere.rows if everywhere.setting(row) in known)
    absent = roofs.absence(str(datum["note"]) for datum in data if datum["latency_seconds"] is None)
    return Chart(
        kind=KIND,
        title=TITLE,
        reading=READING,
        finding="".join(
            [
                _finding(known[0], shown),
                roofs.doubt(judged, material.run.header.environment.ceilings),
                absent,
                crowding.remark(shown),
            ]
        ),
        fields=_FIELDS,
        data=shown,
        settings=settings,
    )


def draw(chart: Chart) -> dict[str, Any]:
    """Draw a line of segments for each row, the fastest on top; what has no time says why in its place."""
    import altair as alt

    base = alt.Chart(style.data()).encode(
        y=alt.Y("label:N", sort=alt.EncodingSortField("order_", op="min"), title=None, axis=style.names(grid=True)),
        tooltip=style.tooltips(chart.fields),
    )
    seconds = alt.X(
        "at:Q",
        title="time of a call",
        scale=alt.Scale(type="log", nice=False, padding=12),
        axis=alt.Axis(values=_ticks(chart), labelExpr=style.SECONDS, labelSeparation=10),
    )
    segments = (
        base.transform_calculate(
            start_0="datum.ideal_seconds",
            end_0="datum.fused_seconds",
            start_1="datum.fused_seconds",
            end_1="min(datum.waterline_seconds, datum.latency_seconds)",
            start_2="datum.waterline_seconds",
            end_2="datum.latency_seconds",
            start_3="isValid(datum.waterline_seconds) ? null : datum.fused_seconds || datum.ideal_seconds",
            end_3="datum.latency_seconds",
        )
        .transform_calculate(
            starts="[datum.start_0, datum.start_1, datum.start_2, datum.start_3]",
            ends="[datum.end_0, datum.end_1, datum.end_2, datum.end_3]",
            wastes=str(list(_WASTES)),
        )
        .transform_flatten(["starts", "ends", "wastes"], ["at", "end", "waste"])
        .transform_filter("isValid(datum.at) && isValid(datum.end) && datum.at > 0 && datum.end > datum.at")
        .mark_bar(height={"expr": f"datum.waste === '{_WASTES[1]}' ? 12 : datum.waste === '{_WASTES[0]}' ? 4 : 7"})
        .encode(
            x=seconds,
            x2="end:Q",
            color=alt.Color(
                "waste:N",
                scale=alt.Scale(
                    domain=list(_WASTES), range=["#808080", *style.COLOURS[4:5], style.COLOURS[3], "#CC79A7"]
                ),
                legend=alt.Legend(
                    title=None, symbolType="square", symbolSize=150, values=_seen(chart), columns=style.columns(2)
                ),
            ),
        )
    )
    marks = (
        base.transform_calculate(
            times="[datum.ideal_seconds, datum.fused_seconds, datum.waterline_seconds, datum.latency_seconds]",
            names=str(list(_TIMES)),
        )
        .transform_flatten(["times", "names"], ["at", "time"])
        .transform_filter("isValid(datum.at) && datum.at > 0")
        .mark_point(filled=True, size=60, color="currentColor", opacity=1)
        .encode(
            x=seconds,
            shape=alt.Shape(
                "time:N",
                scale=alt.Scale(domain=list(_TIMES), range=["square", "diamond", "triangle-right", "circle"]),
                legend=alt.Legend(
                    title=None, symbolFillColor="currentColor", symbolSize=60, orient="top", columns=style.columns(2)
                ),
            ),
        )
    )
    # A waterline bound that a cache has beaten stands apart.
    beaten = (
        base.transform_filter("datum.waterline_seconds > datum.latency_seconds")
        .mark_rule(strokeDash=[2, 3], opacity=0.6)
        .encode(x="latency_seconds:Q", x2="waterline_seconds:Q")
    )
    intervals = (
        base.transform_filter("isValid(datum.low_seconds) && isValid(datum.high_seconds)")
        .mark_rule(strokeWidth=1.5)
        .encode(x="low_seconds:Q", x2="high_seconds:Q")
    )
    words = (
        base.transform_filter("!isValid(datum.latency_seconds)")
        .mark_text(align="left", dx=6, limit=400)
        .encode(x=alt.value(0), text="note:N")
    )
    shares = (
        base.transform_filter("isValid(datum.efficiency)")
        .transform_calculate(edge="max(datum.latency_seconds, datum.high_seconds || 0, datum.waterline_seconds || 0)")
        .mark_text(align="left", dx=8)
        .encode(x="edge:Q", text="efficiency_text:N")
    )
    drawing = crowding.first_bars(alt.layer(segments, beaten, intervals, marks, shares, words), "latency_seconds")
    drawing = drawing.resolve_scale(color="independent", shape="independent")
    return style.finished(style.one_setting(drawing, chart.settings), chart.reading)


def _ticks(chart: Chart) -> list[float]:
    """Ticks for all settings, each of which shows its part of them."""
    times = [number(datum, key) for datum in chart.data for key in ("ideal_seconds", "latency_seconds")]
    known = [time for time in times if time > 0]
    return style.decimal_ticks(min(known) / 10, max(known) * 10, style.MOST_TICKS_OF_ALL)


def _seen(chart: Chart) -> list[str]:
    """The segments that the legend names: one that no row has would only puzzle."""
    with_bound = [datum for datum in chart.data if datum["waterline_seconds"] is not None]
    without = [
        datum for datum in chart.data if datum["latency_seconds"] is not None and datum["waterline_seconds"] is None
    ]
    moving = any(number(datum, "fused_seconds") > number(datum, "ideal_seconds") for datum in chart.data)
    return [*(_WASTES[:1] if moving else ()), *(_WASTES[1:3] if with_bound else ()), *(_WASTES[3:] if without else ())]


def _datum(material: Material, row: Row) -> dict[str, Value]:
    datum: dict[str, Value] = {
        **dict.fromkeys(field.key for field in _FIELDS),
        "setting": material.setting(row),
        "label": material.label(row),
        "operator": row.record.case.name,
    }
    roof = roofs.of_row(row, material.run.header.environment.ceilings)
    latency, counts = row.latency, row.record.counts
    if isinstance(roof, str) or latency is None:
        return {**datum, "note": roof if isinstance(roof, str) else ""}
    if counts is None or counts.macs_in_bounds is None:
        return {**datum, "note": "its MACs in bounds are not known"}
    ideal, fused, waterline = _bounds(roof, counts, counts.macs_in_bounds)
    return {
        **datum,
        "ideal_seconds": ideal,
        "fused_seconds": fused,
        "waterline_seconds": waterline,
        "latency_seconds": latency.median,
        "low_seconds": latency.low,
        "high_seconds": finite(latency.high),
        "efficiency": ideal / latency.median,
        "highest_efficiency": ideal / waterline if waterline else None,
        "reached_share": waterline / latency.median if waterline else None,
        "fusion_ratio": max(min(waterline, latency.median) / fused, 1) if waterline and fused else None,
        "note": "; ".join(roofs.remarks(counts)) if counts.launches else "what it launches is not known",
    }


def _bounds(roof: Roof, counts: Counts, macs: int) -> tuple[float, float | None, float | None]:
    fused = None if counts.compulsory_bytes is None else roof.least_seconds(macs, counts.compulsory_bytes)
    waterline = roof.sequence_seconds(works(counts.launches)) if counts.launches and counts.launches.order else None
    return roof.ideal_seconds(macs), fused, waterline


def _finding(setting: str, data: Sequence[Mapping[str, Value]]) -> str:
    """'Forward: convolution/native has the highest efficiency, 92 %, …; fusion could win most in …, up to 5.2×; …'."""
    here = [datum for datum in data if datum["setting"] == setting and datum["latency_seconds"] is not None]
    best, worst = _extremes([datum for datum in here if datum["ideal_seconds"]] or here, "efficiency")
    parts = [f"{best['label']} has the highest efficiency, {units.percent(number(best, 'efficiency'))}"]
    if worst is not best:
        parts[0] += f", {worst['label']} the lowest, {units.percent(number(worst, 'efficiency'))}"
    if any(number(datum, "fusion_ratio") > 1 for datum in here):
        most, _ = _extremes(here, "fusion_ratio")
        parts.append(f"fusion could win most in {most['label']}, up to {units.ratio(number(most, 'fusion_ratio'))}")
    if any(0 < number(datum, "reached_share") < 1 for datum in here):
        _, loser = _extremes(here, "reached_share")
        lost = units.ratio(1 / number(loser, "reached_share"))
        parts.append(f"kernels lose most in {loser['label']}, which takes {lost} its waterline bound")
    beaten = sum(
        (number(datum, "high_seconds") or number(datum, "latency_seconds")) < number(datum, "ideal_seconds")
        for datum in here
    )
    if beaten:
        parts.append(
            f"{beaten} of {len(here)} {'takes' if beaten == 1 else 'take'} less than the ideal time, so the device can "
            "do more than was measured as its ceiling"
        )
    text = f"{f'{setting}: ' if setting else ''}{'; '.join(parts)}"
    return f"{text[0].upper()}{text[1:]}."


def _extremes(data: Sequence[Mapping[str, Value]], key: str) -> tuple[Mapping[str, Value], Mapping[str, Value]]:
    """Those with the most and with the least of something."""
    known = [datum for datum in data if datum[key] is not None]
    return max(known, key=lambda datum: number(datum, key)), min(known, key=lambda datum: number(datum, key))


def _missing(material: Material, data: Sequence[Mapping[str, Value]]) -> str:
    found = roofs.missing(material)
    if found or "counts" not in material.run.header.metrics:
        return found or material.to_measure("counts")
    reasons = roofs.absence(str(datum["note"]) for datum in data)
    return f"The gap is known of rows whose MACs are; this run has none: {material.command}.{reasons}"
