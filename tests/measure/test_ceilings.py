"""Ceilings: folded from repetitions, kept until something they depend on changes, measured where they are not known."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from opbench.measure import ceilings, limits, machine, nvml
from opbench.measure.ceilings import Ceiling, Ceilings, file_name, fold, identity, keep, kept, load, load_or_measure
from opbench.measure.nvml import GpuState

KNOWN = {
    "device": "GPU X",
    "uuid": "GPU-1",
    "driver": "580.65.06",
    "torch": "2.11.0+cu130",
    "protocol": str(ceilings.PROTOCOL),
}
FOUND = Ceilings(
    device="cuda",
    identity=KNOWN,
    captured="2026-11-20T22:00:00+00:00",
    bytes_per_second=Ceiling(value=4.3e12, low=4.2e12, high=4.4e12),
    macs_per_second={"float32": Ceiling(value=2.5e13, low=2.4e13, high=2.6e13)},
    empty_call_seconds=Ceiling(value=2e-6, low=1.9e-6, high=2.1e-6),
    launch_interval_seconds=Ceiling(value=1e-6, low=1e-6, high=1e-6),
    event_resolution_seconds=5e-7,
    last_level_cache_bytes=60 << 20,
)


# Folding.


def test_the_middle_of_repetitions_lies_in_its_interval() -> None:
    """Twenty values in batches of four: their medians are 2.5, 6.5, …, 18.5."""
    found = fold([float(value) for value in range(1, 21)])
    assert found.value == 10.5
    assert found.low < 10.5 < found.high
    assert found.low * found.high == pytest.approx(10.5**2)


def test_an_outlier_moves_neither_the_middle_nor_much_of_the_interval() -> None:
    steady = [100.0, 101.0, 100.5, 100.2] * 5
    disturbed = [*steady[:7], 900.0, *steady[8:]]
    assert fold(disturbed).value == pytest.approx(fold(steady).value, rel=0.005)


def test_a_clock_that_shows_one_value_is_known_to_its_step() -> None:
    found = fold([2e-6] * 20, step=5e-7)
    assert (found.low, found.high) == pytest.approx((2e-6 * math.exp(-0.25), 2e-6 * math.exp(0.25)))
    assert fold([2e-6] * 20) == Ceiling(value=2e-6, low=2e-6, high=2e-6)


# Keeping.


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "ceilings.json"
    keep(path, FOUND)
    assert kept(path, KNOWN) == FOUND
    assert [file.name for file in path.parent.iterdir()] == ["ceilings.json"]


@pytest.mark.parametrize("changed", sorted(KNOWN))
def test_another_device_driver_or_version_makes_them_stale(tmp_path: Path, changed: str) -> None:
    keep(tmp_path / "c.json", FOUND)
    assert kept(tmp_path / "c.json", {**KNOWN, changed: "other"}) is None
    assert kept(tmp_path / "c.json", {key: value for key, value in KNOWN.items() if key != changed}) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"device": "cuda"}', "\xff"])
def test_what_cannot_be_read_is_measured_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(content, encoding="latin-1")
    assert kept(path, KNOWN) is None
    assert kept(tmp_path / "absent.json", KNOWN) is None


def test_a_cache_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    keep(tmp_path / "file" / "c.json", FOUND)
    assert (tmp_path / "file").read_text() == ""


def test_an_older_record_lacks_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    keep(path, FOUND)
    data = json.loads(path.read_text())
    for optional in ("empty_call_seconds", "launch_interval_seconds", "event_resolution_seconds", "remark", "threads"):
        del data[optional]
    path.write_text(json.dumps(data | {"unknown": 1}))
    found = kept(path, KNOWN)
    assert found is not None
    assert (found.empty_call_seconds, found.threads, found.bytes_per_second) == (None, 1, FOUND.bytes_per_second)


def test_each_device_has_a_file_that_says_whose_it_is() -> None:
    assert file_name(KNOWN) == "GPU-X-GPU-1.json"
    one, two = ({"device": f"A/B (R) {count}", "host": "h"} for count in ("1 thread", "2 threads"))
    assert (file_name(one), file_name(two)) == ("A-B-R-1-thread-h.json", "A-B-R-2-threads-h.json")


# Measuring.


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPBENCH_CACHE", str(tmp_path))
    return tmp_path / "ceilings"


def test_they_are_measured_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[str, int]] = []

    def measure(device: str, threads: int, known: dict[str, str]) -> Ceilings:
        measured.append((device, threads))
        return dataclasses.replace(FOUND, device=device, threads=threads, identity=known)

    monkeypatch.setattr(limits, "measure", measure)
    assert load("cpu", 2) is None
    first = load_or_measure("cpu", 2)
    assert load_or_measure("cpu", 2) == load("cpu", 2) == first
    assert load_or_measure("cpu", 1).threads == 1
    assert measured == [("cpu", 2), ("cpu", 1)]
    assert len(list(cache.iterdir())) == 2


def test_what_was_measured_under_noise_is_given_and_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(device: str, threads: int, known: dict[str, str]) -> Ceilings:
        return dataclasses.replace(FOUND, identity=known, remark="somebody else was there")

    monkeypatch.setattr(limits, "measure", measure)
    assert load_or_measure("cpu").remark == "somebody else was there"
    assert not cache.exists()


def test_they_depend_on_what_changes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = identity("cpu", 2)
    assert cpu["device"].endswith(", 2 threads")
    assert cpu["torch"] == torch.__version__
    state = GpuState(name="GPU X", uuid="GPU-1", taken_seconds=0.0, power_limit_watts=700.0)
    monkeypatch.setattr(nvml, "readings", lambda: state)
    monkeypatch.setattr(nvml, "driver_version", lambda: "580.65.06")
    gpu = identity("cuda")
    named = {"device": "GPU X", "uuid": "GPU-1", "driver": "580.65.06", "power limit": "700 W"}
    software = {"torch": torch.__version__, "cuda": str(torch.version.cuda), "protocol": str(ceilings.PROTOCOL)}
    assert gpu == {**named, **software}
    monkeypatch.setattr(nvml, "readings", lambda: None)
    properties = types.SimpleNamespace(name="GPU X", uuid="1")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: properties)
    assert identity("cuda") == {**named, "power limit": "unknown", **software}


def test_a_processor_s_ceilings_are_measured(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny copy and product: the rates are those of the caches, and add up all the same."""
    monkeypatch.setattr(limits, "COPIED_BYTES", 1 << 16)
    monkeypatch.setattr(limits, "CPU_SIDE", 16)
    monkeypatch.setattr(limits, "WARM_UP_SECONDS", 0.0)
    monkeypatch.setattr(limits, "REPETITIONS", 5)
    monkeypatch.setattr(machine, "noise", lambda threads: None)
    before = torch.get_num_threads()
    try:
        found = load_or_measure("cpu", 1)
    finally:
        torch.set_num_threads(before)
    assert found.device == "cpu"
    assert 1e6 < found.bytes_per_second.value < 1e13
    assert found.macs_per_second.keys() == {"float32"}
    assert found.empty_call_seconds is None
    assert load_or_measure("cpu", 1) == found, "it was kept"


def test_rates_are_work_by_time() -> None:
    """16 KiB copied in a millisecond are 32 KiB moved; a product of 8 x 8 in one is 512 multiply-accumulates."""

    def a_millisecond(call: Any) -> list[float]:
        call()
        return [1e-3] * 10

    cpu = torch.device("cpu")
    assert limits.copying(cpu, 4 << 14, a_millisecond).value == pytest.approx(2 * (1 << 14) / 1e-3)
    assert limits.multiplying(cpu, torch.float32, 8, a_millisecond).value == pytest.approx(512 / 1e-3)
    assert limits.convolving(2, a_millisecond).value == pytest.approx(2 * 56 * 56 * 64 * 64 * 9 / 1e-3)


def test_tf32_is_allowed_within_its_own_measurement_only() -> None:
    seen = []

    def look(call: Any) -> list[float]:
        seen.append(torch.get_float32_matmul_precision())
        return [1e-3] * 10

    before = torch.get_float32_matmul_precision()
    for precision in ("high", "highest"):
        limits.multiplying(torch.device("cpu"), torch.float32, 8, look, precision)
    assert seen == ["high", "highest"]
    assert torch.get_float32_matmul_precision() == before


def test_a_gpu_is_asked_for_what_it_has_units_for() -> None:
    assert [name for name, _, _ in limits.products((7, 5))] == ["float32", "float16"]
    assert {name for name, _, _ in limits.products((9, 0))} == {"float32", "tf32", "float16", "bfloat16"}
    precise = {name: precision for name, _, precision in limits.products((8, 0))}
    assert [name for name, precision in precise.items() if precision != "highest"] == ["tf32"]


@pytest.mark.parametrize(
    ("before", "after", "remark"),
    [
        ({}, {}, None),
        # Under full load a power limit is what the device can do.
        ({}, {"throttle_reasons": ("power limit",)}, None),
        ({}, {"throttle_reasons": ("power limit", "temperature")}, "the clock was lowered: power limit, temperature"),
        ({"throttle_reasons": ("power brake",)}, {}, "GPU X has lowered its clock already (power brake)"),
    ],
)
def test_only_what_should_not_be_is_remarked(before: dict[str, Any], after: dict[str, Any], remark: str | None) -> None:
    quiet = GpuState(name="GPU X", uuid="GPU-1", taken_seconds=0.0)
    said = limits.remark(dataclasses.replace(quiet, **before), dataclasses.replace(quiet, taken_seconds=1.0, **after))
    assert (said is None) == (remark is None)
    assert (said or "").startswith(remark or "")
    assert limits.remark(None, None) is None


class FakeGpu:
    """A stream at 2 GHz: a kernel takes 3 µs to launch, an empty one 2 µs to run; events tick at half a microsecond.

    The host's clock goes on by what it does; the stream's never lags behind it.
    """

    def __init__(self, host_launch_seconds: float = 3e-6) -> None:
        self.host = 0.0
        self.stream = 0.0
        self.launch_seconds = host_launch_seconds
        self.copies = 0

    def sleep(self, cycles: int) -> None:
        self.host += self.launch_seconds
        self.stream = max(self.stream, self.host) + 2e-6 + cycles / 2e9

    def synchronize(self) -> None:
        self.host = max(self.host, self.stream)

    def event(self, enable_timing: bool) -> Any:
        assert enable_timing
        return FakeEvent(self)


class FakeEvent:
    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.seconds = math.inf

    def record(self) -> None:
        self.seconds = max(self.gpu.stream, self.gpu.host)

    def query(self) -> bool:
        return self.seconds <= self.gpu.host

    def elapsed_time(self, end: FakeEvent) -> float:
        assert end.query(), "read before it came to pass"
        ticks = [round(event.seconds / 5e-7) for event in (self, end)]
        return 1e3 * 5e-7 * (ticks[1] - ticks[0])


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    gpu = FakeGpu()
    for name, value in {
        "_sleep": gpu.sleep,
        "Event": gpu.event,
        "synchronize": gpu.synchronize,
        "mem_get_info": lambda: (1 << 18, 1 << 20),
        "get_device_capability": lambda: (9, 0),
        "get_device_properties": lambda index: types.SimpleNamespace(L2_cache_size=60 << 20),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(limits, "WARM_UP_SECONDS", 0.0)
    monkeypatch.setattr(nvml, "readings", lambda: None)
    return gpu


def test_launches_are_timed_behind_a_blocker(fake_gpu: FakeGpu) -> None:
    """Held back, kernels follow each other at the 2 µs they take, though the host needs 3 µs to launch one."""
    assert limits.queued_seconds(1) == pytest.approx(2e-6)
    assert limits.queued_seconds(200) / 200 == pytest.approx(2e-6)


def test_a_slow_host_is_held_for_longer(fake_gpu: FakeGpu) -> None:
    """200 launches of 100 µs outlast a blocker of 10 ms, and of 20 ms."""
    fake_gpu.launch_seconds = 100e-6
    assert limits.queued_seconds(200) / 200 == pytest.approx(2e-6)
    assert fake_gpu.host > 0.04


def test_the_step_of_events_is_the_least_they_differ_by(fake_gpu: FakeGpu) -> None:
    assert limits.event_step() == pytest.approx(5e-7)


def test_a_gpu_s_ceilings_have_every_line(fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GPU_SIDE", 8)
    monkeypatch.setattr(limits, "event_seconds", lambda call: [(call(), 1e-3)[1] for _ in range(10)])
    found = limits.of_gpu(KNOWN, torch.device("cpu"))
    assert found.device == "cuda"
    assert found.bytes_per_second.value == pytest.approx(2 * (1 << 16) / 1e-3), "a quarter of what is free"
    assert {name: rate.value for name, rate in found.macs_per_second.items()} == pytest.approx(
        dict.fromkeys(["float32", "float16", "tf32", "bfloat16"], 512 / 1e-3)
    )
    assert found.empty_call_seconds is not None
    assert found.launch_interval_seconds is not None
    assert (found.empty_call_seconds.value, found.launch_interval_seconds.value) == pytest.approx((2e-6, 2e-6))
    assert found.event_resolution_seconds == pytest.approx(5e-7)
    assert (found.last_level_cache_bytes, found.remark) == (60 << 20, None)


def test_calls_on_a_gpu_are_timed_by_events(fake_gpu: FakeGpu) -> None:
    assert limits.event_seconds(lambda: fake_gpu.sleep(2_000_000)) == pytest.approx([1e-3 + 2e-6] * 20)


def test_the_cache_of_a_gpu_is_its_own_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda index: types.SimpleNamespace(L2_cache_size=index + 7)
    )
    assert ceilings.l2_bytes(1) == 8


ON_A_GPU = """
import dataclasses, json, sys
import torch
from opbench import probing
first, second = probing.ceilings("cuda"), probing.ceilings("cuda")
assert not torch.cuda.is_initialized()
print(json.dumps([dataclasses.asdict(first), first == second]))
"""


@pytest.mark.gpu
def test_a_gpu_s_ceilings_are_plausible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPBENCH_CACHE", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", ON_A_GPU], capture_output=True, text=True, check=True)
    found, again = json.loads(done.stdout)
    rates = {name: rate["value"] for name, rate in found["macs_per_second"].items()}
    assert again or found["remark"], "kept unless something was wrong"
    assert 5e10 < found["bytes_per_second"]["value"] < 5e13
    assert rates["float16"] > rates["float32"] > 1e11
    assert 1e-7 < found["launch_interval_seconds"]["value"] < found["empty_call_seconds"]["value"] < 1e-3
    assert 0 < found["event_resolution_seconds"] < 1e-5
    assert found["last_level_cache_bytes"] > 1 << 20
