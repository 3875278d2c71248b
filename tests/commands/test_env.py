"""`opbench env` shows the machine, what it lacks for a GPU, and on request what it can do at best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from opbench import probing, readiness
from opbench.cli import cli
from opbench.errors import MachineError
from opbench.measure import processor
from opbench.measure.ceilings import Ceiling, Ceilings
from opbench.readiness import Facts

READY = Facts(
    torch="2.11.0+cu130",
    torch_cuda=(13, 0),
    distributions={"cupy-cuda13x": "14", "nvidia-cuda-nvrtc": "13", "nvidia-ml-py": "13"},
    driver="580.65.06",
    driver_cuda=(13, 0),
    gpus={"GPU 0": (9, 0)},
)
BARE = Facts(torch="2.11.0+cpu", torch_cuda=None)


def found(device: str, threads: int = 1) -> Ceilings:
    rate = Ceiling(value=1e12, low=0.99e12, high=1.01e12)
    return Ceilings(
        device=device,
        threads=threads,
        identity={"device": f"{device} {threads}"},
        captured="2031-02-03T04:05:06+00:00",
        bytes_per_second=rate,
        macs_per_second={"float32": rate},
        last_level_cache_bytes=1 << 20,
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Which ceilings were asked for, on a machine that has a GPU and four cores."""
    calls: list[tuple[str, int]] = []

    def ceilings(device: str, threads: int = 1) -> Ceilings:
        calls.append((device, threads))
        return found(device, threads)

    monkeypatch.setattr(probing, "ceilings", ceilings)
    monkeypatch.setattr(processor, "physical_cores", lambda: 4)
    monkeypatch.setattr(readiness, "gather", lambda: READY)
    return calls


def env(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["env", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_a_ready_machine_lacks_nothing(asked: list[tuple[str, int]]) -> None:
    output = env()
    assert "processor: " in output
    assert "versions:\n  opbench: " in output
    assert "missing for a GPU" not in output
    assert "ceilings" not in output
    assert asked == []


def test_what_is_missing_stands_at_the_end_with_its_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "gather", lambda: BARE)
    _, _, missing = env().partition("missing for a GPU:\n")
    starts = ["there is no NVIDIA driver", "torch 2.11.0+cpu is built", "CUDA kernels need CuPy", "clocks, throttling"]
    lines = missing.splitlines()
    assert len(lines) == len(starts)
    assert all(line.startswith(f"  {start}") for line, start in zip(lines, starts, strict=True))


def test_ceilings_are_measured_of_every_device_on_request(asked: list[tuple[str, int]]) -> None:
    output = env("--ceilings")
    assert asked == [("cuda", 1), ("cpu", 4), ("cpu", 1)]
    assert "ceilings of cuda 1:\n  measured 2031-02-03T04:05:06+00:00\n  copy: 1.00 TB/s" in output
    assert output.count("copy: ") == 3


def test_without_a_gpu_those_of_the_processor_are_measured(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "gather", lambda: BARE)
    monkeypatch.setattr(processor, "physical_cores", lambda: 1)
    env("--ceilings")
    assert asked == [("cpu", 1)]


def test_json_is_the_environment_of_a_run(asked: list[tuple[str, int]]) -> None:
    from pydantic import TypeAdapter

    from opbench.environment import Environment

    data: dict[str, Any] = json.loads(env("--json"))
    assert data["ceilings"] == []
    measured = env("--json", "--ceilings")
    environment = TypeAdapter(Environment).validate_json(measured)
    assert [each.device for each in environment.ceilings] == ["cuda", "cpu", "cpu"]


def test_a_device_that_cannot_be_measured_is_the_machine_s_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(device: str, threads: int) -> Ceilings:
        raise RuntimeError("no such luck")

    monkeypatch.setenv("OPBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(probing, "load_or_measure", fail)
    with pytest.raises(MachineError, match=r"cannot measure the ceilings of this machine's CPU: .*no such luck"):
        probing.ceilings("cpu")
