"""Two runs on one device disturb each other, so the second is told; a lock dies with its process."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from opbench import isolation
from opbench.errors import MachineError
from opbench.locking import lease, locked

if TYPE_CHECKING:
    from tests.conftest import Workshop


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of other tests, or of a run on this machine, are none of these tests' business."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def is_free(path: Path) -> bool:
    """Whether another process could take the lock."""

    def attempt() -> bool:
        with locked(path) as alone:
            return alone

    ending = isolation.run(attempt, timeout_seconds=60)
    assert ending.kind == "returned", ending.reason
    return bool(ending.value)


def test_a_lock_is_held_by_one_process_until_it_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path) as alone:
        assert alone
        assert not is_free(path)
    assert is_free(path)


def test_a_device_has_one_lease_and_devices_have_their_own(tmp_path: Path) -> None:
    with lease("cpu", shared=False) as alone:
        assert alone
        names = [file.name for file in tmp_path.glob("opbench-*.lock")]
        assert len(names) == 1
        assert names[0].endswith("-cpu.lock")

        def second(device: str, shared: bool) -> bool:
            with lease(device, shared=shared) as alone:
                return alone

        assert isolation.run(second, "cuda", False, timeout_seconds=60).value is True
        assert isolation.run(second, "cpu", True, timeout_seconds=60).value is False
        refused = isolation.run(second, "cpu", False, timeout_seconds=60)
        assert refused.kind == "failed"
        assert "another opbench run is measuring on this machine's CPU" in refused.reason


def test_each_gpu_has_a_lease_of_its_own() -> None:
    def second(device: str) -> bool:
        with lease(device, shared=False) as alone:
            return alone

    with lease("cuda-GPU-1", shared=False):
        assert isolation.run(second, "cuda-GPU-2", timeout_seconds=60).value is True
        refused = isolation.run(second, "cuda-GPU-1", timeout_seconds=60)
        assert "another opbench run is measuring on this machine's GPU; wait" in refused.reason


def test_a_refused_lease_is_the_machine_s_fault(tmp_path: Path) -> None:
    def refused() -> int:
        try:
            with lease("cpu", shared=False):
                return 0
        except MachineError as error:
            return error.exit_status

    with lease("cpu", shared=False):
        assert isolation.run(refused, timeout_seconds=60).value == 6


@pytest.mark.parametrize(("flags", "status"), [([], 6), (["--allow-noisy"], 0)], ids=["refused", "allowed"])
def test_a_second_run_is_refused_or_flagged(workshop: Workshop, flags: list[str], status: int) -> None:
    before = f"import tempfile\ntempfile.tempdir = {str(workshop.folder)!r}\n"
    quiet = before + "from opbench.measure import machine\nmachine.cpu_pressure = lambda: 0.0"
    workshop.plugin("scale")
    suite = workshop.suite(["scale"], measure={"allow_noisy": False})
    with lease("cpu", shared=False):
        done = workshop.opbench("run", suite, "--out", "run", *flags, before=quiet)
    assert done.status == status, done.errors
    if status:
        assert done.errors.startswith("opbench: another opbench run is measuring on this machine's CPU; wait for it")
        assert done.errors.count("\n") == 1
        assert not (workshop.folder / "run").exists()
    else:
        assert "noisy" in done.output
