"""Pareto: what has few parameters or few MACs, and what it takes in time and memory all the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from opbench.report.charts import style
from opbench.report.charts.front import NOTHING_KNOWN, Candidate, line, standings
from opbench.report.charts.growth import Reading, latency, peak
from opbench.report.charts.material import Material, ends, is_doubtful
from opbench.report.charts.model import Chart, Field, Unit, Value, text
from opbench.report.charts.names import LETTER, LONGEST, with_room_below
from opbench.report.charts.roofs import absence
from opbench.report.rows import Row
from opbench.report.words import outcome_in_words

KIND = "pareto"
TITLE = "Pareto fronts"
HEIGHT = 320
ZERO_ASIDE = 0.3
"""Where a logarithmic scale shows zero: below the least number above it, by this factor."""
MOST_NAMED = 4


class _Cost(NamedTuple):
    """What is counted, on the axis across."""

    variant: str
    title: str
    key: str
    words: str
    read: Callable[[Row], int | None]


class _Toll(NamedTuple):
    """What is measured, on the axis up."""

    variant: str
    title: str
    key: str
    unit: Unit
    words: str
    without: tuple[str, ...]
    """Keys that it does not depend on."""


def _parameters(row: Row) -> int | None:
    return row.record.counts.parameters if row.record.counts and row.record.case.scope != "core" else None


def _macs(row: Row) -> int | None:
    return row.record.counts.macs_dense if row.record.counts else None


_PARAMETERS = _Cost("parameters", "parameters", "parameters", "parameters", _parameters)
_MACS = _Cost("macs", "MACs", "macs_dense", "dense MACs", _macs)
_LATENCY = _Toll("latency", "Latency", "latency_seconds", "seconds", "latency", ())
_MEMORY = _Toll("memory", "Peak memory", "peak_bytes", "bytes", "peak memory", ("policy",))


_PEAK = " Peak memory is on top of inputs and parameters: the forward's or, if more, the backward's with what is saved."


class _Point(NamedTuple):
    """A row with both of what a chart shows."""

    row: Row
    x: int
    reading: Reading


def charts(material: Material) -> tuple[Chart, ...]:
    """Make a chart of each count against each measurement that the run has."""
    tolls = ((_LATENCY, material.rows, latency), (_MEMORY, material.once, peak(material.rows)))
    made = (
        _chart(material, cost, toll, points, rows)
        for toll, rows, read in tolls
        for cost in (_PARAMETERS, _MACS)
        if (points := _points(rows, cost, read))
    )
    return tuple(made) or (
        Chart(kind=KIND, title=TITLE, reading=_reading(_PARAMETERS, _LATENCY), missing=_missing(material)),
    )


def draw(chart: Chart) -> dict[str, Any]:
    """Draw points and the step line through those that none beats."""
    import altair as alt

    cost = _MACS if chart.facts["cost"] == _MACS.variant else _PARAMETERS
    toll = _MEMORY if chart.facts["toll"] == _MEMORY.variant else _LATENCY
    timed = toll is _LATENCY
    look = style.by_operator(chart.operators, [str(datum["operator"]) for datum in chart.data])
    base = alt.Chart(style.data()).encode(
        x=alt.X(
            "place:Q",
            title=cost.words,
            scale=alt.Scale(type="log", nice=False, padding=24),
            axis=alt.Axis(values=_ticks(chart, cost.key), labelExpr=style.COUNTS, labelBound=True, grid=False),
        ),
        y=alt.Y(
            f"{toll.key}:Q",
            title="time of a call" if timed else toll.words,
            scale=alt.Scale(type="log", base=10 if timed else 2, nice=False, zero=False, padding=28),
            axis=(
                alt.Axis(values=_ticks(chart, toll.key), labelExpr=style.SECONDS)
                if timed
                else alt.Axis(labelExpr=style.BINARY, tickCount=5)
            ),
        ),
        tooltip=[
            alt.Tooltip("label:N", title="operator"),
            alt.Tooltip(f"{cost.key}_text:N", title=cost.words),
            alt.Tooltip(f"{toll.key}_text:N", title=toll.words),
            alt.Tooltip(f"low_{toll.unit}_text:N", title="95 % from"),
            alt.Tooltip(f"high_{toll.unit}_text:N", title="to"),
            alt.Tooltip("front:N", title="on the front"),
            alt.Tooltip("note:N"),
        ],
    )
    steps = (
        base.transform_filter("datum.line === 'on it'")
        .mark_line(interpolate="step-after", stroke="currentColor", strokeWidth=1.5, opacity=0.6)
        .encode(order="place:Q")
    )
    intervals = base.mark_rule(strokeWidth=1.5).encode(y=f"low_{toll.unit}:Q", y2=f"high_{toll.unit}:Q")
    beaten = base.transform_filter("datum.front === 'off'")
    others = base.transform_filter("datum.front !== 'off'")
    points = (*style.points(beaten, look, opacity=0.65), *style.points(others, look))
    # No point lies to the left of and below one of the front, so that is the place for its name.
    fits = f"scale('x', datum.place) > {LETTER} * length(datum.name)"
    names = base.transform_filter("datum.name !== ''").mark_text(
        dy=13,
        limit=alt.expr(f"{fits} ? {LONGEST} : min({LONGEST}, width - scale('x', datum.place))"),
        align=alt.expr(f"{fits} ? 'right' : 'left'"),
    )
    bounds = base.transform_filter("datum.bound === '≥'").mark_point(
        shape="triangle-right", fill="currentColor", stroke=None, xOffset=13, size=45, opacity=1
    )
    zeros = base.transform_filter(f"datum.{cost.key} === 0").mark_text(text="0", dy=13).encode(y=alt.value("height"))
    room = style.room(base, "place", toll.key)
    drawing = alt.layer(room, steps, intervals, *points, names.encode(text="name:N"), bounds, zeros)
    return style.finished(style.one_setting(drawing, chart.settings), chart.reading, height=HEIGHT)


def _ticks(chart: Chart, key: str) -> list[float]:
    """Ticks from the least number above zero to the most, in all settings, and somewhat farther up; the only number."""
    values = [value for datum in chart.data if isinstance(value := datum[key], int | float) and value > 0]
    if len(set(values)) == 1:
        return values[:1]
    farther_down = 1 if len(values) < len(chart.data) else 10
    return style.decimal_ticks(min(values) / farther_down, max(values) * 10, style.MOST_TICKS_OF_ALL) if values else []


def _points(rows: Iterable[Row], cost: _Cost, read: Callable[[Row], Reading | None]) -> list[_Point]:
    return [
        _Point(row, x, reading)
        for row in rows
        if row.measured and (x := cost.read(row)) is not None and (reading := read(row)) is not None
    ]


def _chart(material: Material, cost: _Cost, toll: _Toll, points: Sequence[_Point], rows: Sequence[Row]) -> Chart:
    in_settings: dict[str, list[_Point]] = {}
    for point in sorted(points, key=lambda point: point.row.record.case.pass_ != "forward"):
        in_settings.setdefault(material.setting(point.row, toll.without), []).append(point)
    zero = min((point.x for point in points if point.x), default=1) * ZERO_ASIDE
    data = [
        datum for setting, group in in_settings.items() for datum in _data(material, cost, toll, setting, group, zero)
    ]
    drawn = {id(point.row) for point in points}
    reasons = (_reason(row, cost, toll) for row in rows if id(row) not in drawn)
    return Chart(
        kind=KIND,
        variant=f"{cost.variant}-{toll.variant}",
        title=f"{toll.title} against {cost.title}",
        reading=_reading(cost, toll),
        finding=_finding(cost, toll, data) + absence(reasons),
        fields=_fields(cost, toll),
        data=tuple(data),
        settings=tuple(in_settings) if len(in_settings) > 1 else (),
        facts={"cost": cost.variant, "toll": toll.variant},
    )


def _reason(row: Row, cost: _Cost, toll: _Toll) -> str:
    """Why a row has no point."""
    if not row.measured:
        return outcome_in_words(row.record.outcome)
    return f"no {cost.words if cost.read(row) is None else toll.words}"


def _reading(cost: _Cost, toll: _Toll) -> str:
    less = "faster" if toll is _LATENCY else "smaller"
    what = "" if toll is _LATENCY else _PEAK
    return (
        f"Left has fewer {cost.words}, low is {less}; both axes are logarithmic. The line is the Pareto front of the "
        f"medians: the points that no other beats in both. Pale is what another certainly beats, having no more "
        f"{cost.words} and an interval that lies wholly below; a name after ? may be beaten, its interval does not "
        f"tell. Hollow points are references; an arrow marks counts that are lower bounds.{what}"
    )


def _fields(cost: _Cost, toll: _Toll) -> tuple[Field, ...]:
    return (
        Field(key="setting", title="setting"),
        Field(key="label", title="operator"),
        Field(key="operator", title="operator", shown=False),
        Field(key="implementation", title="implementation", shown=False),
        Field(key="bound", title=""),
        Field(key=cost.key, title=cost.words, unit="count"),
        Field(key=toll.key, title=toll.words, unit=toll.unit),
        Field(key=f"low_{toll.unit}", title="95 % from", unit=toll.unit),
        Field(key=f"high_{toll.unit}", title="to", unit=toll.unit),
        Field(key="front", title="on the front"),
        Field(key="line", title="on the front of the medians", shown=False),
        Field(key="place", title="place", shown=False),
        Field(key="name", title="name", shown=False),
        Field(key="note", title="note"),
    )


def _data(
    material: Material, cost: _Cost, toll: _Toll, setting: str, points: Sequence[_Point], zero: float
) -> list[dict[str, Value]]:
    candidates = [_candidate(point, cost, toll) for point in points]
    on_line, labels = line(candidates), [material.label(point.row) for point in points]
    found = standings(candidates)
    places = [(point.x or zero, point.reading[0]) for point in points]
    names = [f"? {label}" if standing == "perhaps" else label for label, standing in zip(labels, found, strict=True)]
    named = with_room_below(places, [name if on else "" for name, on in zip(names, on_line, strict=True)])
    return [
        {
            "setting": setting,
            "label": label,
            "operator": point.row.record.case.name,
            "implementation": point.row.record.implementation,
            "bound": "≥" if candidate.x_high > candidate.x else "",
            cost.key: point.x,
            **_readings(toll, point.reading),
            "front": standing,
            "line": "on it" if on else "",
            "place": place,
            "name": name,
            "note": outcome_in_words(point.row.record.outcome),
        }
        for point, candidate, label, standing, on, (place, _), name in zip(
            points, candidates, labels, found, on_line, places, named, strict=True
        )
    ]


def _candidate(point: _Point, cost: _Cost, toll: _Toll) -> Candidate:
    value, low, high = point.reading
    if toll is _LATENCY and is_doubtful(point.row):
        low, high = NOTHING_KNOWN
    counts = point.row.record.counts
    at_least = cost is _MACS and counts is not None and counts.at_least
    return Candidate(
        x=point.x,
        x_high=math.inf if at_least else point.x,
        y=value,
        low=low,
        high=high,
        source=point.row.record.case.id,
    )


def _readings(toll: _Toll, reading: Reading) -> dict[str, Value]:
    low, high = ends(*reading[1:])
    return {toll.key: reading[0], f"low_{toll.unit}": low, f"high_{toll.unit}": high}


def _finding(cost: _Cost, toll: _Toll, data: Sequence[Mapping[str, Value]]) -> str:
    """'Forward: the front of 13 points is involution/cuda (4.39 k, 1.33 ms), …; of 2 more …', for the first setting."""
    setting = data[0]["setting"]
    here = [datum for datum in data if datum["setting"] == setting]
    front = sorted((datum for datum in here if datum["line"]), key=lambda datum: float(str(datum["place"])))
    told = [
        f"{datum['label']} ({datum['bound']}{' ' if datum['bound'] else ''}{text(datum[cost.key], 'count')}, "
        f"{text(datum[toll.key], toll.unit)})"
        for datum in front
    ]
    others = f" and {len(told) - MOST_NAMED} more" if len(told) > MOST_NAMED else ""
    undecided = sum(datum["front"] == "perhaps" for datum in here)
    doubt = f"; of {undecided} the intervals do not tell whether they are on it" if undecided else ""
    head = f"{setting}: the" if setting else "The"
    sentence = f"{head} front of {len(here)} is {', '.join(told[:MOST_NAMED])}{others}{doubt}."
    return f"{sentence[0].upper()}{sentence[1:]}"


def _missing(material: Material) -> str:
    """Why no row has both a count and a measurement, and what to run."""
    if not any(row.measured for row in material.rows) or not any(row.latency or row.memory() for row in material.rows):
        return material.to_measure("latency")
    return material.to_measure("counts")
