"""What was measured: immutable records with a JSON form. Raw samples are kept, statistics are derived elsewhere."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from opbench.cases import Case, ParamValue
from opbench.plain import finite_json

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Under what conditions a time was taken; two times with different policies are never divided."""

    cache: Literal["cold", "hot"]
    threads: int
    device: str = "cpu"
    launch: Literal["eager", "graph"] = "eager"

    def __str__(self) -> str:
        if self.device != "cpu":
            return f"{self.cache} cache, {self.device}, {self.launch}"  # The host's threads only launch.
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.cache} cache, {threads}, {self.device}, {self.launch}"


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What one process saw under one policy."""

    seconds: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
    """Every sample in the order taken, as seconds per call."""
    calls_per_sample: int
    warmup_samples: int
    """Samples taken and discarded before the first kept one."""
    first_seconds: float
    """First call in the fresh process: compilation, autotuning, first touch."""
    cpu_seconds: float
    """Processor time of the process over all kept samples."""
    wall_seconds: float
    """Wall time over all kept samples."""
    overhead_seconds: float
    """What the timing loop itself costs per call, measured with an empty call."""
    stopped: Literal["precise", "max_samples", "max_seconds"]
    """Why sampling ended."""
    stalled_seconds: float | None = None
    """Time over all kept samples in which some task of the machine waited for a processor; None where not told."""
    host_seconds: tuple[float, ...] = ()
    """On a GPU, what queuing a call took the host, for every kept sample; empty where queuing cannot be told apart."""
    call_seconds: tuple[float, ...] = ()
    """On a GPU, what single calls took a caller who launches on an idle device and waits for the result."""
    voided: Mapping[str, int] = field(default_factory=dict)
    """On a GPU, samples dropped, by cause: 'not held', 'compiled', 'throttled'."""
    despite: tuple[str, ...] = ()
    """On a GPU, causes that never ceased, so that samples were kept all the same."""
    sm_clock_hz: float | None = None
    """On a GPU, the middle of the clocks seen while sampling; None where the driver does not tell."""
    note: str = ""
    """What was not measured, and why."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """All processes of a case under one policy."""

    policy: Policy
    processes: Annotated[tuple[Sampling, ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one pass; a peak is what comes on top of what was there before the phase."""

    source: Literal["tracker", "high_water", "allocator"]
    """'tracker' counts tensor storage exactly, 'high_water' is the process's resident peak, 'allocator' the GPU's."""
    inputs_bytes: int
    parameters_bytes: int
    output_bytes: int
    forward_peak_bytes: int
    saved_bytes: int | None = None
    """Kept for the backward, inputs and parameters excluded; None for the forward pass."""
    backward_peak_bytes: int | None = None
    forward_requested_bytes: int | None = None
    """Of the forward peak, what was asked for before the allocator rounded up; None of sources that do not round."""
    backward_requested_bytes: int | None = None
    repeatable: bool = True
    """Whether three repetitions agreed: to the byte, for the high-water mark within 1 %."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """One counter's answer for the pass of a case."""

    source: Literal["formula", "fvcore", "torch"]
    macs: int | None = None
    """Dense multiply-accumulates; None when this counter has no answer."""
    unknown: tuple[str, ...] = ()
    """Operations the counter could not count; with any, `macs` reads "at least"."""
    note: str = ""
    """Why there is no answer, or what was corrected."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One operation that a pass launches: a bar of a waterline, as wide as its bytes and as high as its intensity."""

    name: str
    """As torch dispatches it: 'aten::convolution'."""
    macs: int
    """Dense multiply-accumulates; an element of a product that is added to a tensor is one."""
    macs_in_bounds: int
    """Of a convolution, or a core that is one operation, without the taps on padding; else the same."""
    bytes: int
    """Each tensor it reads and each it writes once; what it updates in place is both."""
    unknown: bool = False
    """Whether it may multiply and accumulate but has no formula: its 0 MACs read "at least"."""


@dataclass(frozen=True, kw_only=True)
class Launches:
    """What one pass launches with one implementation, on paper. Views and other metadata are no launch."""

    kinds: tuple[Launch, ...]
    """Those that differ, in the order of their first appearance; a reference launches a few of them for each tap."""
    order: tuple[int, ...]
    """Of each launch its kind, from 0, in the order run, the backward's after the forward's."""
    left_out: int = 0
    """Further launches after these, too many to be stored."""

    def __post_init__(self) -> None:
        if self.order and not 0 <= min(self.order) <= max(self.order) < len(self.kinds):
            raise ValueError(f"order names kinds that are not among the {len(self.kinds)}")

    @property
    def in_order(self) -> tuple[Launch, ...]:
        """Every launch that is stored, in the order run."""
        return tuple(self.kinds[index] for index in self.order)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a case costs on paper, in its pass and scope, over the whole batch."""

    parameters: int | None = None
    macs_dense: int | None = None
    macs_in_bounds: int | None = None
    at_least: bool = False
    """Whether the MACs are a lower bound, because no counter knows every operation."""
    compulsory_bytes: int | None = None
    """Each input and parameter read once, each output written once."""
    counters: tuple[Counted, ...] = ()
    agreement: str = ""
    """'agree', or why the counters differ."""
    conventions: Mapping[str, int] = field(default_factory=dict)
    """Of a network's forward, what it counts under the rule of each convention, by the convention's name."""
    launches: Launches | None = None
    """What the implementation launches. None of a network, where it would be thousands; of `compile`, whose compiler
    decides at run time what it launches; and where it is not known, as of code that computes out of torch's sight."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Correct, and measured."""

    timings: tuple[Timing, ...] = ()
    memory: tuple[Memory, ...] = ()
    worst_error: float | None = None
    """Largest share of its error budget that any checked quantity used; 1 would be the whole budget."""
    flags: tuple[str, ...] = ()
    """Reservations: 'unstable', 'imprecise', 'noisy', 'nondeterministic', 'throttled', 'unheld', 'host-bound'."""
    status: Literal["measured"] = "measured"


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """Disagrees with the float64 reference; never timed, or its times thrown away."""

    quantity: str
    error: float | None
    """Relative error; None when the values could not be compared or were not finite."""
    budget: float
    where: str
    status: Literal["wrong"] = "wrong"


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Not attempted, for a stated reason."""

    reason: str
    status: Literal["skipped"] = "skipped"


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Attempted, and it did not survive."""

    reason: str
    status: Literal["failed", "out_of_memory", "timed_out", "crashed"] = "failed"


Outcome = Measured | Wrong | Skipped | Failed


def full_name(name: str, implementation: str) -> str:
    """'involution' for the reference, 'involution/cuda' for other implementations."""
    return name if implementation == "reference" else f"{name}/{implementation}"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One case, one implementation, what came of it."""

    case: Case
    implementation: str
    outcome: Outcome
    params: Mapping[str, ParamValue] = field(default_factory=dict)
    """Every parameter the operator ran with, defaults included."""
    counts: Counts | None = None

    @property
    def status(self) -> str:
        """How it ended, in one word."""
        return self.outcome.status

    @property
    def key(self) -> tuple[str, str]:
        """What makes a record unique within a run."""
        return self.case.id, self.implementation

    @property
    def name(self) -> str:
        """What was measured, and the implementation where it is not the reference."""
        return full_name(self.case.name, self.implementation)

    def to_json(self) -> str:
        """Return one line of JSON; the keys are documented in DESIGN.md and stable within a schema version."""
        case = dataclasses.asdict(self.case)
        return json.dumps(
            {
                "schema": SCHEMA_VERSION,
                "case": self.case.id,
                "operator": case["operator"],
                "shape": list(self.case.shape),
                "dtype": case["dtype"],
                "memory_format": case["memory_format"],
                "pass": case["pass_"],
                "scope": case["scope"],
                "network": case["network"],
                "set_params": dict(self.case.params),
                "params": dict(self.params),
                "implementation": self.implementation,
                "counts": None if self.counts is None else dataclasses.asdict(self.counts),
                **dataclasses.asdict(self.outcome),
            },
            ensure_ascii=False,
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, line: str) -> Record:
        """Read one line; keys this version does not know are ignored.

        Raises:
            ValueError: the line is not a record of a schema this version reads.
        """
        data = finite_json(line)
        if not isinstance(data, dict) or data.get("schema") != SCHEMA_VERSION:
            raise ValueError(f"not a record of schema {SCHEMA_VERSION}")
        case = {**data, "pass_": data.get("pass"), "params": data.get("set_params")}
        return cls(
            case=_CASE.validate_python(case),
            implementation=_TEXT.validate_python(data.get("implementation")),
            outcome=_OUTCOME.validate_python(data),
            params=_PARAMS.validate_python(data.get("params", {})),
            counts=None if data.get("counts") is None else _COUNTS.validate_python(data["counts"]),
        )


_CASE: TypeAdapter[Case] = TypeAdapter(Case)
_TEXT: TypeAdapter[str] = TypeAdapter(str)
_PARAMS: TypeAdapter[dict[str, ParamValue]] = TypeAdapter(dict[str, ParamValue])
_COUNTS: TypeAdapter[Counts] = TypeAdapter(Counts)
_OUTCOME: TypeAdapter[Any] = TypeAdapter(Annotated[Outcome, Field(discriminator="status")])
