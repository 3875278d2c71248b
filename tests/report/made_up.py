"""Made-up runs: plausible numbers that nobody measured, for tests of what is done with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from opbench.cases import Case, Nchw, ParamValue, Pass, Scope
from opbench.environment import Environment, Gpu
from opbench.results import (
    Counted,
    Counts,
    Failed,
    Measured,
    Memory,
    Outcome,
    Policy,
    Record,
    Sampling,
    Skipped,
    Timing,
    Wrong,
)
from opbench.settings import Measure, Report
from opbench.store import Header, Run

COLD = Policy(cache="cold", threads=1)
HOT = Policy(cache="hot", threads=1)
ON_GPU = Policy(cache="cold", threads=1, device="cuda")
AS_GRAPH = Policy(cache="cold", threads=1, device="cuda", launch="graph")
MEASURE = Measure()
SHAPE = Nchw(8, 64, 56, 56)

ENVIRONMENT = Environment(
    captured="2031-02-03T04:05:06+00:00",
    host="nowhere",
    system="Linux-0.0-made-up",
    python="3.12.0",
    processor="Imaginary Processor 9000",
    physical_cores=4,
    logical_cores=8,
    usable_cores=8,
    capability="AVX512",
    caches={"L1 data": 32 << 10, "L2": 1 << 20, "L3": 16 << 20},
    memory_bytes=16 << 30,
    clock_mhz=3000.0,
    governor=None,
    smt=True,
    load=0.25,
    pressure=0.01,
    noise=None,
    driver=None,
    versions={"opbench": "0.1.0", "torch": "2.13.0"},
    settings={"oneDNN": "True"},
    variables={"OMP_NUM_THREADS": "1"},
    commit="0123456789ab",
    command=("opbench", "run", "suites/made up.yaml"),
)


def timing(seconds: float, policy: Policy = COLD, spread: float = 0.002, processes: int = 3) -> Timing:
    """Processes whose medians lie `spread` apart around the given time, with a clock of fine steps."""
    middles = [seconds * (1 + spread * (index - processes // 2)) for index in range(processes)]
    return Timing(policy=policy, processes=tuple(map(_sampling, middles)))


def _sampling(seconds: float) -> Sampling:
    samples = tuple(seconds * (1 + 1e-4 * step) for step in (3, -2, 0, 5, -5, 2, -3))
    return Sampling(
        seconds=samples,
        calls_per_sample=10,
        warmup_samples=20,
        first_seconds=2 * seconds,
        cpu_seconds=10 * sum(samples),
        wall_seconds=10 * sum(samples),
        overhead_seconds=1e-7,
        stopped="precise",
    )


def on_gpu(seconds: float, host: float | None = None, **changes: Any) -> Timing:
    """Launched calls of a GPU, which the host takes so long to launch; what is changed is so in every process."""
    launched = timing(seconds, ON_GPU)
    # Of a call that cannot be held, nobody knows what launching it takes.
    facts = {
        "call_seconds": (seconds + (host or 0) + 1e-5,) * 3,
        "host_seconds": (host,) * 7 if host else (),
        **changes,
    }
    return replace(launched, processes=tuple(replace(process, **facts) for process in launched.processes))


def memory(mebibytes: int, pass_: Pass = "forward", repeatable: bool = True) -> tuple[Memory, ...]:
    """What the tracker and the high-water mark might have seen."""
    peak = mebibytes << 20
    training = pass_ == "training"
    tracker = Memory(
        source="tracker",
        inputs_bytes=6422528,
        parameters_bytes=147456,
        output_bytes=6422528,
        forward_peak_bytes=peak,
        saved_bytes=peak // 2 if training else None,
        backward_peak_bytes=peak * 2 if training else None,
        repeatable=repeatable,
    )
    high_water = Memory(
        source="high_water",
        inputs_bytes=6422528,
        parameters_bytes=147456,
        output_bytes=6422528,
        forward_peak_bytes=peak + 4096,
    )
    return tracker, high_water


def counts(macs: int, parameters: int = 36864, unknown: Sequence[str] = (), in_bounds: int | None = None) -> Counts:
    """Counts on which all counters agree, unless there are operations that torch does not know."""
    return Counts(
        parameters=parameters,
        macs_dense=macs,
        macs_in_bounds=None if unknown else in_bounds or macs,
        at_least=bool(unknown),
        compulsory_bytes=12992512,
        counters=(
            Counted(source="formula", note="the plugin gives no cost")
            if unknown
            else Counted(source="formula", macs=macs),
            Counted(source="fvcore", macs=macs),
            Counted(source="torch", macs=macs, unknown=tuple(unknown)),
        ),
        agreement=f"torch cannot count {', '.join(unknown)}" if unknown else "agree",
    )


def record(
    operator: str = "convolution",
    outcome: Outcome | None = None,
    *,
    implementation: str = "reference",
    shape: Nchw = SHAPE,
    pass_: Pass = "forward",
    scope: Scope = "layer",
    set_params: Mapping[str, ParamValue] | None = None,
    params: Mapping[str, ParamValue] | None = None,
    counts: Counts | None = None,
) -> Record:
    """A record; measured unless an outcome is given."""
    case = Case(operator=operator, shape=shape, params=set_params or {}, pass_=pass_, scope=scope)
    return Record(
        case=case,
        implementation=implementation,
        outcome=Measured() if outcome is None else outcome,
        params={**(params or {}), **(set_params or {})},
        counts=counts,
    )


GPU_ENVIRONMENT = replace(
    ENVIRONMENT,
    driver="999.99",
    gpus=(
        Gpu(
            name="Imaginary Graphics 9000",
            uuid="GPU-00000000-0000-0000-0000-000000000000",
            memory_bytes=96 << 30,
            sm_clock_mhz=1500,
            memory_clock_mhz=2000,
            power_limit_watts=500.0,
        ),
    ),
)


def run(
    *records: Record,
    baseline: str | None = None,
    plan: Sequence[tuple[Case, str]] | None = None,
    title: str = "A made-up comparison",
    question: str = "Which operator is fastest?",
    warnings: tuple[str, ...] = (),
    directory: str = "runs/made-up",
    measure: Measure = MEASURE,
    environment: Environment = ENVIRONMENT,
) -> Run:
    """A run of the given records; complete unless more is planned."""
    return Run(
        directory=Path(directory),
        header=Header(
            title=title,
            question=question,
            suite_path="suites/made up.yaml",
            suite_text="",
            overrides=(),
            operator_paths=(),
            metrics=("counts", "latency", "memory"),
            measure=measure,
            report=Report(baseline=baseline),
            environment=environment,
            plan=tuple(plan if plan is not None else [(each.case, each.implementation) for each in records]),
        ),
        records=records,
        warnings=warnings,
    )


def comparison() -> Run:
    """Every kind of outcome, two passes and two policies, for the golden files."""
    missing = Case(operator="sasa", shape=SHAPE, pass_="training")
    records = (
        record(
            outcome=Measured(timings=(timing(2e-3), timing(1.5e-3, HOT)), memory=memory(12), worst_error=0.2),
            params={"kernel_size": 3, "bias": False},
            counts=counts(924844032, in_bounds=903245824),
        ),
        record(
            "large_kernel_depthwise",
            Measured(timings=(timing(8e-4), timing(6e-4, HOT)), memory=memory(6), worst_error=0.1),
            implementation="native",
            params={"kernel_size": 13},
            counts=counts(271352832, 10944, in_bounds=236544000),
        ),
        record(
            "involution",
            Measured(
                timings=(timing(6.2e-3, spread=0.03), timing(6e-3, HOT)),
                memory=memory(40, repeatable=False),
                flags=("noisy",),
            ),
            params={"kernel_size": 7, "group_channels": 16},
            counts=counts(154140672, 3296, unknown=("aten::mystery",)),
        ),
        record("involution", Skipped(reason="no CUDA device"), implementation="cuda"),
        record(
            "sasa",
            Wrong(quantity="grad_weight", error=0.031, budget=1.2e-6, where="[0, 3, 1, 1]"),
            params={"kernel_size": 7},
            counts=counts(205520896, 13504),
        ),
        record("drconv", Wrong(quantity="forward", error=None, budget=0.0, where="shape [1, 2] instead of [1, 3]")),
        record("xvolution", Failed(reason="an allocation failed", status="out_of_memory")),
        record(
            outcome=Measured(timings=(timing(5e-3),), memory=memory(12, "training")),
            pass_="training",
            params={"kernel_size": 3, "bias": False},
            counts=counts(3 * 924844032),
        ),
        record(
            "large_kernel_depthwise",
            Measured(timings=(timing(2.1e-3),), memory=memory(6, "training"), flags=("nondeterministic",)),
            implementation="native",
            pass_="training",
            params={"kernel_size": 13},
            counts=counts(3 * 271352832, 10944),
        ),
        record("involution", Failed(reason="no result after 300 s", status="timed_out"), pass_="training"),
        record("drconv", Failed(reason="signal 11 (SIGSEGV)", status="crashed"), pass_="training"),
        record("xvolution", Failed(reason="layer.py:12: ValueError: no"), pass_="training"),
    )
    plan = [*((each.case, each.implementation) for each in records), (missing, "reference")]
    torn = "runs/made-up/records.jsonl: the last line is torn and left out"
    return run(*records, baseline="convolution", plan=plan, warnings=(torn,))


def scan(points: Sequence[int] = (14, 28, 56)) -> Run:
    """Two operators over several resolutions; time grows with the area."""
    records = [
        record(
            operator,
            Measured(timings=(timing(scale * side**2 * 1e-6),), memory=memory(side)),
            shape=Nchw(1, 64, side, side),
            counts=counts(side**2 * 36864),
        )
        for side in points
        for operator, scale in (("convolution", 1.0), ("involution", 2.0))
    ]
    return run(*records, baseline="convolution", title="A made-up scan", question="How does time grow?")


def gpu() -> Run:
    """Launched calls and graphs, a host that is too slow, a call that waits, a clock that is lowered."""
    records = (
        record(outcome=Measured(timings=(on_gpu(4e-4, 5e-5, sm_clock_hz=1.5e9),)), counts=counts(924844032)),
        record(
            "involution",
            Measured(timings=(on_gpu(2e-5, 3e-5), timing(1.8e-5, AS_GRAPH)), flags=("host-bound",)),
            implementation="cuda",
            counts=counts(154140672, 3296),
        ),
        record(
            "involution",
            Measured(
                timings=(on_gpu(9e-4, despite=("not held",), note="not timed as a graph: it waits"),),
                flags=("unheld",),
            ),
            counts=counts(154140672, 3296),
        ),
        record(
            "sasa",
            Measured(
                timings=(on_gpu(3e-4, 4e-5, voided={"throttled": 250, "not held": 6}, despite=("throttled",)),),
                flags=("throttled",),
            ),
            implementation="cuda",
            counts=counts(205520896, 13504),
        ),
        record("drconv", Skipped(reason="native runs on cpu, not on cuda"), implementation="native"),
    )
    return run(
        *records,
        baseline="convolution",
        title="A made-up GPU",
        measure=Measure(device="cuda"),
        environment=GPU_ENVIRONMENT,
    )


OTHER_ENVIRONMENT = replace(
    ENVIRONMENT,
    captured="2031-02-04T05:06:07+00:00",
    host="elsewhere",
    processor="Fictional Processor 7",
    usable_cores=4,
    versions={"opbench": "0.1.0", "torch": "2.14.0"},
    variables={},
    commit="fedcba987654+",
)


def machines() -> tuple[Run, Run]:
    """The same cases on two machines: faster, slower, no difference, other parameters, other counts, other policies."""
    here = (
        record(
            outcome=Measured(timings=(timing(2e-3), timing(1.5e-3, HOT)), memory=memory(12)),
            params={"kernel_size": 3},
            counts=counts(924844032),
        ),
        record(
            "large_kernel_depthwise",
            Measured(timings=(timing(8e-4), timing(6e-4, HOT)), memory=memory(6)),
            implementation="native",
            params={"kernel_size": 13},
            counts=counts(271352832, 10944),
        ),
        record("involution", Measured(timings=(timing(6.2e-3), timing(6e-3, HOT)), memory=memory(40))),
        record("sasa", Measured(timings=(timing(3e-3),)), params={"kernel_size": 7}),
        record("drconv", Measured(timings=(timing(4e-3),), memory=memory(20))),
        record("xvolution", Skipped(reason="not here")),
        record("ls_convolution", Measured(timings=(timing(1e-3),))),
    )
    there = (
        record(
            outcome=Measured(timings=(timing(1e-3), timing(1.501e-3, HOT)), memory=memory(12)),
            params={"kernel_size": 3},
            counts=counts(924844032),
        ),
        record(
            "large_kernel_depthwise",
            Measured(timings=(timing(9e-4), timing(6e-4, HOT)), memory=memory(9), flags=("noisy",)),
            implementation="native",
            params={"kernel_size": 13},
            counts=counts(271352832, 10945),
        ),
        record("involution", Measured(timings=(timing(6.1e-3, Policy(cache="cold", threads=2)),), memory=memory(40))),
        record("sasa", Measured(timings=(timing(1e-3),)), params={"kernel_size": 5}),
        record("drconv", Failed(reason="an allocation failed", status="out_of_memory")),
        record("xvolution", Skipped(reason="not there")),
        record("dynamic_convolution", Measured(timings=(timing(1e-3),))),
    )
    plan = [*((each.case, each.implementation) for each in there), (Case(operator="sasa", shape=SHAPE), "native")]
    return (
        run(*here, title="Made up here", directory="runs/here"),
        run(*there, title="Made up there", directory="runs/there", plan=plan, environment=OTHER_ENVIRONMENT),
    )
