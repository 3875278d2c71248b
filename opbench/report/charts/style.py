"""How charts look: colours that colour-blind readers tell apart, never colour alone, one look for light and dark.

Text and lines take the page's colour (`currentColor`), so that a drawing fits either theme without being drawn again.
The colours are those of Okabe and Ito ("Color Universal Design", 2008), yellow and black replaced by tones that stand
out from a white page as from a black one. An operator has one colour, one shape and one dash in all charts of a run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opbench.report.charts.model import Field, own
from opbench.report.charts.names import LETTER

if TYPE_CHECKING:
    import altair as alt

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#A08A00", "#808080")
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "triangle-right", "triangle-left")
DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3), (12, 4), (4, 4), (2, 4), (10, 2, 2, 2, 2, 2))
DATA = "data"
"""Name of a drawing's data, which whoever renders it puts in."""
SETTING = "setting"
"""Name of the parameter that says which setting is drawn."""

ROOM = 1.15
"""How much farther than its points a logarithmic axis goes at least, as a factor."""

SECONDS = "format(datum.value, '~s') + 's'"
BINARY_TICKS = {"expr": "sequence(0, 1.001 * domain('x')[1], pow(2, ceil(log(domain('x')[1] / 5) / LN2)))"}
"""Places for the ticks of an axis of bytes across, from zero: up to five steps of a power of two."""
COUNTS = "format(datum.value, '~s')"
BINARY = (
    " : ".join(
        f"datum.value >= {1 << power} ? format(datum.value / {1 << power}, '~r') + ' {unit}'"
        for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB"))
    )
    + " : datum.value + ' B'"
)
MOST_TICKS, MOST_TICKS_OF_ALL = 9, 24
"""On the axis of one setting, and on one that is as long as all settings take and of which each shows a part."""

PLACE = "(containerSize()[0] || 640)"
"""Width of the drawing's place in pixels: that of the plot changes while the legend is laid out."""
NARROW = f"({PLACE} < 480)"


def on_narrow_pages(narrow: float, wide: float) -> dict[str, str]:
    """A number that is another on a narrow page."""
    return {"expr": f"{NARROW} ? {narrow} : {wide}"}


def beyond(edge: str, words: str) -> str:
    """Where an axis must end for some words to have room beside the end of a bar, as an expression."""
    return f"{edge} / max(0.35, 1 - (16 + {LETTER} * length({words})) / max(width, 1))"


def columns(wide: int) -> dict[str, str]:
    """Columns of a legend: so many, or one on a narrow page."""
    return on_narrow_pages(1, wide)


def names(**changes: Any) -> alt.Axis:
    """An axis of names, which on a narrow page writes in a second line what follows the operator."""
    import altair as alt

    in_two = r"split(replace(datum.label, regexp('^([^ /]+)([ /].+)$'), '$1\n$2'), '\n')"
    return alt.Axis(
        labelExpr=f"{NARROW} ? {in_two} : datum.label",
        labelFontSize=on_narrow_pages(10.5, 12),
        labelLineHeight=10,
        labelLimit=on_narrow_pages(130, 280),
        labelOffset=on_narrow_pages(-3, 0),
        **changes,
    )


CONFIG: dict[str, Any] = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "domainColor": "currentColor",
        "tickColor": "currentColor",
        "gridColor": "currentColor",
        "gridOpacity": 0.15,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "legend": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "orient": "bottom",
        "columns": columns(3),
        "labelLimit": 260,
    },
    "header": {"labelColor": "currentColor", "titleColor": "currentColor", "labelFontSize": 12},
    "text": {"fill": "currentColor", "fontSize": 12},
    "rule": {"stroke": "currentColor"},
    "title": {"color": "currentColor"},
    "tick": {"thickness": 2},
}


def data() -> alt.Data:
    """The chart's data, by name."""
    import altair as alt

    return alt.NamedData(name=DATA)


def one_setting(drawing: Any, settings: Sequence[str]) -> Any:
    """The drawing of one setting at a time: the parameter `setting` says which. Unchanged where there is but one."""
    import altair as alt

    if not settings:
        return drawing
    chosen = alt.param(name=SETTING, value=settings[0])
    return drawing.add_params(chosen).transform_filter(f"datum.setting === {SETTING}")


def by_operator(operators: Sequence[str], shown: Sequence[str] | None = None) -> dict[str, Any]:
    """Encodings that give each operator its colour and its shape, with one legend for both.

    Args:
        operators: all that have a look of their own, in the order in which looks are given.
        shown: those that the legend names; all where it is not said.
    """
    import altair as alt

    seen = list(map(own, operators if shown is None else shown))
    names = list(dict.fromkeys([*map(own, operators), *seen]))
    legend = alt.Legend(title=None, symbolOpacity=1, values=[name for name in names if name in seen])
    return {
        "color": alt.Color(
            "operator:N", scale=alt.Scale(domain=names, range=_cycled(COLOURS, len(names))), legend=legend
        ),
        "shape": alt.Shape(
            "operator:N", scale=alt.Scale(domain=names, range=_shifted(SHAPES, len(names))), legend=legend
        ),
    }


def points(base: Any, look: Mapping[str, Any], opacity: float = 1) -> tuple[Any, Any]:
    """Points of which the colour and the shape tell the operator: hollow ones are references, filled ones are not."""
    hollow = base.transform_filter("datum.implementation === 'reference'")
    filled = base.transform_filter("datum.implementation !== 'reference'")
    return (
        hollow.mark_point(filled=False, opacity=opacity, strokeWidth=2, size=40).encode(**look),
        filled.mark_point(filled=True, opacity=opacity, size=55).encode(**look),
    )


def room(base: Any, across: str, up: str) -> Any:
    """A layer of which nothing is seen: without it, logarithmic axes of equal points have no length."""
    corners = f"[[datum.{across} / {ROOM}, datum.{up} / {ROOM}], [datum.{across} * {ROOM}, datum.{up} * {ROOM}]]"
    return (
        base.transform_calculate(corners_=corners)
        .transform_flatten(["corners_"], ["corner_"])
        .transform_calculate(**{across: "datum.corner_[0]", up: "datum.corner_[1]"})
        .mark_point(opacity=0)
    )


def tooltips(fields: Sequence[Field]) -> list[alt.Tooltip]:
    """What a mark says when it is pointed at: the same as its row in the plain table, but for the setting."""
    import altair as alt

    return [
        alt.Tooltip(f"{field.key}_text:N" if field.unit else f"{field.key}:N", title=field.title)
        for field in fields
        if field.shown and field.key != SETTING
    ]


def finished(drawing: Any, description: str, height: int | None = None) -> dict[str, Any]:
    """The specification as a dictionary: as wide as its place, with the look of all charts."""
    properties: dict[str, Any] = {"width": "container", "description": description}
    if height is not None:
        properties["height"] = height
    specification: dict[str, Any] = drawing.properties(**properties).to_dict()
    # Of its own, altair would set a theme.
    return {**specification, "config": CONFIG}


def decimal_ticks(low: float, high: float, most: int = MOST_TICKS) -> list[float]:
    """Places for the ticks of a logarithmic axis: at 1, 2 and 5 times powers of ten, or farther apart."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found: list[float] = []
    for factors, step in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3)):
        powers = (power for power in range(first, last + 1) if power % step == 0)
        found = [value for power in powers for factor in factors if low <= (value := factor * 10.0**power) <= high]
        if len(found) <= most:
            break
    return found


def binary_ticks(low: float, high: float, most: int = MOST_TICKS) -> list[float]:
    """Places for the ticks of a logarithmic axis of bytes: at powers of two, or farther apart."""
    first, last = math.ceil(math.log2(low)), math.floor(math.log2(high))
    # Of each ten powers, KiB, MiB and GiB begin one.
    step = next((step for step in (1, 2, 5) if (last - first) / step < most), 10)
    return [2.0**power for power in range(first, last + 1) if power % step == 0]


def embedded(specification: Mapping[str, Any], values: Sequence[Mapping[str, Any]], width: int = 640) -> dict[str, Any]:
    """The specification with its data inside and a width of its own, for a picture."""
    return {**specification, "datasets": {DATA: list(values)}, "width": width}


def _cycled(values: Sequence[Any], number: int) -> list[Any]:
    return [values[index % len(values)] for index in range(number)]


def _shifted(values: Sequence[Any], number: int) -> list[Any]:
    """Like `_cycled`, but one further in each round: who has another's colour has not its shape too."""
    return [values[(index + index // len(values)) % len(values)] for index in range(number)]
