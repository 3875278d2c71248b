"""What a run was taken on is read without disturbing it, and comes back from disk as it was."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from pydantic import TypeAdapter

from opbench import environment
from opbench.environment import Environment, Gpu, gpu_of, refuse_two_cupys
from opbench.errors import MachineError
from opbench.measure.ceilings import Ceiling, Ceilings
from opbench.measure.nvml import Ask

ENVIRONMENT: TypeAdapter[Environment] = TypeAdapter(Environment)


@pytest.fixture(scope="module")
def captured() -> Environment:
    return environment.capture(["opbench", "run", "na\udcefve.yaml"])


def test_it_describes_this_machine(captured: Environment) -> None:
    import torch

    assert captured.memory_bytes == psutil.virtual_memory().total
    assert captured.usable_cores == len(os.sched_getaffinity(0))
    assert captured.python == ".".join(map(str, sys.version_info[:3]))
    assert captured.versions["torch"] == torch.__version__
    assert captured.versions["opbench"]
    assert captured.captured.endswith("+00:00")
    assert captured.load >= 0


def test_it_comes_back_from_json(captured: Environment) -> None:
    text = ENVIRONMENT.dump_json(captured)
    assert ENVIRONMENT.validate_json(text) == captured
    assert json.loads(text)["host"] == captured.host


def test_only_variables_that_change_speed_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"OMP_NUM_THREADS": "1", "MKL_DYNAMIC": "x", "CUDA_VISIBLE_DEVICES": "", "LD_PRELOAD": ""}
    for name, value in {**kept, "HOME_OMP_X": "no", "SECRET_TOKEN": "no", "OMPX": "no"}.items():
        monkeypatch.setenv(name, value)
    found = environment.capture().variables
    assert {name: found.get(name) for name in kept} == kept
    assert not {"HOME_OMP_X", "SECRET_TOKEN", "OMPX", "PATH"} & set(found)


def test_what_is_no_unicode_is_spelled_out(monkeypatch: pytest.MonkeyPatch, captured: Environment) -> None:
    monkeypatch.setenv("OMP_PLACES", "\udcff")
    found = environment.capture()
    assert found.variables["OMP_PLACES"] == "\\udcff"
    assert captured.command == ("opbench", "run", "na\\udcefve.yaml")
    assert ENVIRONMENT.validate_json(ENVIRONMENT.dump_json(found)) == found


def test_outside_a_repository_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment.capture().commit is None
    monkeypatch.setenv("PATH", "")
    assert environment.capture().commit is None


FORK = """
import os, threading
import torch
before = len(os.listdir("/proc/self/task"))
from opbench import environment, isolation
environment.capture()
isolation.import_early("fvcore.nn")
assert threading.active_count() == 1
assert len(os.listdir("/proc/self/task")) == before, "a thread was started"
assert not torch.cuda.is_initialized()

def work():
    torch.set_num_threads(2)
    x = torch.ones(1 << 18, requires_grad=True)
    (x * 2).sum().backward()
    return float(x.grad.sum())

assert isolation.run(work, timeout_seconds=60).value == 2.0 * (1 << 18)
"""


def test_capturing_starts_no_thread_so_that_forking_stays_safe() -> None:
    subprocess.run([sys.executable, "-c", FORK], check=True)


# A GPU.


def driver(answers: dict[str, Any]) -> Ask:
    """A driver that answers the same whichever GPU it is asked about, and knows nothing else."""
    return lambda name, *arguments: answers.get(name)


def test_a_gpu_is_described_by_its_driver() -> None:
    answers = {
        "DeviceGetName": "NVIDIA H200",
        "DeviceGetUUID": "GPU-1",
        "DeviceGetMemoryInfo": SimpleNamespace(total=143771 << 20),
        "DeviceGetCudaComputeCapability": (9, 0),
        "DeviceGetNumGpuCores": 16896,
        "DeviceGetClockInfo": 345,
        "DeviceGetMaxClockInfo": 1980,
        "DeviceGetEnforcedPowerLimit": 700_000,
        "DeviceGetCurrentEccMode": 1,
        "DeviceGetMigMode": [0, 0],
        "DeviceGetPersistenceMode": 1,
    }
    assert gpu_of(driver(answers), 0) == Gpu(
        name="NVIDIA H200",
        uuid="GPU-1",
        memory_bytes=143771 << 20,
        compute_capability="9.0",
        multiprocessors=132,
        sm_clock_mhz=345,
        memory_clock_mhz=345,
        max_sm_clock_mhz=1980,
        max_memory_clock_mhz=1980,
        power_limit_watts=700.0,
        ecc=True,
        mig=False,
        persistence=True,
    )


@pytest.mark.parametrize(
    ("capability", "lanes", "multiprocessors"),
    [((7, 5), 2560, 40), ((8, 0), 6912, 108), ((8, 6), 10496, 82), ((8, 9), 16384, 128), ((9, 0), 14592, 114)],
    ids=["T4", "A100", "RTX 3090", "RTX 4090", "H100 PCIe"],
)
def test_multiprocessors_follow_from_the_lanes(capability: tuple[int, int], lanes: int, multiprocessors: int) -> None:
    answers = {"DeviceGetCudaComputeCapability": capability, "DeviceGetNumGpuCores": lanes}
    assert gpu_of(driver(answers), 0).multiprocessors == multiprocessors


def test_a_gpu_that_tells_nothing_is_still_one() -> None:
    assert gpu_of(driver({}), 0) == Gpu(name="GPU", uuid="", memory_bytes=0)


def test_a_run_of_before_ceilings_and_gpu_facts_is_still_read(captured: Environment) -> None:
    data = json.loads(ENVIRONMENT.dump_json(captured))
    del data["ceilings"]
    data["gpus"] = [{"name": "GPU", "uuid": "GPU-1", "memory_bytes": 1, "sm_clock_mhz": 5, "power_limit_watts": 7.0}]
    found = ENVIRONMENT.validate_json(json.dumps(data))
    assert found.ceilings == ()
    assert (found.gpus[0].sm_clock_mhz, found.gpus[0].ecc, found.gpus[0].multiprocessors) == (5, None, None)


def test_ceilings_come_back_with_the_environment(captured: Environment) -> None:
    ceilings = Ceilings(
        device="cuda",
        identity={"device": "GPU X"},
        captured=captured.captured,
        bytes_per_second=Ceiling(value=2.0, low=1.0, high=3.0),
        macs_per_second={"tf32": Ceiling(value=5.0, low=4.0, high=6.0)},
        last_level_cache_bytes=1,
    )
    environment_ = dataclasses.replace(captured, ceilings=(ceilings,))
    assert ENVIRONMENT.validate_json(ENVIRONMENT.dump_json(environment_)) == environment_


@pytest.mark.gpu
def test_the_gpus_of_this_machine_are_described(captured: Environment) -> None:
    import torch

    pytest.importorskip("pynvml")
    assert captured.driver
    names = {gpu.name for gpu in captured.gpus}
    assert torch.cuda.get_device_name() in names
    gpu = next(gpu for gpu in captured.gpus if gpu.name == torch.cuda.get_device_name())
    assert gpu.multiprocessors == torch.cuda.get_device_properties(0).multi_processor_count
    assert gpu.compute_capability == ".".join(map(str, torch.cuda.get_device_capability()))


# Two builds of CuPy.


@pytest.mark.parametrize(
    "names",
    [["cupy-cuda12x", "cupy-cuda13x"], ["cupy-cuda13x", "numpy", "CuPy_CUDA12x"], ["cupy", "cupy-cuda12x"]],
)
def test_two_builds_of_cupy_are_refused_with_the_way_out(names: list[str]) -> None:
    with pytest.raises(MachineError) as caught:
        refuse_two_cupys(names)
    said = str(caught.value)
    assert said.startswith("two builds of CuPy are installed (cupy")
    assert " -m pip uninstall -y cupy" in said
    assert "'opbench[cuda13]'" in said
    assert "'opbench[cuda12]'" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["numpy", "torch"],
        ["cupy-cuda12x"],
        ["cupy-cuda12x", "cupy-cuda12x", "cupy_cuda12x"],
        ["cupy-cuda13x", "cupy-xarray", "cupyx", "my-cupy-cuda12x"],
    ],
)
def test_one_build_of_cupy_is_fine(names: list[str]) -> None:
    refuse_two_cupys(names)


def test_a_broken_installation_of_something_else_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an interrupted uninstallation leaves behind has no name."""
    (tmp_path / "-orch-1.0.dist-info").mkdir()
    (tmp_path / "broken-1.0.dist-info").mkdir()
    (tmp_path / "broken-1.0.dist-info" / "METADATA").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert dataclasses.is_dataclass(environment.capture())
