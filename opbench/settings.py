"""How a suite measures and reports: the settings a suite file may change, with their defaults and legal values."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

T = TypeVar("T")
Metric = Literal["counts", "latency", "memory"]
Cache = Literal["cold", "hot"]
SortBy = Literal["suite", "name", "parameters", "macs", "latency", "memory"]


def _listed(value: Any) -> tuple[Any, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not values:
        raise ValueError("an empty list names nothing; give at least one value")
    return values


def _without_repeats(values: tuple[Any, ...]) -> tuple[Any, ...]:
    # With its type: True equals 1, but is another value.
    seen = {(type(value), value) for value in values}
    for value in values:
        if (type(value), value) not in seen:
            raise ValueError(f"{value!r} is repeated")
        seen.remove((type(value), value))
    return values


class _Spanning:
    """Lets one value stand for a list of one; an empty list and a repeated value are faults."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        listed = core_schema.no_info_before_validator_function(_listed, handler(source))
        return core_schema.no_info_after_validator_function(_without_repeats, listed)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        array = handler(core)
        return {"anyOf": [array["items"], {**array, "minItems": 1, "uniqueItems": True}]}


Several = Annotated[tuple[T, ...], _Spanning()]
"""One value or a list of them."""


class Settings(BaseModel):
    """Frozen, strict, closed: an unknown or ill-typed key is a fault."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Measure(Settings):
    """How long, how often and under which policy each case is measured."""

    processes: Annotated[int, Field(ge=1, le=100)] = 3
    """Separate processes per case and policy; the value is the median of their medians."""
    precision: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Half-width of the 95 % interval, as a fraction of the median, at which a process may stop sampling."""
    max_seconds: Annotated[float, Field(gt=0)] = 3.0
    """Longest sampling of one process under one policy, in seconds."""
    max_samples: Annotated[int, Field(ge=50)] = 4000
    """Most samples of one process under one policy."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 300.0
    """A process that takes longer than this is killed and its case reported as timed out."""
    threads: Several[Annotated[int, Field(ge=1)] | Literal["physical"]] = (1,)
    """Thread counts to measure with on the CPU; 'physical' is all physical cores."""
    cache: Several[Cache] = ("cold",)
    """Cold rotates inputs and parameters beyond the last-level cache, hot reuses them."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the operators are checked, timed and their memory measured."""
    allow_noisy: bool = False
    """Measure although other programs use the machine; the results carry a flag."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the random inputs."""


class Report(Settings):
    """What the report compares and how it is ordered."""

    baseline: str | None = None
    """'operator', 'operator/implementation' or, of a network, 'network:operator' that the ratios refer to."""
    sort_by: SortBy = "suite"
    """Order of the rows; 'suite' is the order they were measured in."""
    published: bool = False
    """Put what papers print of their networks beside what the same networks count here, in place of other tables."""
