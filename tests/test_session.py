"""A run loses nothing and measures nothing twice, however often it is killed; it begins only where it should."""

from __future__ import annotations

import json
import random
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import torch
from rich.console import Console

from opbench import isolation, probing, runner, session, store
from opbench.cases import Case, Nchw
from opbench.errors import MachineError
from opbench.measure import limits, machine, nvml
from opbench.measure.ceilings import Ceiling, Ceilings
from opbench.registry import Registry
from opbench.results import Record, Skipped
from opbench.session import Request, wait_for_quiet
from opbench.settings import Measure

if TYPE_CHECKING:
    from tests.conftest import Workshop

DECLINES = """
precise = Implementation(core=scale, dtypes=("float64",))
parts["implementations"] = {"other": Implementation(core=scale), "double": precise}
"""
SHAPES = [f"1x4x{side}x6" for side in range(5, 9)]


def begin(workshop: Workshop) -> Path:
    """Write a suite of six cases; of each, two implementations are measured and one is refused."""
    workshop.plugin("scale", DECLINES)
    return workshop.suite(["scale"], shape=SHAPES, scope="core")


def planned() -> list[tuple[str, str]]:
    return sorted((shape, name) for shape in SHAPES for name in ("reference", "other", "double"))


def lines(directory: Path) -> list[dict[str, Any]]:
    """Every complete line on disk."""
    file = directory / store.RECORDS_FILE
    return [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]] if file.exists() else []


def recorded(directory: Path) -> list[tuple[str, str]]:
    return sorted(("x".join(map(str, line["shape"])), line["implementation"]) for line in lines(directory))


def measured(directory: Path) -> int:
    return sum(line["status"] == "measured" for line in lines(directory))


# Killed and resumed.


@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_killed_at_random_is_finished_by_resuming(workshop: Workshop, seed: int) -> None:
    chance = random.Random(seed)
    directory = workshop.folder / "run"
    command = workshop.start("run", begin(workshop), "--out", "run")
    command.wait_for((directory / store.HEADER_FILE).exists)
    kept: list[tuple[str, str]] = []
    for _ in range(6):
        time.sleep(chance.uniform(0, 1))
        command.process.kill()
        command.process.join()
        found = store.read(directory)
        assert len(found.records) + len(found.missing) == len(planned())
        assert set(kept) <= set(recorded(directory))
        kept = recorded(directory)
        command = workshop.start("run", "--resume", "run")
    assert command.status == 0, command.errors
    assert recorded(directory) == planned()
    reasons = {line["reason"] for line in lines(directory) if line["status"] == "skipped"}
    assert reasons == {"double covers float64, not float32"}
    assert measured(directory) == 2 * len(SHAPES)
    assert store.read(directory).warnings == ()


def test_what_an_operator_refuses_is_on_disk_before_anything_is_measured(workshop: Workshop) -> None:
    stop = "from opbench import runner\ndef run(*_): raise KeyboardInterrupt\nrunner.run = run"
    assert workshop.opbench("run", begin(workshop), "--out", "run", before=stop).status == 130
    assert {name for _, name in recorded(workshop.folder / "run")} == {"double"}
    assert workshop.opbench("run", "--resume", "run").status == 0
    assert recorded(workshop.folder / "run") == planned()


def test_a_torn_line_is_measured_again(workshop: Workshop) -> None:
    directory = workshop.folder / "run"
    assert workshop.opbench("run", begin(workshop), "--out", "run").status == 0
    file = directory / store.RECORDS_FILE
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    assert workshop.opbench("run", "--resume", "run").status == 0
    assert recorded(directory) == planned()
    assert file.read_bytes()[: whole.rstrip(b"\n").rfind(b"\n")] == whole[: whole.rstrip(b"\n").rfind(b"\n")]


def test_a_finished_run_is_shown_and_not_measured(workshop: Workshop) -> None:
    assert workshop.opbench("run", begin(workshop), "--out", "run").status == 0
    before = (workshop.folder / "run" / store.RECORDS_FILE).read_bytes()
    never = "from opbench import isolation\nisolation.run = None"
    again = workshop.opbench("run", "--resume", "run", before=never)
    assert again.status == 0, again.errors
    assert "scale/other" in again.output
    assert (workshop.folder / "run" / store.RECORDS_FILE).read_bytes() == before


def test_ctrl_c_keeps_everything_and_says_how_to_go_on(workshop: Workshop) -> None:
    directory = workshop.folder / "run"
    workshop.plugin("first", "@other\ndef native(*given):\n    return scale(*given)")
    workshop.plugin("hangs", "def hang(*given):\n    while True: pass\nparts['reference'] = hang")
    command = workshop.start("run", workshop.suite(["first", "hangs"]), "--out", "run")
    command.wait_for(lambda: measured(directory) == 2)
    children = psutil.Process(command.pid).children(recursive=True)
    psutil.Process(command.pid).send_signal(signal.SIGINT)
    assert command.status == 130
    said = [line for line in command.errors.splitlines() if line]
    assert said[-3:] == [
        "opbench: 2 of 3 records are kept in run",
        "opbench: go on with: opbench run --resume run",
        "opbench: interrupted",
    ]
    assert "Traceback" not in command.errors
    assert "first/other" in (directory / "report.md").read_text()
    assert [child for child in children if child.is_running()] == []
    kept = lines(directory)
    workshop.plugin("hangs")
    assert workshop.opbench("run", "--resume", "run").status == 0
    assert lines(directory)[:2] == kept
    assert [line["operator"] for line in lines(directory)] == ["first", "first", "hangs"]


# Where a run may not begin or go on.


def test_a_run_of_another_environment_is_not_gone_on_with(workshop: Workshop) -> None:
    directory = interrupted(workshop)
    header = json.loads((directory / store.HEADER_FILE).read_text())
    header["environment"]["host"] = "elsewhere"
    header["environment"]["versions"]["torch"] = "1.0"
    (directory / store.HEADER_FILE).write_text(json.dumps(header))
    refused = workshop.opbench("run", "--resume", "run")
    assert refused.status == 2
    assert "the run was begun in another environment (host was elsewhere and is " in refused.errors
    assert "torch was 1.0 and is " in refused.errors
    assert refused.errors.count("\n") == 1


def test_a_run_goes_on_where_only_clocks_and_load_have_changed(workshop: Workshop) -> None:
    directory = interrupted(workshop)
    header = json.loads((directory / store.HEADER_FILE).read_text())
    header["environment"] |= {"clock_mhz": 1.0, "load": 99.0, "captured": "2001-01-01", "commit": "0"}
    header["environment"]["memory_bytes"] += 4096
    (directory / store.HEADER_FILE).write_text(json.dumps(header))
    assert workshop.opbench("run", "--resume", "run").status == 0


WAIT_FOR_GO = """
import pathlib, time
from opbench import runner
run = runner.run
def later(*given):
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    run(*given)
runner.run = later
"""


def test_a_directory_in_use_is_refused(workshop: Workshop) -> None:
    suite = begin(workshop)
    first = workshop.start("run", suite, "--out", "run", before=WAIT_FOR_GO)
    first.wait_for((workshop.folder / "run" / store.HEADER_FILE).exists)
    resumed, begun = (workshop.opbench("run", *how) for how in (("--resume", "run"), (suite, "--out", "run")))
    (workshop.folder / "go").touch()
    assert (resumed.status, resumed.errors) == (2, "opbench: run is in use by another opbench run\n")
    assert begun.status == 2
    assert begun.errors.startswith("opbench: run already holds a run; finish it with --resume run, or choose another")
    assert first.status == 0
    assert recorded(workshop.folder / "run") == planned()


def test_a_directory_that_holds_a_run_is_refused_at_once(workshop: Workshop) -> None:
    directory = interrupted(workshop)
    before = {file.name: file.read_bytes() for file in directory.iterdir()}
    busy = "from opbench.measure import machine\nmachine.cpu_pressure = lambda: 1.0"
    refused = workshop.opbench("run", "suite.yaml", "--out", "run", "--set", "measure.allow_noisy=false", before=busy)
    assert refused.status == 2
    assert refused.errors == "opbench: run already holds a run; finish it with --resume run, or choose another --out\n"
    assert {file.name: file.read_bytes() for file in directory.iterdir()} == before


@pytest.mark.parametrize("directory", ["suite.yaml/run", "x" * 300])
def test_a_directory_that_cannot_be_written_is_refused(workshop: Workshop, directory: str) -> None:
    refused = workshop.opbench("run", begin(workshop), "--out", directory)
    assert refused.status == 2
    assert refused.errors.startswith(f"opbench: cannot write {directory}: ")
    assert refused.errors.count("\n") == 1


def test_no_run_is_said_to_be_none(workshop: Workshop) -> None:
    (workshop.folder / "empty").mkdir()
    for name in ("empty", "nowhere"):
        refused = workshop.opbench("run", "--resume", name)
        assert refused.status == 2
        assert refused.errors.startswith(f"opbench: {name} holds no run")


def test_a_full_disk_ends_a_run_that_can_be_resumed(workshop: Workshop) -> None:
    """A limit on the size of files stands for the end of a disk: the header fits, some records, not all."""
    full = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))"
    ended = workshop.opbench("run", begin(workshop), "--out", "run", before=full)
    assert ended.status == 6
    assert re.search(r"^opbench: cannot write run/records\.jsonl: the disk is full$", ended.errors, re.MULTILINE)
    assert "opbench: go on with: opbench run --resume run" in ended.errors
    assert "internal error" not in ended.errors
    assert 0 < len(recorded(workshop.folder / "run")) < len(planned())
    assert workshop.opbench("run", "--resume", "run").status == 0
    assert recorded(workshop.folder / "run") == planned()


def interrupted(workshop: Workshop) -> Path:
    """A run that was given up after its first records."""
    stop = """
from opbench import store
append = store.append
def once(*given):
    append(*given)
    raise KeyboardInterrupt
store.append = once
"""
    assert workshop.opbench("run", begin(workshop), "--out", "run", before=stop).status == 130
    return workshop.folder / "run"


# A noisy machine.


class Noise:
    """A machine that is busy for so many looks."""

    def __init__(self, busy: int) -> None:
        self.busy = busy

    def __call__(self, threads: int) -> str | None:
        self.busy -= 1
        return f"{threads} other programs run" if self.busy >= 0 else None


QUIET = Console(quiet=True)


def test_a_busy_machine_is_refused_when_patience_ends() -> None:
    with pytest.raises(MachineError, match="the machine is busy: 2 other programs run"):
        wait_for_quiet(Measure(threads=(1, 2)), ["latency"], False, QUIET, Noise(99), patience_seconds=0)


def test_a_machine_that_calms_down_is_waited_for() -> None:
    console = Console(record=True, quiet=False, file=None, stderr=True)
    with console.capture() as captured:
        assert wait_for_quiet(Measure(), ["latency"], False, console, Noise(1)) is False
    assert captured.get() == "opbench: waiting up to 30 s for the machine to calm down\n"


def test_noise_that_is_allowed_is_told() -> None:
    assert wait_for_quiet(Measure(), ["latency"], True, QUIET, Noise(1)) is True
    assert wait_for_quiet(Measure(allow_noisy=True), ["latency"], False, QUIET, Noise(1)) is True
    assert wait_for_quiet(Measure(), ["latency"], True, QUIET, Noise(0)) is False


def test_noise_does_not_matter_where_nothing_is_timed() -> None:
    assert wait_for_quiet(Measure(), ["counts", "memory"], False, QUIET, Noise(99)) is False


@pytest.mark.parametrize(
    ("flags", "status", "noisy"), [([], 6, None), (["--allow-noisy"], 0, True)], ids=["refused", "allowed"]
)
def test_noise_on_the_command_line(workshop: Workshop, flags: list[str], status: int, noisy: bool | None) -> None:
    before = (
        "import functools\nfrom opbench import session\nfrom opbench.measure import machine\n"
        "machine.cpu_pressure = lambda: 0.5\n"
        "session.wait_for_quiet = functools.partial(session.wait_for_quiet, patience_seconds=0)"
    )
    workshop.plugin("scale")
    suite = workshop.suite(["scale"], measure={"allow_noisy": False})
    done = workshop.opbench("run", suite, "--out", "run", *flags, before=before)
    assert done.status == status
    if noisy:
        assert "noisy" in lines(workshop.folder / "run")[0]["flags"]
    else:
        assert "opbench: the machine is busy: in 50 % of the last ten seconds" in done.errors
        assert "--allow-noisy" in done.errors
        assert not (workshop.folder / "run").exists()


# What the machine can do at best.


def test_a_run_keeps_the_ceilings_it_began_with_for_each_number_of_threads(workshop: Workshop) -> None:
    stop = "from opbench import runner\ndef run(*_): raise KeyboardInterrupt\nrunner.run = run"
    workshop.plugin("scale")
    suite = workshop.suite(["scale"], measure={"threads": [2, 1]})
    assert workshop.opbench("run", suite, "--out", "run", before=stop).status == 130
    begun = json.loads((workshop.folder / "run" / store.HEADER_FILE).read_text())["environment"]["ceilings"]
    assert [(each["device"], each["threads"]) for each in begun] == [("cpu", 2), ("cpu", 1)]
    never = "from opbench import probing\nprobing.ceilings = None"
    assert workshop.opbench("run", "--resume", "run", "--quiet", before=never).status == 0
    assert json.loads((workshop.folder / "run" / store.HEADER_FILE).read_text())["environment"]["ceilings"] == begun


def test_nothing_is_at_best_where_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "ceilings", None)
    assert session.ceilings_for(Measure(), ["counts", "memory"], QUIET, quiet=False) == []


def test_what_cannot_be_measured_is_said_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run says that it measures; what it keeps the next finds. The stand-in fails with two threads."""

    def of_one_thread(threads: int, known: dict[str, str]) -> Ceilings:
        rate = Ceiling(value=3e9 / (threads == 1), low=2e9, high=4e9)
        return Ceilings(
            device="cpu",
            threads=threads,
            identity=known,
            captured="2031",
            bytes_per_second=rate,
            macs_per_second={},
            last_level_cache_bytes=1,
        )

    monkeypatch.setenv("OPBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(limits, "of_cpu", of_one_thread)
    console = Console(stderr=True, width=200)

    def said(quiet: bool) -> list[str]:
        with console.capture() as captured:
            found = session.ceilings_for(Measure(threads=(1, 2)), ["latency"], console, quiet=quiet)
        assert [each.threads for each in found] == [1]
        return [line.partition(":")[2].strip() for line in captured.get().splitlines()]

    begun = [
        f"measuring what the CPU with {count} can do at best; it takes some seconds"
        for count in ("1 thread", "2 threads")
    ]
    failed = said(quiet=True)
    assert len(failed) == 1
    assert re.fullmatch(
        r"cannot measure the ceilings .* CPU: .*division by zero.*; the run goes on without them", failed[0]
    )
    assert said(quiet=False) == [begun[1], *failed]
    monkeypatch.setenv("OPBENCH_CACHE", str(tmp_path / "other"))
    assert said(quiet=False) == [*begun, *failed]


# What is chosen, and what is foreseen.


def chosen(only: tuple[str, ...] = (), skip: tuple[str, ...] = ()) -> list[str]:
    cases = [
        (Case(operator="box", shape=Nchw(1, 4, 5, 6), params={"size": 3}), "reference"),
        (Case(operator="box", shape=Nchw(1, 4, 5, 6), params={"size": 5}), "native"),
        (Case(operator="boxes", shape=Nchw(1, 4, 5, 6)), "reference"),
    ]
    request = Request(path=Path("suite.yaml"), only=only, skip=skip)
    return [f"{case.operator}/{name}" for case, name in cases if session.is_chosen(request, case, name)]


def test_only_and_skip_match_operators_implementations_and_ids() -> None:
    assert chosen() == ["box/reference", "box/native", "boxes/reference"]
    assert chosen(only=("box",)) == ["box/reference", "box/native"]
    assert chosen(only=("box*",), skip=("native",)) == ["box/reference", "boxes/reference"]
    assert chosen(only=("box/native", "boxes")) == ["box/native", "boxes/reference"]
    assert chosen(only=("box/1x4x5x6/*",)) == ["box/reference", "box/native"]
    assert chosen(only=("BOX",)) == []


def test_an_empty_pattern_matches_nothing() -> None:
    assert chosen(only=("",)) == []
    assert len(chosen(skip=("",))) == 3


@pytest.mark.parametrize("pattern", ["resnet-50", "resnet-50:box", "resnet-50:*/native", "box/native", "box", "native"])
def test_only_matches_networks_and_what_is_in_their_slots(pattern: str) -> None:
    case = Case(operator="box", network="resnet-50", scope="network", shape=Nchw(1, 3, 8, 8))
    assert session.is_chosen(Request(path=Path("suite.yaml"), only=(pattern,)), case, "native")
    assert not session.is_chosen(Request(path=Path("suite.yaml"), only=("resnet-26",)), case, "native")


def test_an_id_matches_itself_in_spite_of_its_brackets() -> None:
    assert chosen(only=("box/1x4x5x6/float32/layer/forward[size=3]",)) == ["box/reference"]


def test_only_and_skip_that_leave_nothing_are_refused(workshop: Workshop) -> None:
    refused = workshop.opbench("run", begin(workshop), "--out", "run", "--only", "nonesuch")
    assert refused.status == 2
    assert "--only and --skip leave none of the 8 cases; see them with: opbench run" in refused.errors
    assert not (workshop.folder / "run").exists()


def test_only_and_skip_on_the_command_line(workshop: Workshop) -> None:
    done = workshop.opbench("run", begin(workshop), "--out", "run", "--only", "*/1x4x5x6/*", "--skip", "other")
    assert done.status == 0, done.errors
    assert recorded(workshop.folder / "run") == [("1x4x5x6", "double"), ("1x4x5x6", "reference")]


def test_a_dry_run_measures_nothing(workshop: Workshop) -> None:
    marked = (
        "def marked(p, x, weight):\n    if not x.is_meta: open('marked', 'w')\n    return scale(p, x, weight)\n"
        "parts['reference'] = marked"
    )
    workshop.plugin("scale", marked)
    workshop.plugin("broken", "1 / 0")
    before = set(workshop.folder.iterdir())
    done = workshop.opbench("run", workshop.suite(["scale", "broken"]), "--dry-run")
    assert done.status == 0, done.errors
    said = done.output.splitlines()
    assert re.fullmatch(r"scale/1x4x5x6/float32/layer/forward  reference  [\d.]+ (B|KiB)  about \d+ s", said[0])
    assert said[1].startswith("broken/1x4x5x6/float32/layer/forward  reference  ")
    assert said[1].endswith("plugin.py: ZeroDivisionError: division by zero")
    made = {path.name for path in set(workshop.folder.iterdir()) - before}
    assert made == {"suite.yaml", "output0", "errors0"}


def test_a_case_too_large_is_not_attempted(workshop: Workshop) -> None:
    marked = (
        "def marked(p, x, weight):\n    if not x.is_meta: open('marked', 'w')\n    return scale(p, x, weight)\n"
        "parts['reference'] = marked"
    )
    workshop.plugin("scale", marked)
    little = "from opbench.measure import machine\nmachine.available_bytes = lambda: 1 << 28"
    done = workshop.opbench("run", workshop.suite(["scale"], shape="1x4x4096x4096"), "--out", "run", before=little)
    assert done.status == 0, done.errors
    (line,) = lines(workshop.folder / "run")
    assert line["status"] == "skipped"
    assert re.fullmatch(r"needs about [\d.]+ GiB of memory, 230 MiB are free", line["reason"])
    assert line["params"] == {}
    assert not (workshop.folder / "marked").exists()


# A GPU.

NO_GPU = pytest.mark.skipif(torch.version.cuda is not None, reason="this PyTorch is built with CUDA")


@NO_GPU
def test_a_device_that_is_missing_is_told_in_one_line(workshop: Workshop) -> None:
    refused = workshop.opbench("run", begin(workshop), "--out", "run", "--set", "measure.device=cuda")
    assert refused.status == 6
    assert refused.errors.startswith("opbench: measure.device is cuda, and ")
    assert refused.errors.endswith("; or measure on the CPU: --set measure.device=cpu\n")
    assert refused.errors.count("\n") == 1
    assert not (workshop.folder / "run").exists()


@NO_GPU
def test_a_run_of_a_gpu_is_not_gone_on_with_where_there_is_none(workshop: Workshop) -> None:
    directory = interrupted(workshop)
    header = json.loads((directory / store.HEADER_FILE).read_text())
    header["measure"]["device"] = "cuda"
    (directory / store.HEADER_FILE).write_text(json.dumps(header))
    before = recorded(directory)
    refused = workshop.opbench("run", "--resume", "run")
    assert refused.status == 6
    assert "opbench: measure.device is cuda, and " in refused.errors
    assert recorded(directory) == before


def test_what_a_gpu_would_run_is_foreseen_without_one(workshop: Workshop) -> None:
    workshop.plugin("scale", 'parts["implementations"] = {"host": Implementation(core=scale, devices=("cpu",))}')
    suite = workshop.suite(["scale"], implementation=["reference", "host"])
    done = workshop.opbench("run", suite, "--dry-run", "--set", "measure.device=cuda")
    assert done.status == 0, done.errors
    assert done.output.splitlines()[0].startswith("scale/1x4x5x6/float32/layer/forward  reference  ")
    assert done.output.splitlines()[1].endswith("  host  skipped: host runs on cpu, not on cuda")


def test_a_gpu_is_quiet_where_neither_it_nor_the_processor_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpu, processor, expected in (
        ("a game", None, "a game"),
        (None, "a compiler", "a compiler"),
        (None, None, None),
    ):
        monkeypatch.setattr(nvml, "noise", lambda gpu=gpu: gpu)
        monkeypatch.setattr(machine, "noise", lambda processor=processor: processor)
        assert session.gpu_noise(1) == expected


def test_a_case_that_exceeds_the_gpu_is_not_attempted(tmp_path: Path) -> None:
    """The machine has memory enough; the device has 4 KiB."""
    case = Case(operator="convolution", shape=Nchw(1, 4, 8, 8))
    records: list[Record] = []

    class Ear:
        def phase(self, case: Case, implementation: str, doing: str) -> None: ...
        def tick(self) -> None: ...
        def recorded(self, record: Record) -> None:
            records.append(record)

    job = runner.Job(
        plan=[(case, "reference")],
        registry=Registry.discover(),
        metrics=["memory"],
        measure=Measure(),
        observer=Ear(),
        device_bytes=4 << 10,
    )
    isolation.import_early()
    runner.run(job, tmp_path)
    assert records[0].status == "skipped"
    assert isinstance(records[0].outcome, Skipped)
    assert re.fullmatch(r"needs about [\d.]+ KiB of memory, 4\.00 KiB are free", records[0].outcome.reason)


def test_each_implementation_has_its_own_launches(workshop: Workshop) -> None:
    workshop.plugin("scale", "@other\ndef twice(p, x, weight):\n    return -scale(p, x.neg(), weight)")
    done = workshop.opbench("run", workshop.suite(["scale"]), "--out", "run", "--set", "metrics=[counts]")
    assert done.status == 0, done.errors
    found = {}
    for line in lines(workshop.folder / "run"):
        stored = line["counts"]["launches"]
        found[line["implementation"]] = [stored["kinds"][index]["name"] for index in stored["order"]]
    assert found == {"reference": ["aten::mul"], "other": ["aten::neg", "aten::mul", "aten::neg"]}


STAND_IN = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from opbench import session, worker
from opbench.measure import blocks
from opbench.measure.ceilings import Ceiling, Ceilings
from opbench.measure.device_clock import DeviceClock
from opbench.measure.gpu import UsableGpu
from opbench.measure.stop import WarmUp
from opbench.subject import Subject
from tests.test_worker import HostStream

rate = Ceiling(value=2e12, low=1.9e12, high=2.1e12)
ceilings = Ceilings(
    device="cuda", identity={{"device": "stand-in"}}, captured="2031", bytes_per_second=rate,
    macs_per_second={{"float32": rate}}, last_level_cache_bytes=1 << 20,
)
load = Subject.load
Subject.load = classmethod(lambda _, registry, case, name="reference", device=None: load(registry, case, name))
blocks.escaped = lambda *_: False
session.probing.gpu = lambda: UsableGpu(uuid="GPU-0", spendable_bytes=1 << 30)
session.probing.ceilings = lambda *_: ceilings
worker._timer = lambda policies: DeviceClock(HostStream(), warm_up=WarmUp(max_seconds=0.01))
"""
"""A GPU that is the CPU, with a clock on which every call is short."""


def test_a_run_on_a_stand_in_for_a_gpu_is_recorded_reported_and_gone_on_with(workshop: Workshop) -> None:
    workshop.plugin("scale", "other(scale)")
    settings = ("--set", "measure.device=cuda", "--set", "metrics=[counts, latency]")
    done = workshop.opbench("run", workshop.suite(["scale"]), "--out", "run", *settings, before=STAND_IN)
    assert done.status == 0, done.errors
    records = lines(workshop.folder / "run")
    assert [line["implementation"] for line in records] == ["reference", "other"]
    for line in records:
        assert line["status"] == "measured"
        policies = [timing["policy"] for timing in line["timings"]]
        assert [(policy["device"], policy["launch"]) for policy in policies] == [("cuda", "eager"), ("cuda", "graph")]
        assert all(policy["threads"] == 1 for policy in policies)
    header = json.loads((workshop.folder / "run" / store.HEADER_FILE).read_text())
    assert header["environment"]["settings"]["cuDNN TF32"] == "False"
    assert header["environment"]["ceilings"][0]["identity"] == {"device": "stand-in"}
    said = (workshop.folder / "run" / "report.md").read_text()
    assert "hot cache, cuda, eager" in said
    assert "hot cache, cuda, graph" in said
    assert "a caller waits" in said

    (workshop.folder / "run" / store.RECORDS_FILE).write_text(json.dumps(records[0]) + "\n")
    resumed = workshop.opbench("run", "--resume", "run", before=STAND_IN)
    assert resumed.status == 0, resumed.errors
    assert [line["implementation"] for line in lines(workshop.folder / "run")] == ["reference", "other"]


@pytest.mark.gpu
def test_a_run_on_a_gpu_measures_what_a_run_on_the_cpu_does(workshop: Workshop) -> None:
    workshop.plugin("scale")
    suite = workshop.suite(["scale"], shape="4x64x56x56", **{"pass": ["forward", "training"]})  # type: ignore[arg-type]
    done = workshop.opbench("run", suite, "--out", "run", "--set", "measure.device=cuda")
    assert done.status == 0, done.errors
    for line in lines(workshop.folder / "run"):
        assert line["status"] == "measured"
        assert {timing["policy"]["device"] for timing in line["timings"]} == {"cuda"}
        launched = [timing for timing in line["timings"] if timing["policy"]["launch"] == "eager"]
        assert all(process["call_seconds"] for timing in launched for process in timing["processes"])
        assert {memory["source"] for memory in line["memory"]} == {"tracker", "allocator"}
    header = json.loads((workshop.folder / "run" / store.HEADER_FILE).read_text())
    assert header["environment"]["settings"]["cuDNN TF32"] == "False"
