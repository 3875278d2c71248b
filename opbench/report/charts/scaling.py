"""Scaling: how time and memory grow with the extent or the parameter that a run scans."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from opbench.plain import plain
from opbench.report.axes import Axis
from opbench.report.charts import style
from opbench.report.charts.growth import (
    LATENCY,
    MEMORY,
    Crossed,
    Growth,
    Line,
    Point,
    Quantity,
    axes,
    growths,
    latency,
    peak,
)
from opbench.report.charts.growth_words import MOST_CROSSOVERS, finding, interval, number, printed
from opbench.report.charts.line_ends import labels_at
from opbench.report.charts.material import Material, ends
from opbench.report.charts.model import Chart, Field, Value
from opbench.report.charts.names import LETTER
from opbench.report.words import outcome_in_words

KIND = "scaling"
TITLE = "Scaling"
READING = (
    "Both axes are logarithmic, so that a power law is a straight line and its exponent the slope. The exponent is "
    "fitted by least squares to the logarithms, with equal weights, and stands at the line's end; its 95 % interval "
    "counts the bend of a line as uncertainty. It holds for the range measured and not beyond. Hollow points are "
    "references. A cross is where two lines change places, if their intervals are certain about it on either side."
)
HEIGHT = 320
AXIS_PIXELS = 35
"""Half of the axis beside the plot; as much stands between a line and its label."""
END_LIMIT = 24
_AXES = {"side": "side in pixels: height and width", "pixels": "pixels: height × width", "batch": "batch: images"}


def charts(material: Material) -> tuple[Chart, ...]:
    """Make a chart of the times, and one of the memory, along each axis that the run scans."""
    made = (
        _chart(quantity, axis, found)
        for axis in axes(material.rows)
        for quantity, found in (
            (LATENCY, growths(material.spread.rows, axis, latency)),
            (MEMORY, growths(material.rows, axis, peak(material.rows), by_policy=False)),
        )
        if found
    )
    return tuple(made) or (Chart(kind=KIND, title=TITLE, reading=READING, missing=_missing(material)),)


def draw(chart: Chart) -> dict[str, Any]:
    """Draw lines through measured points, with the exponent beside the last."""
    import altair as alt

    quantity = MEMORY if chart.facts["quantity"] == MEMORY.variant else LATENCY
    measured = alt.datum.what == "measured"
    places = sorted(
        {datum["at"] for datum in chart.data if isinstance(datum["at"], int | float) and datum["what"] == "measured"}
    )
    look = style.by_operator(chart.operators, [str(datum["operator"]) for datum in chart.data if datum["operator"]])
    low, high = _extent(chart.data, quantity)
    axis = (
        alt.Axis(values=style.decimal_ticks(low, high, style.MOST_TICKS_OF_ALL), labelExpr=style.SECONDS)
        if quantity is LATENCY
        else alt.Axis(values=style.binary_ticks(low, high, style.MOST_TICKS_OF_ALL), labelExpr=style.BINARY)
    )
    x = alt.X(
        "at:Q",
        title=_AXES.get(str(chart.facts["axis"]), str(chart.facts["axis"]).replace("_", " ")),
        scale=alt.Scale(type="log", domainMin=places[0], domainMax=alt.expr(_end(chart, places)), nice=False),
        axis=alt.Axis(
            values=places, labelExpr="format(datum.value, '~r')", labelOverlap="greedy", labelSeparation=5, grid=False
        ),
    )
    y = alt.Y(
        f"{quantity.key}:Q",
        title="time of a call" if quantity is LATENCY else "peak memory",
        scale=alt.Scale(type="log", base=10 if quantity is LATENCY else 2, nice=False, zero=False, padding=12),
        axis=axis,
    )
    tooltip = [
        alt.Tooltip("label:N", title="operator"),
        alt.Tooltip("at:Q", title=str(chart.facts["axis"]), format="~r"),
        alt.Tooltip(f"{quantity.key}_text:N", title=quantity.words),
        alt.Tooltip("exponent_text:N", title="exponent"),
        alt.Tooltip("exponent_low_text:N", title="95 % from"),
        alt.Tooltip("exponent_high_text:N", title="to"),
        alt.Tooltip("note:N"),
    ]
    base = alt.Chart(style.data()).encode(x=x, y=y, tooltip=tooltip)
    points = base.transform_filter(measured)
    lines = points.mark_line(strokeWidth=2).encode(
        color=look["color"],
        detail="label:N",
        strokeDash=alt.StrokeDash(
            "line:O", legend=None, scale=alt.Scale(domain=list(range(len(style.DASHES))), range=list(style.DASHES))
        ),
    )
    intervals = points.mark_rule(strokeWidth=1.5).encode(y=f"low_{quantity.unit}:Q", y2=f"high_{quantity.unit}:Q")
    crosses = base.transform_filter(alt.datum.what == "crossover").mark_point(
        shape="M-.7,-.7L.7,.7M.7,-.7L-.7,.7", size=90, strokeWidth=2, stroke="currentColor", opacity=1
    )
    ends = points.transform_filter("isValid(datum.end_at)").encode(y="end_at:Q")
    labels = ends.mark_text(align="left", dx=20, limit=150).encode(text="end:N")
    keys = (key.properties(mark={**key.mark.to_dict(), "xOffset": 13}) for key in style.points(ends, look))
    drawing = alt.layer(lines, intervals, *style.points(points, look), crosses, *keys, labels)
    return style.finished(style.one_setting(drawing, chart.settings), chart.reading, height=HEIGHT)


def _chart(quantity: Quantity, axis: Axis, found: Sequence[Growth]) -> Chart:
    name = plain(axis.name, 60)
    return Chart(
        kind=KIND,
        variant=f"{name}-{quantity.variant}",
        title=f"{quantity.title} by {name.replace('_', ' ')}",
        reading=READING,
        finding=finding(quantity, name, found),
        fields=_fields(quantity, name),
        data=(
            *(datum for growth in found for datum in _of_lines(quantity, growth)),
            *islice(
                (_of_crossover(quantity, each.setting, it) for each in found for it in each.crossed), MOST_CROSSOVERS
            ),
        ),
        settings=tuple(growth.setting for growth in found) if len(found) > 1 else (),
        facts={"axis": name, "quantity": quantity.variant},
    )


def _fields(quantity: Quantity, axis: str) -> tuple[Field, ...]:
    return (
        Field(key="setting", title="setting"),
        Field(key="what", title="what"),
        Field(key="label", title="operator"),
        Field(key="operator", title="operator", shown=False),
        Field(key="implementation", title="implementation", shown=False),
        Field(key="other", title="crosses"),
        Field(key="at", title=axis.replace("_", " ")),
        Field(key=quantity.key, title=quantity.words, unit=quantity.unit),
        Field(key=f"low_{quantity.unit}", title="95 % from", unit=quantity.unit),
        Field(key=f"high_{quantity.unit}", title="to", unit=quantity.unit),
        Field(key="exponent", title="exponent", unit="number"),
        Field(key="exponent_low", title="95 % from", unit="number"),
        Field(key="exponent_high", title="to", unit="number"),
        Field(key="misfit", title="farthest from the law", unit="percent"),
        Field(key="line", title="line", shown=False),
        Field(key="end", title="end", shown=False),
        Field(key="end_at", title="end at", shown=False),
        Field(key="note", title="note"),
    )


def _of_lines(quantity: Quantity, growth: Growth) -> list[dict[str, Value]]:
    values = [point.value for line in growth.lines for point in line.points]
    span = math.log(max(values) / min(values)) or 1.0
    labels = labels_at([(line.points[-1].x, line.points[-1].value) for line in growth.lines], span / HEIGHT)
    return [
        datum
        for index, line in enumerate(growth.lines)
        for datum in _of_line(quantity, growth.setting, line, _rank(growth.lines, index), labels[index])
    ]


def _of_line(quantity: Quantity, setting: str, line: Line, rank: int, label_at: float | None) -> list[dict[str, Value]]:
    case, law = line.row.record.case, line.law
    own = line.label.removeprefix(plain(case.name)).strip(" /")
    end = " ".join(filter(None, [plain(own, END_LIMIT), f"{law.exponent:.2f}"])) if law else ""
    common: dict[str, Value] = {
        "setting": setting,
        "what": "measured",
        "label": line.label,
        "operator": case.name,
        "implementation": line.row.record.implementation,
        "other": None,
        "exponent": law.exponent if law else None,
        "exponent_low": law.low if law else None,
        "exponent_high": law.high if law else None,
        "misfit": law.misfit if law else None,
        "line": rank,
    }
    last = line.points[-1]
    return [
        {
            **common,
            **_place(quantity, point),
            "end": end if point is last else "",
            "end_at": label_at if point is last else None,
            "note": outcome_in_words(point.row.record.outcome),
        }
        for point in line.points
    ]


def _place(quantity: Quantity, point: Point) -> dict[str, Value]:
    low, high = ends(point.low, point.high)
    return {
        "at": number(point.x),
        quantity.key: point.value,
        f"low_{quantity.unit}": low,
        f"high_{quantity.unit}": high,
    }


def _of_crossover(quantity: Quantity, setting: str, crossed: Crossed) -> dict[str, Value]:
    crossover = crossed.crossover
    empty = dict.fromkeys(field.key for field in _fields(quantity, ""))
    return {
        **empty,
        "setting": setting,
        "what": "crossover",
        "label": crossed.less_below.label,
        "other": crossed.less_above.label,
        "at": None if crossover.at is None else number(crossover.at),
        quantity.key: crossed.value,
        "note": f"{crossed.less_below.label} is {quantity.less} below, {crossed.less_above.label} above; "
        f"certain at {printed(crossover.below)} and at {printed(crossover.above)}{interval(crossed)}",
    }


def _rank(lines: Sequence[Line], index: int) -> int:
    """How many lines of the same operator come before: each gets a dash of its own."""
    operator = lines[index].row.record.case.name
    return sum(line.row.record.case.name == operator for line in lines[:index]) % len(style.DASHES)


def _end(chart: Chart, places: Sequence[float]) -> str:
    """Where the axis across ends so that there is room for the labels, in an expression of the page's width."""
    longest = max(len(str(datum["end"] or "")) for datum in chart.data)
    room = AXIS_PIXELS + LETTER * longest
    return f"{places[-1]} * pow({places[-1] / places[0]}, {room} / max({style.PLACE} - {room} - 2 * {AXIS_PIXELS}, 80))"


def _extent(data: Iterable[Mapping[str, Value]], quantity: Quantity) -> tuple[float, float]:
    """From the least to the most that is drawn, in all settings, of which each shows its part."""
    keys = (quantity.key, f"low_{quantity.unit}", f"high_{quantity.unit}", "end_at")
    values = [value for datum in data for key in keys if isinstance(value := datum[key], int | float)]
    return min(values) / 2, max(values) * 2


def _missing(material: Material) -> str:
    """Why nothing is seen to grow, and what to run."""
    if not any(row.measured for row in material.rows):
        return material.to_measure("latency")
    return (
        "This run scans nothing: growth needs one operator measured at three values of its resolution, its channels, "
        "its batch or a parameter, while all else is equal. A suite that does: opbench run suites/resolution.yaml."
    )
