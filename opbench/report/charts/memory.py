"""Memory: what each row holds when its forward holds most, in parts, and what its backward needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opbench import units
from opbench.report.charts import crowding, roofs, style
from opbench.report.charts.material import Material
from opbench.report.charts.model import Chart, Field, Value, number
from opbench.report.columns import memory_source
from opbench.report.rows import SOURCES, Row
from opbench.report.words import outcome_in_words
from opbench.results import Memory

KIND = "memory"
TITLE = "Memory"
READING = (
    "A bar is what was held when the forward held most: its inputs and parameters, and on top of them the measured "
    "peak. The peak is split into the output, in training what is saved for the backward, and workspace, which is "
    "given back; an output that is saved, too, hides as much workspace. In training, the tick is what was held, at "
    "most, when the backward held most: what the forward left, the incoming gradient and the backward's measured "
    "peak."
)
_PARTS = {
    "inputs_bytes": "inputs",
    "parameters_bytes": "parameters",
    "output_bytes": "output",
    "saved_bytes": "saved for backward",
    "workspace_bytes": "workspace",
}
# Neighbours differ in lightness too.
_COLOURS = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#B0B0B0")
_FIELDS = (
    Field(key="setting", title="setting"),
    Field(key="label", title="operator"),
    Field(key="operator", title="operator", shown=False),
    *(Field(key=key, title=title, unit="bytes") for key, title in _PARTS.items()),
    Field(key="total_bytes", title="held at the forward's peak", unit="bytes"),
    Field(key="backward_bytes", title="held at the backward's peak, at most", unit="bytes"),
    Field(key="forward_peak_bytes", title="forward peak", unit="bytes", shown=False),
    Field(key="backward_peak_bytes", title="backward peak", unit="bytes", shown=False),
    Field(key="source", title="read from"),
    Field(key="note", title="note"),
)


def chart(material: Material) -> Chart:
    """Make the chart of a run's memory; a row of several policies counts once, since memory depends on none."""
    rows = material.once
    read = [row for row in rows if row.memory()]
    if not read:
        return Chart(kind=KIND, title=TITLE, reading=READING, missing=material.to_measure("memory"))
    settings = material.settings(read, without=("policy",))
    known = set(settings) or {material.setting(read[0], without=("policy",))}
    source = memory_source(rows)
    data = tuple(_datum(material, row, source) for row in rows if material.setting(row, without=("policy",)) in known)
    return Chart(
        kind=KIND,
        title=TITLE,
        reading=READING,
        finding=_finding(data, next(iter(settings), "")) + crowding.remark(data),
        fields=_FIELDS,
        data=data,
        settings=settings,
    )


def draw(chart: Chart) -> dict[str, Any]:
    """Draw bars of parts, the least on top, and the backward's ticks; what has no memory says why in its place."""
    import altair as alt

    base = alt.Chart(style.data()).encode(
        y=alt.Y("label:N", sort=alt.EncodingSortField("order_", op="min"), title=None, axis=style.names()),
        tooltip=style.tooltips(chart.fields),
    )
    x = alt.X(
        "left:Q",
        title="bytes held",
        scale=alt.Scale(nice=False),
        axis=alt.Axis(values=style.BINARY_TICKS, labelExpr=style.BINARY),
    )
    parts = (
        base.transform_calculate(index=str(list(range(len(_PARTS)))), parts=str(list(_PARTS.values())))
        .transform_calculate(sizes=f"[{', '.join(f'datum.{key} || 0' for key in _PARTS)}]")
        .transform_calculate(
            starts="[0, datum.sizes[0], datum.sizes[0] + datum.sizes[1],"
            " datum.sizes[0] + datum.sizes[1] + datum.sizes[2],"
            " datum.sizes[0] + datum.sizes[1] + datum.sizes[2] + datum.sizes[3]]"
        )
        .transform_flatten(["parts", "sizes", "starts"], ["part", "size", "start"])
        .transform_filter("datum.size > 0")
        .transform_calculate(left="datum.start", right="datum.start + datum.size")
        .mark_bar(height={"band": 0.7}, stroke="currentColor", strokeWidth=0.5, strokeOpacity=0.6)
        .encode(
            x=x,
            x2="right:Q",
            color=alt.Color(
                "part:N",
                scale=alt.Scale(domain=list(_PARTS.values()), range=list(_COLOURS)),
                legend=alt.Legend(title=None, symbolType="square", symbolSize=150, values=_seen(chart)),
            ),
        )
    )
    aside = f"isValid(datum.backward_bytes) && !{style.NARROW} ? '; backward ' + datum.backward_bytes_text : ''"
    words_beside = f"(datum.total_bytes_text || '') + ({aside})"
    totals = (
        base.transform_filter("isValid(datum.total_bytes)")
        .transform_calculate(edge="max(datum.total_bytes, datum.backward_bytes || 0)")
        .transform_calculate(words=words_beside)
        .mark_text(align="left", dx=6)
        .encode(x="edge:Q", text="words:N")
    )
    backward = (
        base.transform_filter("isValid(datum.backward_bytes)")
        .transform_calculate(left="datum.backward_bytes")
        .mark_tick(color="currentColor", opacity=1, thickness=3, height={"band": 0.8})
        .encode(x=x)
    )
    # Nothing is seen of it: it keeps room for the words beside the longest bar.
    room = (
        base.transform_calculate(edge="max(datum.total_bytes || 0, datum.backward_bytes || 0)")
        .transform_calculate(words=words_beside)
        .transform_calculate(left=style.beyond("datum.edge", "datum.words"))
        .mark_point(opacity=0)
        .encode(x=x)
    )
    words = (
        base.transform_filter("!isValid(datum.total_bytes)")
        .transform_calculate(left="0")
        .mark_text(align="left", dx=6, limit=400)
        .encode(x=x, text="note:N")
    )
    drawing = crowding.first_bars(alt.layer(parts, backward, totals, words, room), "total_bytes")
    return style.finished(style.one_setting(drawing, chart.settings), chart.reading)


def _seen(chart: Chart) -> list[str]:
    """The parts that some row has."""
    return [title for key, title in _PARTS.items() if any(datum[key] for datum in chart.data)]


def _datum(material: Material, row: Row, source: str | None) -> dict[str, Value]:
    datum: dict[str, Value] = {
        **dict.fromkeys(field.key for field in _FIELDS),
        "setting": material.setting(row, without=("policy",)),
        "label": material.label(row),
        "operator": row.record.case.name,
        "note": outcome_in_words(row.record.outcome),
    }
    memory = row.memory(source) or row.memory()
    if memory is None:
        return {**datum, "note": datum["note"] or "its memory is not known"}
    notes = [
        "" if memory.source == source else f"read from the {SOURCES[memory.source]}, so not to be compared",
        "" if memory.repeatable else "three repetitions did not agree",
    ]
    return {
        **datum,
        **_parts(memory),
        "total_bytes": memory.inputs_bytes + memory.parameters_bytes + memory.forward_peak_bytes,
        "backward_bytes": _backward(memory),
        "forward_peak_bytes": memory.forward_peak_bytes,
        "backward_peak_bytes": memory.backward_peak_bytes,
        "source": SOURCES[memory.source],
        "note": "; ".join(filter(None, notes)),
    }


def _parts(memory: Memory) -> dict[str, Value]:
    """What a bar is made of: in all never more than inputs, parameters and peak."""
    output = min(memory.output_bytes, memory.forward_peak_bytes)
    saved = None if memory.saved_bytes is None else min(memory.saved_bytes, memory.forward_peak_bytes - output)
    return {
        "inputs_bytes": memory.inputs_bytes,
        "parameters_bytes": memory.parameters_bytes,
        "output_bytes": output,
        "saved_bytes": saved,
        "workspace_bytes": memory.forward_peak_bytes - output - (saved or 0),
    }


def _backward(memory: Memory) -> int | None:
    """All that was there when the backward began, and its peak on top. At most: an output may be saved as well."""
    if memory.backward_peak_bytes is None or memory.saved_bytes is None:
        return None
    there = memory.inputs_bytes + memory.parameters_bytes + memory.output_bytes + memory.saved_bytes
    incoming_gradient = memory.output_bytes
    return there + incoming_gradient + memory.backward_peak_bytes


def _finding(data: Sequence[Mapping[str, Value]], setting: str) -> str:
    """'Forward: from 549 KiB (convolution/native) to 4.95 MiB (sasa), of which 4.37 MiB workspace.'"""
    here = [datum for datum in data if datum["setting"] == (setting or datum["setting"]) and datum["total_bytes"]]
    least, most = (choose(here, key=lambda datum: number(datum, "total_bytes")) for choose in (min, max))
    text = f"{f'{setting}: ' if setting else ''}from {units.bytes_(number(least, 'total_bytes'))} ({least['label']})"
    if least is not most:
        text += f" to {units.bytes_(number(most, 'total_bytes'))} ({most['label']})"
    text += f", of which {units.bytes_(number(most, 'workspace_bytes'))} workspace"
    sources = list(dict.fromkeys(str(datum["source"]) for datum in data if datum["source"]))
    absent = [str(datum["note"]) for datum in data if datum["total_bytes"] is None]
    return f"{text[0].upper()}{text[1:]}. Read from the {' and the '.join(sources)}.{roofs.absence(absent)}"
