"""How a suite measures and reports: the settings a suite file may change, with their defaults and legal values."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Metric = Literal["counts", "latency", "memory"]
Cache = Literal["cold", "hot"]


class Settings(BaseModel):
    """Frozen, strict, closed: an unknown or ill-typed key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


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
    threads: tuple[Annotated[int, Field(ge=1)] | Literal["physical"], ...] = (1,)
    """Thread counts to measure with; 'physical' is all physical cores."""
    cache: tuple[Cache, ...] = ("cold",)
    """Cold rotates inputs and parameters beyond the last-level cache, hot reuses them."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the operators run."""
    allow_noisy: bool = False
    """Measure although other programs use the machine; the results carry a flag."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the random inputs."""


class Report(Settings):
    """What the report compares and how it is ordered."""

    baseline: str | None = None
    """'operator' or 'operator/implementation' that the ratios refer to."""
    sort_by: Literal["suite", "name", "parameters", "macs", "latency", "memory"] = "suite"
    """Order of the rows; 'suite' is the order they were measured in."""
