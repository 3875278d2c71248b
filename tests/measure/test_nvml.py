"""A GPU's state, judged on made-up readings, and read from a driver that is made up too."""

from __future__ import annotations

import dataclasses
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from opbench.measure import nvml
from opbench.measure.nvml import GpuProcess, GpuState, judge, lowered, readings, throttled

QUIET = GpuState(
    name="GPU X",
    uuid="GPU-1",
    taken_seconds=100.0,
    throttled_seconds={"power limit": 7.0, "temperature": 2.0},
    temperature_celsius=45.0,
    slowdown_celsius=90.0,
    utilisation=0.0,
    uncorrected_errors=0,
)


def state(**changes: Any) -> GpuState:
    return dataclasses.replace(QUIET, **changes)


# Before a run.


def test_a_quiet_gpu_is_fit_and_so_is_one_that_tells_nothing() -> None:
    assert judge(QUIET) is None
    assert judge(None) is None
    assert judge(GpuState(name="GPU X", uuid="", taken_seconds=0.0)) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"uncorrected_errors": 2}, "GPU X has had 2 uncorrectable memory errors"),
        ({"throttle_reasons": ("temperature",)}, "GPU X has lowered its clock already (temperature)"),
        ({"throttle_reasons": ("power limit", "power brake")}, "GPU X has lowered its clock already (power brake)"),
        ({"temperature_celsius": 88.0}, "GPU X is at 88 °C and slows down at 90 °C"),
        (
            {"processes": (GpuProcess(pid=7, name="python", bytes=3 << 30), GpuProcess(pid=8))},
            "GPU X is used by process 7 (python) with 3.00 GiB, process 8; stop it",
        ),
        ({"utilisation": 0.5}, "GPU X is used 50 % of the time by a process that cannot be seen from here"),
    ],
)
def test_what_would_spoil_a_run_is_told_with_the_way_out(changes: dict[str, Any], said: str) -> None:
    reason = judge(state(**changes))
    assert reason is not None
    assert reason.startswith(said)
    assert "\n" not in reason
    assert "--allow-noisy" in reason or "use another" in reason


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature_celsius": 86.9},
        {"slowdown_celsius": None, "temperature_celsius": 95.0},
        {"utilisation": 0.04},
        # A GPU at rest may name its power limit.
        {"throttle_reasons": ("power limit",)},
    ],
)
def test_what_does_not_spoil_a_run_is_not_refused(changes: dict[str, Any]) -> None:
    assert judge(state(**changes)) is None


def test_processes_of_the_run_are_no_strangers() -> None:
    ours = state(processes=(GpuProcess(pid=7),), utilisation=1.0)
    assert judge(ours, own_pids={7}) is None
    assert judge(ours, own_pids={8}) is not None


# During a run.


def test_the_driver_s_totals_tell_for_which_share_of_the_time_the_clock_was_lowered() -> None:
    """Ten seconds later: 4.5 more at the power limit, none more by temperature."""
    later = state(taken_seconds=110.0, throttled_seconds={"power limit": 11.5, "temperature": 2.0})
    assert lowered(QUIET, later) == {"power limit": 0.45}
    assert throttled(QUIET, later) == "the clock was lowered: power limit for 45 % of the time"


def test_less_than_a_hundredth_of_the_time_is_not_noticeable() -> None:
    assert throttled(QUIET, state(taken_seconds=110.0, throttled_seconds={"power limit": 7.09})) is None
    assert throttled(QUIET, state(taken_seconds=110.0, throttled_seconds={"power limit": 7.11})) is not None


def test_a_reason_at_the_end_tells_without_a_share() -> None:
    later = state(taken_seconds=110.0, throttle_reasons=("hardware slowdown", "power limit"))
    assert throttled(QUIET, later) == "the clock was lowered: hardware slowdown, power limit"


def test_a_total_that_was_not_known_before_tells_nothing() -> None:
    assert throttled(state(throttled_seconds={}), state(taken_seconds=101.0)) is None


def test_an_unknown_state_tells_nothing() -> None:
    hot = state(throttle_reasons=("temperature",))
    assert throttled(None, hot) is None
    assert throttled(hot, None) is None
    assert throttled(QUIET, QUIET) is None


# A made-up driver.


class FakeNvml(types.ModuleType):
    """Two GPUs; the second supports next to nothing."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.open = 0
        self.answers: dict[str, Callable[..., Any]] = {
            "SystemGetDriverVersion": lambda: "580.65.06",
            "SystemGetProcessName": {41: "/usr/bin/python3"}.__getitem__,
            "DeviceGetCount": lambda: 2,
            "DeviceGetHandleByIndex": lambda index: index,
            "DeviceGetHandleByUUID": lambda uuid: {"GPU-one": 0, "GPU-two": 1}[uuid],
            "DeviceGetUUID": ["GPU-one", "GPU-two"].__getitem__,
            "DeviceGetName": ["NVIDIA H200", "NVIDIA T4"].__getitem__,
            "DeviceGetClockInfo": lambda gpu, kind: {1: 1980, 2: 3201}[kind],
            "DeviceGetMaxClockInfo": lambda gpu, kind: {1: 1980, 2: 3201}[kind],
            # Idle, clocks set by a user, power limit, and by temperature.
            "DeviceGetCurrentClocksEventReasons": lambda gpu: 0x1 | 0x2 | 0x4 | 0x20,
            "DeviceGetViolationStatus": lambda gpu, policy: types.SimpleNamespace(
                violationTime={0: 1_500_000_000, 1: 0}[policy]
            ),
            "DeviceGetPowerUsage": lambda gpu: 698_500,
            "DeviceGetEnforcedPowerLimit": lambda gpu: 700_000,
            "DeviceGetTotalEnergyConsumption": lambda gpu: 12_345,
            "DeviceGetTemperature": lambda gpu, sensor: 61,
            "DeviceGetTemperatureThreshold": lambda gpu, kind: {1: 90}[kind],
            "DeviceGetUtilizationRates": lambda gpu: types.SimpleNamespace(gpu=97, memory=40),
            "DeviceGetComputeRunningProcesses": lambda gpu: [
                types.SimpleNamespace(pid=41, usedGpuMemory=1 << 30),
                types.SimpleNamespace(pid=42, usedGpuMemory=None),
            ],
            "DeviceGetTotalEccErrors": lambda gpu, kind, counter: 0,
            "DeviceGetMigMode": lambda gpu: [0, 0],
            "DeviceGetPersistenceMode": lambda gpu: 1,
        }

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's name
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802 - NVML's name
        self.open -= 1

    def __getattr__(self, name: str) -> Any:
        known = self.__dict__["answers"].get(name.removeprefix("nvml"))
        if known is None:
            raise AttributeError(name)

        def answer(*arguments: Any) -> Any:
            assert self.open > 0, "asked before it was initialised"
            if 1 in arguments[:1] and name not in ("nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID"):
                raise self.NVMLError("not supported")
            try:
                return known(*arguments)
            except (KeyError, IndexError) as error:
                raise self.NVMLError("not supported") from error

        return answer


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    module = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    return module


def test_everything_is_read_in_si(fake: FakeNvml) -> None:
    found = readings(0)
    assert found is not None
    assert found == GpuState(
        name="NVIDIA H200",
        uuid="GPU-one",
        taken_seconds=found.taken_seconds,
        sm_clock_hz=1.98e9,
        memory_clock_hz=3.201e9,
        max_sm_clock_hz=1.98e9,
        max_memory_clock_hz=3.201e9,
        throttle_reasons=("power limit", "temperature"),
        throttled_seconds={"power limit": 1.5, "temperature": 0.0},
        power_watts=698.5,
        power_limit_watts=700.0,
        energy_joules=12.345,
        temperature_celsius=61.0,
        slowdown_celsius=90.0,
        utilisation=0.97,
        processes=(GpuProcess(pid=41, name="python3", bytes=1 << 30), GpuProcess(pid=42)),
        uncorrected_errors=0,
        mig=False,
        persistence=True,
    )
    assert fake.open == 0, "left open"


def test_what_a_gpu_does_not_support_is_not_known(fake: FakeNvml) -> None:
    found = readings(1)
    assert found is not None
    assert (found.name, found.uuid) == ("GPU", "GPU-two")
    assert (found.sm_clock_hz, found.utilisation, found.uncorrected_errors, found.mig) == (None, None, None, None)
    assert (found.throttle_reasons, found.throttled_seconds, found.processes) == ((), {}, ())
    assert judge(found) is None


def test_an_older_driver_tells_the_reasons_by_another_name(fake: FakeNvml) -> None:
    fake.answers["DeviceGetCurrentClocksThrottleReasons"] = fake.answers.pop("DeviceGetCurrentClocksEventReasons")
    found = readings()
    assert found is not None
    assert found.throttle_reasons == ("power limit", "temperature")


def test_the_index_is_the_one_cuda_gives(fake: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    found = readings(1)
    assert found is not None
    assert found.uuid == "GPU-one"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert readings(0) is None
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert readings(2) is None


def test_a_process_that_uses_cuda_is_asked_which_gpu_is_which(fake: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    properties = {0: types.SimpleNamespace(uuid="two"), 1: types.SimpleNamespace(uuid="one")}
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties.__getitem__)
    found = readings(1)
    assert found is not None
    assert found.uuid == "GPU-one"
    assert fake.open == 1, "opened once more by each reading if it were closed"


def test_the_pace_is_what_tells_of_throttling_and_no_more(fake: FakeNvml) -> None:
    whole, pace = readings(0), nvml.pace(0)
    assert whole is not None
    assert pace is not None
    assert pace == GpuState(
        name="NVIDIA H200",
        uuid="GPU-one",
        taken_seconds=pace.taken_seconds,
        sm_clock_hz=1.98e9,
        memory_clock_hz=3.201e9,
        throttle_reasons=whole.throttle_reasons,
        throttled_seconds=whole.throttled_seconds,
    )


def test_noise_is_what_is_wrong_with_the_gpu_now(fake: FakeNvml) -> None:
    assert (nvml.noise() or "").startswith("NVIDIA H200 has lowered its clock already (temperature)")
    assert nvml.noise(1) is None


def test_inside_an_open_driver_nothing_is_opened_or_closed_for_good(fake: FakeNvml) -> None:
    with nvml.driver() as ask:
        assert ask is not None
        assert ask("SystemGetDriverVersion") == nvml.driver_version() == "580.65.06"
        assert ask("NoSuchFunction") is None
        assert fake.open == 1
    assert fake.open == 0


def test_without_a_driver_nothing_is_known(fake: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise fake.NVMLError("driver not loaded")

    monkeypatch.setattr(fake, "nvmlInit", refuse)
    assert readings() is None
    assert nvml.noise() is None


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:20:51 UTC 2025\n", "580.65.06"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.14  Release Build\n", "550.54.14"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  560.35  Fri Aug 16\nGCC version:  gcc 13.2.0\n", "560.35"),
        ("", None),
    ],
)
def test_without_nvml_the_kernel_knows_its_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, version: str | None
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    (tmp_path / "version").write_text(said)
    assert nvml.driver_version(tmp_path / "version") == version
    assert nvml.driver_version(tmp_path / "absent") is None


def test_without_the_binding_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert readings() is None
    assert nvml.pace() is None


@pytest.mark.gpu
def test_a_gpu_in_use_shows_its_clock_and_its_name() -> None:
    pytest.importorskip("pynvml")
    torch.cuda.init()
    found = readings(torch.cuda.current_device())
    assert found is not None
    assert found.name == torch.cuda.get_device_name()
    assert found.sm_clock_hz is None or 1e8 < found.sm_clock_hz <= (found.max_sm_clock_hz or 5e9)
    assert found.taken_seconds <= time.monotonic()
    assert throttled(found, found) is None or found.throttle_reasons
