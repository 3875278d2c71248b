"""From a suite file to a run on disk: plan, see that the machine is quiet, measure, and go on where a run broke off."""

from __future__ import annotations

import fnmatch
import functools
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console

from opbench import environment, isolation, probing, runner, store, suite
from opbench.cases import Case
from opbench.environment import Environment
from opbench.errors import MachineError, OpbenchError, RunError
from opbench.locking import lease
from opbench.measure import gpu as graphics
from opbench.measure import machine, nvml
from opbench.measure.ceilings import Ceilings
from opbench.measure.gpu import UsableGpu
from opbench.policies import thread_counts
from opbench.probing import Prober
from opbench.progress import Watcher
from opbench.registry import Registry
from opbench.settings import Measure, Metric
from opbench.store import Header, Run
from opbench.suite import Suite

PATIENCE_SECONDS = 30.0
"""How long to wait for a busy machine to calm down."""

Plan = tuple[tuple[Case, str], ...]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line asks of a suite."""

    path: Path
    overrides: tuple[str, ...] = ()
    operator_paths: tuple[Path, ...] = ()
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A suite that is ready to run."""

    request: Request
    suite: Suite
    registry: Registry
    plan: Plan
    refused: tuple[tuple[Case, str, str], ...]
    """(case, implementation, reason) of what the suite names and its operators do not take."""


def prepare(request: Request) -> Prepared:
    """Load a suite, check every name and value in it, and select what to run.

    Raises:
        SuiteError: the suite is not valid; nothing has been measured.
        OpbenchError: `--only` and `--skip` leave nothing.
    """
    registries: list[Registry] = []

    def discover(paths: Sequence[Path]) -> Registry:
        registries.append(Registry.discover([*request.operator_paths, *paths]))
        return registries[-1]

    loaded = suite.load(request.path, overrides=request.overrides, discover=discover, inspect=Prober)
    plan = tuple((row.case, row.implementation) for row in loaded.plan)
    refused = tuple((row.case, row.implementation, reason) for row, reason in loaded.refused)
    chosen = tuple(item for item in plan if is_chosen(request, *item))
    if plan and not chosen:
        raise OpbenchError(
            f"--only and --skip leave none of the {len(plan)} cases; "
            f"see them with: opbench run {request.path} --dry-run"
        )
    return Prepared(
        request=request,
        suite=loaded,
        registry=registries[-1],
        plan=chosen,
        refused=tuple(item for item in refused if is_chosen(request, *item[:2])),
    )


def start(prepared: Prepared, directory: Path, console: Console, *, quiet: bool, allow_noisy: bool) -> Run:
    """Measure a prepared suite into a directory.

    Raises:
        RunError: the directory holds a run already.
        MachineError: the machine lacks the device, or is busy with something else and noise is not allowed.
    """
    found = prepared.suite
    refused = runner.skipped(prepared.refused)
    store.refuse_taken(directory)  # Before a wait that would be in vain.
    gpu = gpu_for(found.measure)
    with (
        machine_to_itself(found.measure, found.metrics, allow_noisy, console, gpu) as noisy,
        store.exclusive(directory),
    ):
        ceilings = ceilings_for(found.measure, found.metrics, console, quiet=quiet)
        header = Header(
            title=found.title,
            question=found.question,
            suite_path=str(prepared.request.path),
            suite_text=found.text,
            overrides=prepared.request.overrides,
            operator_paths=tuple(
                str(path.resolve()) for path in (*prepared.request.operator_paths, *found.operator_paths)
            ),
            metrics=tuple(found.metrics),
            measure=found.measure,
            report=found.report,
            environment=environment.capture(["opbench", *sys.argv[1:]], ceilings),
            plan=(*((record.case, record.implementation) for record in refused), *prepared.plan),
        )
        store.create(directory, header, refused)
        _measure(directory, header, prepared.registry, prepared.plan, gpu, noisy, console, quiet)
    return store.read(directory)


def resume(directory: Path, console: Console, *, quiet: bool, allow_noisy: bool) -> Run:
    """Measure what an unfinished run still lacks.

    Raises:
        RunError: there is no run, or what it lacks would be measured on another machine or with other software.
        MachineError: the machine lacks the device, or is busy with something else and noise is not allowed.
    """
    if not directory.is_dir():
        raise RunError(f"{directory} holds no run")
    with store.exclusive(directory):
        store.cut_torn_line(directory)
        run = store.read(directory)
        if run.missing:
            gpu = gpu_for(run.header.measure)
            _refuse_another_machine(run.header.environment, environment.capture())
            registry = Registry.discover(Path(path) for path in run.header.operator_paths)
            with machine_to_itself(run.header.measure, run.header.metrics, allow_noisy, console, gpu) as noisy:
                _measure(directory, run.header, registry, run.missing, gpu, noisy, console, quiet)
    return store.read(directory)


def is_chosen(request: Request, case: Case, implementation: str) -> bool:
    """Whether `--only` and `--skip` keep a record; patterns match its operator, network, implementation or whole id."""
    measured = [case.operator, case.name]
    names = [*measured, *(f"{name}/{implementation}" for name in measured), implementation, case.id]
    names += [case.network] if case.network else []

    def matches(patterns: Iterable[str]) -> bool:
        # An id may hold brackets, which mean something else in a pattern.
        return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names)

    return (not request.only or matches(request.only)) and not matches(request.skip)


def gpu_for(measure: Measure) -> UsableGpu | None:
    """Make ready for the device to measure on, and return it where it is a GPU.

    Raises:
        MachineError: there is no GPU to measure on.
    """
    if measure.device != "cuda":
        return None
    graphics.strict_float32()
    try:
        return probing.gpu()
    except MachineError as error:
        instead = "or measure on the CPU: --set measure.device=cpu"
        raise MachineError(f"measure.device is cuda, and {error}; {instead}") from error


@contextmanager
def machine_to_itself(
    measure: Measure, metrics: Collection[Metric], allow_noisy: bool, console: Console, gpu: UsableGpu | None = None
) -> Iterator[bool]:
    """Keep other runs off the device while the block runs; gives whether something uses it all the same.

    Raises:
        MachineError: another run, or another program, uses it, and noise is not allowed.
    """
    if "latency" not in metrics:
        yield False
        return
    with lease(f"cuda-{gpu.uuid}" if gpu else measure.device, shared=allow_noisy or measure.allow_noisy) as alone:
        noise = gpu_noise if gpu else machine.noise
        yield wait_for_quiet(measure, metrics, allow_noisy, console, noise) or not alone


def ceilings_for(measure: Measure, metrics: Collection[Metric], console: Console, *, quiet: bool) -> list[Ceilings]:
    """Learn what the device can do at best, with each number of threads; what cannot be learnt is said and left out."""
    found = []
    for threads in thread_counts(measure) if "latency" in metrics else []:
        whose = "the GPU" if measure.device == "cuda" else f"the CPU with {threads} thread{'s' * (threads > 1)}"
        words = f"measuring what {whose} can do at best; it takes some seconds"
        tell = functools.partial(_say, Console(quiet=True) if quiet else console, words)
        try:
            found.append(probing.ceilings(measure.device, threads, tell))
        except MachineError as error:
            _say(console, f"{error}; the run goes on without them")
    return found


def gpu_noise(threads: int) -> str | None:
    """Say what would spoil a measurement on the GPU: who else uses it, or the processor that launches the calls."""
    return nvml.noise() or machine.noise()


def wait_for_quiet(
    measure: Measure,
    metrics: Iterable[Metric],
    allow_noisy: bool,
    console: Console,
    noise: Callable[[int], str | None] = machine.noise,
    patience_seconds: float = PATIENCE_SECONDS,
) -> bool:
    """Return whether the machine is busy though that is allowed; wait a little for it to calm down where it is not.

    Raises:
        MachineError: it stays busy.
    """
    if "latency" not in metrics:
        return False
    threads = max(count if isinstance(count, int) else 1 for count in measure.threads)
    if allow_noisy or measure.allow_noisy:
        return noise(threads) is not None
    deadline = time.monotonic() + patience_seconds
    told = False
    while reason := noise(threads):
        if time.monotonic() >= deadline:
            raise MachineError(f"the machine is busy: {reason}")
        if not told:
            _say(console, f"waiting up to {patience_seconds:.0f} s for the machine to calm down")
            told = True
        time.sleep(1)
    return False


def _say(console: Console, words: str) -> None:
    console.print(f"opbench: {words}", markup=False, soft_wrap=True)


def default_directory(suite_path: Path, now: datetime) -> Path:
    """Where a run goes unless told: 'runs/quickstart-20261120-184500'."""
    return Path("runs") / f"{suite_path.stem}-{now:%Y%m%d-%H%M%S}"


def _measure(
    directory: Path,
    header: Header,
    registry: Registry,
    plan: Plan,
    gpu: UsableGpu | None,
    noisy: bool,
    console: Console,
    quiet: bool,
) -> None:
    isolation.import_early("fvcore.nn")
    watcher = Watcher(console, len(header.plan), quiet=quiet, done=len(header.plan) - len(plan))
    job = runner.Job(
        plan=plan,
        registry=registry,
        metrics=header.metrics,
        measure=header.measure,
        observer=watcher,
        noisy=noisy,
        device_bytes=gpu.spendable_bytes if gpu else None,
    )
    with watcher.watching():
        runner.run(job, directory)


def _refuse_another_machine(then: Environment, now: Environment) -> None:
    """A run has one environment; half of it from elsewhere would compare two machines unseen."""
    before, after = _identity(then), _identity(now)
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if changed:
        parts = ", ".join(f"{name} was {before.get(name)} and is {after.get(name)}" for name in changed)
        raise RunError(f"the run was begun in another environment ({parts}); start a new run instead")


def _identity(environment: Environment) -> dict[str, object]:
    """What must not change within a run; clocks may, and the kernel keeps a little more or less memory at each boot."""
    return {
        "host": environment.host,
        "processor": environment.processor,
        "memory": f"{environment.memory_bytes / (1 << 30):.0f} GiB",
        "python": environment.python,
        "driver": environment.driver,
        **{f"GPU {index}": f"{gpu.name} {gpu.uuid}" for index, gpu in enumerate(environment.gpus)},
        **environment.versions,
    }
