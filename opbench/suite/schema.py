"""The language of a suite file: its keys, their types, their defaults, as models and as JSON Schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, PlainValidator, WithJsonSchema

from opbench.cases import Dtype, MemoryFormat, Nchw, ParamValue, Pass, Scope
from opbench.errors import OpbenchError
from opbench.settings import Measure, Metric, Report, Settings, Several
from opbench.suite.faults import quoted

ALL = "all"
"""Stands for the reference and every implementation that an operator's plugin offers for the device."""

Text = Annotated[str, Field(min_length=1)]


class Pixels(NamedTuple):
    """Height and width of a feature map."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


def _shape(value: object) -> Nchw:
    if not isinstance(value, str):
        raise ValueError(f"must be batch x channels x height x width, as in 32x64x56x56, got {quoted(value)}")
    try:
        shape = Nchw.parse(value)
    except OpbenchError as error:
        raise ValueError(str(error)) from error
    if shape.batch < 1:
        raise ValueError(f"{value!r}: the batch must be at least 1")
    return shape


def _resolution(value: object) -> Pixels:
    sides = value.lower().split("x") if isinstance(value, str) else [str(value)] * 2
    if isinstance(value, bool) or len(sides) != 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise ValueError(f"must be an integer ≥ 1, or height x width as in 56x48, got {quoted(value)}")
    return Pixels(int(sides[0]), int(sides[1]))


Shape = Annotated[
    Nchw, PlainValidator(_shape), WithJsonSchema({"type": "string", "pattern": "^[0-9]+([x×][0-9]+){3}$"})
]
Resolution = Annotated[
    Pixels,
    PlainValidator(_resolution),
    WithJsonSchema({"type": ["integer", "string"], "minimum": 1, "pattern": "^[0-9]+x[0-9]+$"}),
]
Value = Annotated[ParamValue, WithJsonSchema({"type": ["number", "string", "boolean", "null"]})]
Extent = Annotated[int, Field(ge=1)]


class Axes(Settings):
    """What a case entry spans; every list is an axis, and the key written first is the outermost loop."""

    operator: Several[Text] = Field(default_factory=tuple)
    """Operators by the name of their folder; for a network what fills its slots, by default the network's own."""
    network: Several[Text] = Field(default_factory=tuple)
    """Networks by name, as 'resnet-50'; 'opbench networks' lists them. Their input is their paper's by default."""
    implementation: Several[Text] = (ALL,)
    """'reference', 'compile', names the plugins offer, or 'all': the reference and all the plugin offers."""
    shape: Several[Shape] = Field(default_factory=tuple)
    """Layer inputs as batch x channels x height x width, as in 32x64x56x56."""
    batch: Several[Extent] = Field(default_factory=tuple)
    """Images at a time; with channels and resolution, in place of a shape."""
    channels: Several[Extent] = Field(default_factory=tuple)
    """Channels of the input."""
    resolution: Several[Resolution] = Field(default_factory=tuple)
    """Pixels: 56 for a square, or height x width as in 56x48."""
    params: dict[str, Several[Value]] = Field(default_factory=dict)
    """The operators' parameters by name; what is not named has the operator's default."""
    dtype: Several[Dtype] = ("float32",)
    """Precision of inputs and parameters."""
    memory_format: Several[MemoryFormat] = ("contiguous",)
    """Order of the input in memory: contiguous is NCHW, channels_last NHWC."""
    pass_: Several[Pass] = Field(default=("forward",), alias="pass")
    """'forward', or 'training': forward and backward."""
    scope: Several[Scope] = ("layer",)
    """'core' is the operator on plain tensors, 'layer' the trainable module around it, 'network' a backbone with it."""


class Entry(Axes):
    """Cases: every combination of the listed values, less the excluded ones, and the included ones."""

    exclude: tuple[Axes, ...] = ()
    """Drops every combination that has all the named values; a list matches any of its values."""
    include: tuple[Axes, ...] = ()
    """Adds cases; a key it does not name comes from the entry where it has one value there, else from defaults."""


class SuiteFile(Settings):
    """A question about operators, the cases that answer it, and how to measure them."""

    version: Literal[1]
    """Version of this language."""
    title: Text
    """Heading of the report."""
    question: Text
    """What the suite is to find out, in a sentence."""
    defaults: Axes = Axes()
    """What the case entries have in common; an entry's own keys come first, parameters name by name."""
    cases: Annotated[tuple[Entry, ...], Field(json_schema_extra={"minItems": 1})]
    """What is measured, in this order."""
    operators: Several[Text] = Field(default_factory=tuple)
    """Folders of further operators, or of one operator, relative to this file."""
    metrics: Several[Metric] = ("counts", "latency", "memory")
    """What is found out about each case."""
    measure: Measure = Measure()
    """How long, how often and under which policy each case is measured."""
    report: Report = Report()
    """What the report compares and how it is ordered."""


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a suite file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **SuiteFile.model_json_schema()}
