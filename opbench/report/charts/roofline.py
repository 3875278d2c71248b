"""Roofline: the rate each row reaches, against what its device allows at that intensity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opbench import units
from opbench.report.charts import crowding, roofs, style
from opbench.report.charts.material import Material, finite
from opbench.report.charts.model import Chart, Field, Value, number
from opbench.report.charts.names import Side
from opbench.report.charts.roofline_labels import BESIDE, HEIGHT, labelled
from opbench.report.rows import Row

KIND = "roofline"
TITLE = "Roofline"
READING = (
    "A point is the rate a row reaches, over the work it does for each byte it must move: inputs and parameters read "
    "once, the output written once, no taps on padding. The line is what the device was measured to do: copying on the "
    "slope, arithmetic where it is level. The nearer a point to the line above it, the less there is to win without "
    "changing the operator. A point above it found data in a cache, or ran better than what the line was measured "
    "with. Hollow points are references; a faint mark counts taps on padding, as papers do."
)
_FIELDS = (
    Field(key="setting", title="setting"),
    Field(key="label", title="operator"),
    Field(key="operator", title="operator", shown=False),
    Field(key="implementation", title="implementation", shown=False),
    Field(key="flops_per_byte", title="intensity, in bounds", unit="flops_per_byte"),
    Field(key="macs_per_second", title="rate, in bounds", unit="macs_per_second"),
    Field(key="low_macs_per_second", title="95 % from", unit="macs_per_second"),
    Field(key="high_macs_per_second", title="to", unit="macs_per_second"),
    Field(key="attainable_macs_per_second", title="attainable", unit="macs_per_second"),
    Field(key="attained_share", title="share of attainable", unit="percent"),
    Field(key="limit", title="limited by"),
    Field(key="dense_flops_per_byte", title="intensity, dense", unit="flops_per_byte", shown=False),
    Field(key="dense_macs_per_second", title="rate, dense", unit="macs_per_second"),
    Field(key="roof_macs_per_second", title="ceiling of arithmetic", unit="macs_per_second", shown=False),
    Field(key="roof_bytes_per_second", title="ceiling of memory", unit="bytes_per_second", shown=False),
    Field(key="side", title="side of the label", shown=False),
    Field(key="note", title="note"),
)
_NARROW = 440
"""Pixels below which points have no labels beside them."""


def chart(material: Material) -> Chart:
    """Make the chart of the rates that a run's rows reach."""
    data = tuple(_datum(material, row) for row in material.rows)
    drawn = [row for row, datum in zip(material.rows, data, strict=True) if datum["macs_per_second"] is not None]
    if not drawn:
        return Chart(kind=KIND, title=TITLE, reading=READING, missing=_missing(material, data))
    return Chart(
        kind=KIND,
        title=TITLE,
        reading=READING,
        finding=_finding(material, drawn, data),
        fields=_FIELDS,
        data=labelled(data),
        settings=material.settings(drawn),
    )


def draw(chart: Chart) -> dict[str, Any]:
    """Draw the two lines of the setting's device, and below them a point for each row."""
    import altair as alt

    shown = [str(datum["operator"]) for datum in chart.data if datum["macs_per_second"] is not None]
    look = style.by_operator(chart.operators, shown)
    rows = (
        alt.Chart(style.data())
        .transform_filter("isValid(datum.macs_per_second)")
        .transform_calculate(
            rate="2 * datum.macs_per_second",
            low="2 * datum.low_macs_per_second",
            high="2 * datum.high_macs_per_second",
            dense="2 * datum.dense_macs_per_second",
        )
    )
    x = alt.X(
        "flops_per_byte:Q",
        title="FLOP in bounds for each compulsory byte",
        scale=alt.Scale(type="log", nice=False, padding=9),
        axis=alt.Axis(format="~g", tickCount=5),
    )
    y = alt.Y(
        "rate:Q",
        title="FLOP/s in bounds (2 × MAC/s)",
        scale=alt.Scale(type="log", nice=False, padding=9),
        axis=alt.Axis(format="~s", tickCount=5),
    )
    points = rows.encode(
        x=x,
        y=y,
        tooltip=[
            alt.Tooltip("label:N", title="operator"),
            alt.Tooltip("macs_per_second_text:N", title="rate, in bounds"),
            alt.Tooltip("low_macs_per_second_text:N", title="95 % from"),
            alt.Tooltip("high_macs_per_second_text:N", title="to"),
            alt.Tooltip("attained_share_text:N", title="share of attainable"),
            alt.Tooltip("flops_per_byte_text:N", title="intensity"),
            alt.Tooltip("dense_macs_per_second_text:N", title="rate, dense"),
            alt.Tooltip("note:N"),
        ],
    )
    drawing = alt.layer(
        *_lines(rows),
        rows.transform_filter("isValid(datum.low) && isValid(datum.high)")
        .mark_rule(strokeWidth=1.5)
        .encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        *style.points(points, look),
        *(() if crowding.is_crowded(chart.data) else _dense(rows, x, y, look)),
        *_labels(rows, x, y),
    )
    return style.finished(style.one_setting(drawing, chart.settings), chart.reading, height=int(HEIGHT))


def _lines(rows: Any) -> list[Any]:
    """The slope of memory and the level of arithmetic, each with its number."""
    ends = (
        rows.transform_aggregate(
            least="min(flops_per_byte)",
            most="max(flops_per_byte)",
            top="argmax(roof_macs_per_second)",
            groupby=["setting"],
        )
        .transform_calculate(level="2 * datum.top.roof_macs_per_second", bandwidth="datum.top.roof_bytes_per_second")
        .transform_calculate(meet="datum.level / datum.bandwidth")
        .transform_calculate(
            left=f"min(datum.least / 1.5, datum.meet / {BESIDE})",
            right=f"max(datum.most * 1.5, datum.meet * {BESIDE})",
        )
    )
    line = (
        ends.transform_calculate(at="[datum.left, datum.meet, datum.right]")
        .transform_flatten(["at"])
        .transform_calculate(height="min(datum.level, datum.at * datum.bandwidth)")
        .mark_line(strokeWidth=2, color="currentColor", opacity=0.8)
        .encode(x="at:Q", y="height:Q", order="at:Q")
    )
    slope = (
        ends.transform_calculate(at="pow(datum.left, 0.35) * pow(datum.meet, 0.65)")
        .transform_calculate(
            height="datum.at * datum.bandwidth",
            words=f"(width > {_NARROW} ? 'copy ' : '') + datum.top.roof_bytes_per_second_text",
        )
        # Above the slope, or on a narrow page, where there is no room for that, below.
        .mark_text(
            align={"expr": f"width > {_NARROW} ? 'right' : 'left'"},
            baseline={"expr": f"width > {_NARROW} ? 'bottom' : 'top'"},
            dx={"expr": f"width > {_NARROW} ? -6 : 6"},
            dy={"expr": f"width > {_NARROW} ? -2 : 4"},
        )
        .encode(x="at:Q", y="height:Q", text="words:N")
    )
    onward = ends.mark_rule(strokeDash=[2, 4], opacity=0.6).encode(x="left:Q", x2="meet:Q", y="level:Q")
    level = (
        ends.transform_calculate(
            words=f"(width > {_NARROW} ? 'arithmetic ' : '') + datum.top.roof_macs_per_second_text"
        )
        .mark_text(align="left", baseline="bottom", dx=2, dy=-3)
        .encode(x="left:Q", y="level:Q", text="words:N")
    )
    return [line, onward, slope, level]


def _dense(rows: Any, x: Any, y: Any, look: Mapping[str, Any]) -> list[Any]:
    """Where a row would stand if taps on padding counted."""
    import altair as alt

    counted = rows.transform_filter("datum.dense_macs_per_second > 1.001 * datum.macs_per_second")
    across, up = alt.X("dense_flops_per_byte:Q"), alt.Y("dense:Q")
    return [
        counted.mark_rule(opacity=0.4).encode(x=x, x2="dense_flops_per_byte:Q", y=y, y2="dense:Q"),
        counted.mark_point(size=25, opacity=0.45).encode(x=across, y=up, **look),
    ]


def _labels(rows: Any, x: Any, y: Any) -> list[Any]:
    """The names of points, where there is room for them on a page of ordinary width."""
    looks: dict[Side, dict[str, Any]] = {
        "right": {"align": "left", "dx": 8},
        "left": {"align": "right", "dx": -8},
        "above": {"align": "center", "dy": -13},
        "below": {"align": "center", "dy": 13},
    }
    return [
        rows.transform_filter(f"width > {_NARROW} && datum.side === '{side}'")
        .mark_text(baseline="middle", **look)
        .encode(x=x, y=y, text="label:N")
        for side, look in looks.items()
    ]


def _datum(material: Material, row: Row) -> dict[str, Value]:
    datum: dict[str, Value] = dict.fromkeys(field.key for field in _FIELDS)
    datum |= {
        "setting": material.setting(row),
        "label": material.label(row),
        "operator": row.record.case.name,
        "implementation": row.record.implementation,
    }
    roof = roofs.of_row(row, material.run.header.environment.ceilings)
    counts, latency, intensity = row.record.counts, row.latency, row.intensity
    if isinstance(roof, str) or latency is None:
        return {**datum, "note": roof if isinstance(roof, str) else ""}
    if counts is None or counts.macs_in_bounds is None:
        return {**datum, "note": "its MACs in bounds are not known"}
    if not intensity:
        return {**datum, "note": "no MACs" if intensity == 0 else "its compulsory bytes are not known"}
    rate, attainable = counts.macs_in_bounds / latency.median, roof.attainable_macs_per_second(intensity)
    dense = counts.macs_dense
    return {
        **datum,
        "flops_per_byte": intensity,
        "macs_per_second": rate,
        "low_macs_per_second": counts.macs_in_bounds / latency.high or None,
        "high_macs_per_second": finite(counts.macs_in_bounds / latency.low) if latency.low else None,
        "attainable_macs_per_second": attainable,
        "attained_share": rate / attainable,
        "limit": "memory" if intensity < roof.balance_flops_per_byte else "arithmetic",
        "dense_flops_per_byte": intensity * dense / counts.macs_in_bounds if dense is not None else None,
        "dense_macs_per_second": dense / latency.median if dense is not None else None,
        "roof_macs_per_second": roof.macs_per_second,
        "roof_bytes_per_second": roof.bytes_per_second,
        "note": "",
    }


def _finding(material: Material, drawn: Sequence[Row], data: Sequence[Mapping[str, Value]]) -> str:
    """'Forward: memory limits 3 of 13 rows, those below 8.86 FLOP/byte; … reaches 61 % of what is attainable …'."""
    setting = next(iter(material.settings(drawn)), material.setting(drawn[0]))
    here = [datum for datum in data if datum["setting"] == setting and datum["macs_per_second"] is not None]
    best, worst = (choose(here, key=lambda datum: number(datum, "attained_share")) for choose in (max, min))
    roof = roofs.of_datum(best)
    text = (
        f"{f'{setting}: ' if setting else ''}memory limits {sum(datum['limit'] == 'memory' for datum in here)} of "
        f"{len(here)} {'row' if len(here) == 1 else 'rows'}, those below "
        f"{units.significant(roof.balance_flops_per_byte)} FLOP/byte; {best['label']} reaches "
        f"{units.percent(number(best, 'attained_share'))} of what is attainable at its intensity"
    )
    if worst is not best:
        text += f", {worst['label']} {units.percent(number(worst, 'attained_share'))}"
    above = sum(number(datum, "attained_share") > 1 for datum in here)
    if above:
        text += f"; {above} of them {'lies' if above == 1 else 'lie'} above the line"
    absent = [str(datum["note"]) for datum in data if datum["macs_per_second"] is None]
    doubt = roofs.doubt(drawn, material.run.header.environment.ceilings)
    return f"{text[0].upper()}{text[1:]}.{doubt}{roofs.absence(absent)}"


def _missing(material: Material, data: Sequence[Mapping[str, Value]]) -> str:
    found = roofs.missing(material)
    if found or "counts" not in material.run.header.metrics:
        return found or material.to_measure("counts")
    reasons = roofs.absence(str(datum["note"]) for datum in data)
    return f"A roofline has a place for cores and layers whose MACs are known; this run has none.{reasons}"
