"""What tests share: plugins and suites on disk, the command line in a process of its own, kernels with planted bugs."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import yaml

from opbench.cases import Dtype, Nchw
from opbench.registry import Registry

# Before torch is loaded, here and in every process that tests start. Workers of pytest share the cores: a thread that
# waits for another by spinning keeps that very thread from its core, and most of the suite's time went there.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Runs that tests make are no news of the job that tests them.
os.environ.pop("GITHUB_STEP_SUMMARY", None)

PLUGIN = '''"""Scales each channel by a learnable factor."""

import ctypes, os, signal, subprocess, sys, time
from dataclasses import dataclass, field

import torch
from torch import nn

from opbench.api import Cost, Implementation, Macs, Operator, Sample, Unsupported, Work


def scale(p, x, weight):
    return x * weight[:, None, None]


def inputs(p, shape, make):
    return {"x": make.normal(*shape), "weight": make.normal(shape.channels)}


class Layer(nn.Module):
    def __init__(self, channels, params, core):
        super().__init__()
        self.params, self.core = params, core
        self.weight = nn.Parameter(torch.randn(channels))

    def forward(self, x):
        return self.core(self.params, x, self.weight)


def cost(p, shape):
    work = Work.bilinear(Macs.exact(shape.numel))
    return Cost(parameters=shape.channels, core=work, layer=work)


parts = {"reference": scale, "inputs": inputs, "layer": Layer, "cost": cost}


def other(core):
    parts["implementations"] = {"other": Implementation(core=core)}
    return core


# CHANGES
OPERATOR = Operator(**parts)
'''
"""A plugin of an ordinary operator; what a test puts in place of the last comment makes another of it."""

ENTRY = """
import os, sys, tempfile
os.chdir(folder)
tempfile.tempdir = folder
for number, name in ((1, output), (2, errors)):
    os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
sys.argv = ["opbench", *arguments]
from opbench import probing
from opbench.measure.ceilings import Ceiling, Ceilings
rate = Ceiling(value=1e9, low=1e9, high=1e9)
# To measure what this machine can do at best would take longer than the run.
probing.ceilings = lambda device, threads=1, before_measuring=None: Ceilings(
    device=device, threads=threads, identity={"device": f"stand-in with {threads} threads"}, captured="2031",
    bytes_per_second=rate, macs_per_second={"float32": rate}, last_level_cache_bytes=1 << 20,
)
exec(before)
from opbench.cli import main
main(arguments)
"""


def _server() -> multiprocessing.context.ForkServerContext:
    """Make processes out of one that has imported what a run needs: a fraction of a second instead of several."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch._dynamo", "fvcore.nn", "opbench.session", "opbench.report"])
    return context


_SERVER = _server()


@dataclass(frozen=True)
class Command:
    """An `opbench` command in a process of its own."""

    process: BaseProcess
    files: tuple[Path, Path]

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def status(self) -> int:
        """Exit status, once the process has ended; a signal that killed it as a negative number."""
        self.process.join(timeout=240)
        assert self.process.exitcode is not None, "it hangs"
        return self.process.exitcode

    @property
    def output(self) -> str:
        self.process.join()
        return self.files[0].read_text()

    @property
    def errors(self) -> str:
        self.process.join()
        return self.files[1].read_text()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds while the process runs."""
        while not condition():
            assert self.process.is_alive(), self.errors
            time.sleep(0.005)


@dataclass
class Workshop:
    """A folder with plugins, suites and runs."""

    folder: Path
    commands: list[Command] = field(default_factory=list)

    def plugin(self, name: str, changes: str = "", under: str = "ops") -> Path:
        """Write an operator that differs from an ordinary one by some lines of code."""
        return self.file(f"{under}/{name}/plugin.py", PLUGIN.replace("# CHANGES", changes))

    def suite(self, operators: Sequence[str], name: str = "suite", under: str = "ops", **entry: object) -> Path:
        """Write a suite with one small, quickly measured case for each operator; `measure` among the rest is merged."""
        measure = {
            "processes": 1,
            "max_seconds": 0.02,
            "cache": "hot",
            "allow_noisy": True,
            "timeout_seconds": 60,
            **dict(entry.pop("measure", {})),  # type: ignore[call-overload]
        }
        case = {"operator": list(operators), "shape": "1x4x5x6", "implementation": "all", **entry}
        content = {
            "version": 1,
            "title": "a title",
            "question": "what?",
            "operators": [under],
            "cases": [case],
            "measure": measure,
        }
        return self.file(f"{name}.yaml", yaml.safe_dump(content, sort_keys=False))

    def file(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return path

    def start(self, *arguments: str | Path, before: str = "") -> Command:
        """Begin a command; `before` is run in its process first."""
        number = len(self.commands)
        files = (self.folder / f"output{number}", self.folder / f"errors{number}")
        variables = {
            "folder": str(self.folder),
            "output": str(files[0]),
            "errors": str(files[1]),
            "arguments": [str(argument) for argument in arguments],
            "before": before,
        }
        command = Command(_SERVER.Process(target=exec, args=(ENTRY, variables)), files)
        command.process.start()
        self.commands.append(command)
        return command

    def opbench(self, *arguments: str | Path, before: str = "") -> Command:
        """Run a command to its end."""
        command = self.start(*arguments, before=before)
        command.process.join(timeout=240)
        return command


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` where no GPU is usable."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    # Asked of the driver, because a process that has started CUDA cannot fork children that use it.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device is usable here"))


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@dataclass(frozen=True)
class Mutant:
    """A shipped operator whose CUDA sources were changed."""

    name: str
    registry: Registry

    def failures(
        self, params: Any, shape: Nchw, dtype: Dtype = "float32", order: str = "forward", *, sanitize: bool = False
    ) -> list[str]:
        """What the gate, or a rule of CUDA's execution model, holds against it at one input; empty when nothing."""
        import torch

        from opbench.catching import CatchingCase, inputs_of
        from opbench.check import check
        from opbench.cuda import on_cpu
        from opbench.cuda.emulation import KernelError

        operator = self.registry.load(self.name)
        core: Any = operator.implementations["cuda"].core
        params = operator.params(**dataclasses.asdict(params))
        inputs = inputs_of(operator, CatchingCase(params, shape, "contiguous"), getattr(torch, dtype))
        try:
            with on_cpu(order, sanitize=sanitize):  # type: ignore[arg-type]
                rows = check(operator, core, params, inputs)
        except KernelError as error:
            return [str(error)]
        return [f"{row.quantity} off by {row.error:.1e} at {row.where}" for row in rows if not row.passed]


@pytest.fixture
def mutant(tmp_path: Path) -> Callable[..., Mutant]:
    """`mutant(operator, file, old, new)`: the operator with `old`, which must be there just once, replaced by `new`.

    The file is one of its folder or a shared device header. With `old` and `new` the same it is the operator itself,
    which a test of a planted bug must find right.
    """

    def make(operator: str, file: str, old: str, new: str) -> Mutant:
        folder = Registry.discover().find(operator).folder
        name = f"{operator}_mutant"
        copy = tmp_path / f"mutant{len(list(tmp_path.iterdir()))}" / name
        shutil.copytree(folder, copy)
        # Headers are looked for beside the file that includes them: a shared one would never see another's mutant.
        for header in (folder.parent / "_cuda").glob("*.cuh"):
            shutil.copy(header, copy)
        text = (copy / file).read_text()
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {file}"
        (copy / file).write_text(text.replace(old, new))
        return Mutant(name, Registry.discover([copy]))

    return make
