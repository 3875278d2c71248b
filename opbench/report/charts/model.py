"""A chart before it is drawn: what it shows, as numbers in SI units, and how to read it. Draws nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from opbench import units
from opbench.report.model import Cell, Column, Table
from opbench.report.words import NONE

Unit = Literal[
    "",
    "seconds",
    "bytes",
    "count",
    "ratio",
    "percent",
    "number",
    "bytes_per_second",
    "macs_per_second",
    "flops_per_byte",
]
"""How a number is printed; '' is text, or a number as it is."""

Value = str | float | int | None
"""None where there is no value; never a string in a number's place."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """One column of a chart's data."""

    key: str
    """Its name in the data's CSV, with the unit: 'latency_seconds'."""
    title: str
    unit: Unit = ""
    shown: bool = True
    """Whether the plain table below the chart shows it; the CSV always does."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart of one run, or in its place the words that say what to run."""

    kind: str
    """Which drawing it is: 'latency', 'roofline', …"""
    variant: str = ""
    """Which of a page's charts of that kind, where there may be several: 'macs-memory'."""
    title: str
    reading: str
    """How to read it, in a sentence or two: also what a screen reader says."""
    finding: str = ""
    """What it shows, in a sentence with numbers."""
    fields: tuple[Field, ...] = ()
    data: tuple[Mapping[str, Value], ...] = ()
    """A mapping of every field's key for each mark, or part of one."""
    settings: tuple[str, ...] = ()
    """Values of the field 'setting', of which one is drawn at a time; the first is drawn first. Empty: all at once."""
    facts: Mapping[str, Value] = field(default_factory=dict)
    """What the drawing needs besides: ceilings, the name of a baseline."""
    operators: tuple[str, ...] = ()
    """All operators of the run, shown here or not, so that each has the same look in all charts."""
    missing: str = ""
    """In place of data: why there are none, and what to run."""

    @property
    def name(self) -> str:
        """A name that no other chart of the page has: 'latency', 'pareto-macs-memory'."""
        return "-".join(filter(None, [self.kind, self.variant]))


def table(chart: Chart) -> Table:
    """The numbers of a chart as ready strings."""
    shown = [each for each in chart.fields if each.shown]
    return Table(
        title=chart.title,
        columns=tuple(Column(key=each.key, title=each.title, numeric=bool(each.unit), rank=0) for each in shown),
        rows=tuple(tuple(Cell(text=text(datum[each.key], each.unit)) for each in shown) for datum in chart.data),
    )


def told(chart: Chart) -> list[dict[str, Value]]:
    """The data as drawings take them: beside each number with a unit, under its key and '_text', how people read it."""
    united = [each for each in chart.fields if each.unit]
    return [
        {key: own(value) if isinstance(value, str) else value for key, value in datum.items()}
        | {f"{each.key}_text": text(datum[each.key], each.unit) for each in united}
        for datum in chart.data
    ]


_INHERITED = frozenset(
    (
        *("constructor", "toString", "toLocaleString", "valueOf", "hasOwnProperty", "isPrototypeOf"),
        *("propertyIsEnumerable", "__proto__", "__defineGetter__", "__defineSetter__"),
        *("__lookupGetter__", "__lookupSetter__"),
    )
)
"""What every object of JavaScript has under these names: Vega keeps groups in objects by their names."""


def own(name: str) -> str:
    """A name that is not among them: to be compared with what `told` tells, and to stand in a specification."""
    return f"{name}\u200b" if name in _INHERITED else name


def number(datum: Mapping[str, Value], key: str) -> float:
    """One of a chart's numbers, for arithmetic; 0 where there is none."""
    value = datum[key]
    return float(value) if isinstance(value, int | float) else 0.0


def text(value: Value, unit: Unit) -> str:
    """A value as people read it."""
    if value is None or value == "":
        return NONE
    return _PRINTED[unit](value) if unit and not isinstance(value, str) else str(value)


_PRINTED: Mapping[str, Callable[[float], str]] = {
    "seconds": units.seconds,
    "bytes": units.bytes_,
    "count": units.count,
    "ratio": units.ratio,
    "percent": units.percent,
    "number": units.significant,
    "bytes_per_second": units.bytes_per_second,
    "macs_per_second": units.macs_per_second,
    "flops_per_byte": lambda value: f"{units.significant(value)} FLOP/byte",
}
