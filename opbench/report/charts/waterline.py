"""Waterline: the operations that a row launches, the bytes they move and the arithmetic that is missed meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from opbench import units
from opbench.plain import plain
from opbench.report.charts import roofs, style
from opbench.report.charts.bounds import Roof, works
from opbench.report.charts.material import Material
from opbench.report.charts.model import Chart, Field, Value
from opbench.report.rows import Row
from opbench.results import Launch, Launches

KIND = "waterline"
TITLE = "Waterline"
READING = (
    "A bar is an operation that the row launches, in the order run: as wide as the bytes it moves, as high as the "
    "work it does for each of them, so that its area is its work. At the line the device computes as fast as it "
    "copies. Water stands above a bar that is lower: arithmetic that could be done while the operation waits for "
    "memory. Bars and water together are the least time, if everything is fetched from memory; the bars' share of "
    "them is the efficiency that can be reached at most. Fusing makes bars narrower and higher. A bar far above the "
    "line has a gap, and its height is written in it."
)
MOST_ROWS, MOST_BARS, MOST_BARS_IN_ALL = 100, 40, 1500
"""Rows to choose from; bars of one row before equal ones are drawn as one; bars of all rows."""
_HIGHEST = 3.0
"""How many times as high as the line a bar may be and be drawn whole."""
_FIELDS = (
    Field(key="setting", title="row"),
    Field(key="position", title="no.", unit="count"),
    Field(key="operation", title="operation"),
    Field(key="launches", title="launches", unit="count"),
    Field(key="macs", title="MACs, in bounds", unit="count"),
    Field(key="bytes", title="bytes", unit="bytes"),
    Field(key="start_bytes", title="bytes before", unit="bytes", shown=False),
    Field(key="flops_per_byte", title="intensity", unit="flops_per_byte"),
    Field(key="limit", title="limited by"),
    Field(key="least_seconds", title="least time", unit="seconds"),
    Field(key="share", title="share of the waterline bound", unit="percent"),
    Field(key="balance_flops_per_byte", title="waterline", unit="flops_per_byte", shown=False),
    Field(key="ideal_seconds", title="ideal", unit="seconds", shown=False),
    Field(key="waterline_seconds", title="waterline bound", unit="seconds", shown=False),
    Field(key="highest_efficiency", title="efficiency at most", unit="percent", shown=False),
    Field(key="note", title="note", shown=False),
)
_COLOURS = {
    "limited by arithmetic": style.COLOURS[0],
    "limited by memory": style.COLOURS[1],
    "water": style.COLOURS[4],
}


@dataclass(frozen=True)
class _Sequence:
    """What one row launches, on the device it was timed on."""

    name: str
    row: Row
    launches: Launches
    roof: Roof

    @property
    def highest_efficiency(self) -> float:
        """The share of the arithmetic rate that it can reach."""
        return self.roof.highest_efficiency(works(self.launches))


def chart(material: Material) -> Chart:
    """Make the chart of a run's sequences, one of which is drawn at a time."""
    sequences = _sequences(material)
    if not sequences:
        return Chart(kind=KIND, title=TITLE, reading=READING, missing=_missing(material))
    bars = accumulate(len(_bars(each.launches)) for each in sequences)
    kept = [each for each, so_far in zip(sequences[:MOST_ROWS], bars, strict=False) if so_far <= MOST_BARS_IN_ALL]
    names = tuple(each.name for each in kept)
    return Chart(
        kind=KIND,
        title=TITLE,
        reading=READING,
        finding=_finding(sequences, len(kept))
        + roofs.doubt((each.row for each in sequences), material.run.header.environment.ceilings),
        fields=_FIELDS,
        data=tuple(datum for each in kept for datum in _data(each)),
        settings=names if len(names) > 1 else (),
    )


def draw(chart: Chart) -> dict[str, Any]:
    """Draw bars and water on linear axes, for areas to be what they mean."""
    import altair as alt

    base = (
        alt.Chart(style.data())
        .transform_joinaggregate(tallest="max(flops_per_byte)", groupby=["setting"])
        .transform_calculate(
            line="datum.balance_flops_per_byte",
            left="datum.start_bytes",
            right="datum.start_bytes + datum.bytes",
        )
        .transform_calculate(
            # Where all bars are drawn whole, none is broken.
            top=f"datum.tallest <= {_HIGHEST} * datum.line ? max(datum.tallest, 1.15 * datum.line) : 2 * datum.line",
        )
        .transform_calculate(broken="datum.flops_per_byte > datum.top")
        .transform_calculate(
            height="datum.broken ? 0.9 * datum.top : datum.flops_per_byte",
            kind="'limited by ' + datum.limit",
            short="replace(datum.operation, 'aten::', '') + (datum.launches > 1 ? ' × ' + datum.launches : '')",
        )
        .transform_calculate(
            words="datum.short + (datum.broken ? ': ' + datum.flops_per_byte_text : '')",
            middle="(datum.left + datum.right) / 2",
        )
    )
    x = alt.X(
        "left:Q",
        title="bytes moved, in the order run",
        scale=alt.Scale(nice=False),
        axis=alt.Axis(values=style.BINARY_TICKS, labelExpr=style.BINARY),
    )
    y = alt.Y("low:Q", title="FLOP for each byte", axis=alt.Axis(tickCount=5))
    colour = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=list(_COLOURS), range=list(_COLOURS.values())),
        legend=alt.Legend(title=None, symbolType="square", symbolSize=150, symbolOpacity=0.7),
    )
    told = base.encode(
        x=x,
        x2="right:Q",
        color=colour,
        tooltip=style.tooltips(chart.fields),
    )
    bars = (
        told.transform_calculate(lows="datum.broken ? [0, 0.93 * datum.top] : [0]")
        .transform_calculate(highs="datum.broken ? [datum.height, datum.top] : [datum.height]")
        .transform_flatten(["lows", "highs"], ["low", "high"])
        .mark_rect(opacity=0.7, stroke="currentColor", strokeWidth=0.5, strokeOpacity=0.5)
        .encode(y=y, y2="high:Q")
    )
    water = (
        told.transform_filter("datum.flops_per_byte < datum.line")
        .transform_calculate(low="datum.flops_per_byte", kind="'water'")
        .mark_rect(opacity=0.35, stroke="currentColor", strokeWidth=0.5, strokeOpacity=0.3)
        .encode(y=y, y2="line:Q")
    )
    whole = base.transform_aggregate(
        right="max(right)", line="max(line)", first="argmin(position)", groupby=["setting"]
    ).transform_calculate(left="0")
    line = whole.mark_rule(strokeWidth=2).encode(x=x, x2="right:Q", y="line:Q")
    says = (
        whole.transform_calculate(
            lines="['waterline at ' + datum.first.balance_flops_per_byte_text,"
            " 'at most ' + datum.first.highest_efficiency_text + ' of the arithmetic rate:',"
            " datum.first.waterline_seconds_text + ' instead of ' + datum.first.ideal_seconds_text]"
        )
        .transform_calculate(
            words="split(join(datum.lines, '; ') + (datum.first.note && '; ' + datum.first.note), '; ')"
        )
        .mark_text(align="left", baseline="bottom", lineHeight=15, dy={"expr": "9 - 15 * length(datum.words)"})
        .encode(x=x, y=alt.value(0), text="words:N")
    )
    names = (
        base.transform_joinaggregate(end="max(right)", groupby=["setting"])
        .transform_filter("width * (datum.right - datum.left) / datum.end >= 14")
        .transform_calculate(low="0")
        .mark_text(angle=270, align="left", baseline="middle", dx=5, limit=240)
        .encode(x=alt.X("middle:Q"), y="low:Q", text="words:N")
    )
    drawing = alt.layer(water, bars, line, names, says)
    return style.finished(style.one_setting(drawing, chart.settings), chart.reading, height=260)


def _sequences(material: Material) -> list[_Sequence]:
    """The rows whose launches are known, forward ones first; once where several policies share a device."""
    found: dict[tuple[str, Roof], _Sequence] = {}
    ceilings = material.run.header.environment.ceilings
    for row in sorted(material.rows, key=lambda row: row.record.case.pass_ != "forward"):
        roof, launches = roofs.of_row(row, ceilings), row.record.counts and row.record.counts.launches
        if isinstance(roof, str) or not launches or not launches.order:
            continue
        name = ", ".join(filter(None, [material.label(row), material.setting(row, without=("policy",))]))
        found.setdefault((name, roof), _Sequence(name, row, launches, roof))
    several = Counter(name for name, _ in found)
    return [
        each
        if several[each.name] == 1
        else _Sequence(f"{each.name}, {each.row.policy}", each.row, each.launches, each.roof)
        for each in found.values()
    ]


def _data(sequence: _Sequence) -> list[dict[str, Value]]:
    """A mapping for each bar."""
    launches, roof = sequence.launches, sequence.roof
    work = works(launches)
    whole, ideal = roof.sequence_seconds(work), roof.ideal_seconds(sum(each.macs for each in work))
    together = ["equal operations are one bar, where the first is run"] if len(launches.order) > MOST_BARS else []
    common: dict[str, Value] = {
        "setting": sequence.name,
        "balance_flops_per_byte": roof.balance_flops_per_byte,
        "ideal_seconds": ideal,
        "waterline_seconds": whole,
        "highest_efficiency": sequence.highest_efficiency,
        "note": "; ".join([*roofs.remarks(sequence.row.record.counts), *together]),
    }
    data: list[dict[str, Value]] = []
    moved = 0
    for position, (launch, number) in enumerate(_bars(launches), start=1):
        macs, bytes_ = number * launch.macs_in_bounds, number * launch.bytes
        least = roof.least_seconds(macs, bytes_)
        data.append(
            {
                **common,
                "position": position,
                "operation": plain(launch.name, 60),
                "launches": number,
                "macs": macs,
                "bytes": bytes_,
                "start_bytes": moved,
                "flops_per_byte": 2 * launch.macs_in_bounds / launch.bytes if launch.bytes else None,
                "limit": "memory" if roof.ideal_seconds(macs) < least else "arithmetic",
                "least_seconds": least,
                "share": least / whole if whole else 0.0,
            }
        )
        moved += bytes_
    return data


def _bars(launches: Launches) -> list[tuple[Launch, int]]:
    """Each launch and that it is one; of a long sequence each kind at its first place, and how often it is launched."""
    if len(launches.order) <= MOST_BARS:
        return [(launch, 1) for launch in launches.in_order]
    return [(launches.kinds[kind], number) for kind, number in Counter(launches.order).items()]


def _finding(sequences: Sequence[_Sequence], kept: int) -> str:
    """'What convolution launches can reach at most 57 % of the arithmetic rate, …; of 26 rows, … least, …'."""
    first = sequences[0]
    text = (
        f"What {first.name} launches can reach at most {units.percent(first.highest_efficiency)} of the arithmetic "
        f"rate, with the waterline at {units.significant(first.roof.balance_flops_per_byte)} FLOP/byte"
    )
    if len(sequences) > 1:
        least, most = (choose(sequences, key=lambda each: each.highest_efficiency) for choose in (min, max))
        text += (
            f"; of {len(sequences)} rows, {least.name} can reach least, {units.percent(least.highest_efficiency)}, and "
            f"{most.name} most, {units.percent(most.highest_efficiency)}"
        )
    return f"{text}.{f' The first {kept} rows are here.' if kept < len(sequences) else ''}"


def _missing(material: Material) -> str:
    found = roofs.missing(material)
    if found:
        return found
    if "counts" not in material.run.header.metrics:
        return material.to_measure("counts")
    if all(row.record.case.scope == "network" for row in material.rows):
        return "A waterline is of a core or a layer, and this run has networks alone: a network launches thousands."
    return (
        "No row of this run says which operations it launches; those of a new run do, but for networks and compiled "
        f"code: {material.command}."
    )
