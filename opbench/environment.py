"""What a run was taken on: processor, memory, GPU, versions, settings, noise. Captured once per run, stored whole."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil

from opbench.errors import MachineError
from opbench.measure import machine, processor
from opbench.measure.ceilings import Ceilings

_DISTRIBUTIONS = (
    "opbench", "torch", "numpy", "scipy", "pandas", "fvcore", "pydantic", "triton", "cupy-cuda12x", "cupy-cuda13x",
)  # fmt: skip
_VARIABLES = re.compile(r"^(OMP|MKL|KMP|GOMP|OPENBLAS|TORCH|PYTORCH|CUDA|NVIDIA|CUPY|MALLOC|OPBENCH)_|^LD_PRELOAD$")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One NVIDIA device, as its driver describes it."""

    name: str
    uuid: str
    memory_bytes: int
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    power_limit_watts: float | None = None


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The machine, the software and the state they were in when a run began."""

    captured: str
    """UTC, ISO 8601."""
    host: str
    system: str
    python: str
    processor: str
    physical_cores: int | None
    logical_cores: int | None
    usable_cores: int
    """Logical cores this process may run on."""
    capability: str
    """Vector instructions torch uses: 'AVX512', …"""
    caches: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the caches above the first core, by name: 'L1 data', 'L2', 'L3'."""
    memory_bytes: int
    clock_mhz: float | None = None
    """Current clock of the first core; None where the system does not say."""
    governor: str | None
    """Frequency policy of the first core; None where the system does not say, as in most virtual machines."""
    smt: bool | None
    load: float
    """One-minute load average."""
    pressure: float | None = None
    """Share of the last ten seconds in which some task waited for a processor; None where the kernel does not tell."""
    noise: str | None = None
    """What would spoil a measurement now, in words; None for a quiet machine."""
    driver: str | None
    gpus: tuple[Gpu, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    """What torch is told: TF32, cuDNN, deterministic algorithms."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that change speed."""
    commit: str | None = None
    """Git commit of the working directory; ends in '+' with uncommitted changes."""
    command: tuple[str, ...] = ()
    ceilings: Ceilings | None = None
    """What the device that the run measured on can do at best; None where nobody measured it."""


def capture(command: Iterable[str] = (), ceilings: Ceilings | None = None) -> Environment:
    """Read the environment. Imports torch, and touches neither CUDA nor a thread pool, so that forking stays safe.

    Args:
        command: the command line that began the run.
        ceilings: what `opbench.probing.ceilings` found, passed on.

    Raises:
        MachineError: two builds of CuPy are installed.
    """
    # What an interrupted uninstallation leaves behind has no name.
    described = [distribution.metadata for distribution in importlib.metadata.distributions()]
    refuse_two_cupys(metadata["Name"] for metadata in described if "Name" in metadata)
    import torch

    driver, gpus = _gpus()
    return Environment(
        captured=datetime.now(UTC).isoformat(timespec="seconds"),
        host=platform.node(),
        system=platform.platform(),
        python=platform.python_version(),
        processor=processor.name(),
        physical_cores=psutil.cpu_count(logical=False),
        logical_cores=psutil.cpu_count(),
        usable_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1,
        capability=torch.backends.cpu.get_cpu_capability(),
        caches=processor.caches_by_name(),
        memory_bytes=psutil.virtual_memory().total,
        clock_mhz=_clock_mhz(),
        governor=_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        smt={"1": True, "0": False}.get(_text("/sys/devices/system/cpu/smt/active") or ""),
        load=os.getloadavg()[0],
        pressure=machine.cpu_pressure(),
        noise=machine.noise(),
        driver=driver,
        gpus=gpus,
        versions=_versions() | {"cuda": str(torch.version.cuda)},
        settings={
            "matmul TF32": str(torch.backends.cuda.matmul.allow_tf32),
            "cuDNN TF32": str(torch.backends.cudnn.allow_tf32),
            "cuDNN benchmark": str(torch.backends.cudnn.benchmark),
            "oneDNN": str(torch.backends.mkldnn.enabled),
        },
        variables={name: _unicode(value) for name, value in sorted(os.environ.items()) if _VARIABLES.match(name)},
        commit=_commit(),
        command=tuple(map(_unicode, command)),
        ceilings=ceilings,
    )


def refuse_two_cupys(distributions: Iterable[str]) -> None:
    """Raise when CuPy's CUDA 12 and CUDA 13 builds lie over each other; pip does not notice."""
    normalised = {re.sub(r"[-_.]+", "-", name).lower() for name in distributions}
    builds = sorted(name for name in normalised if re.fullmatch(r"cupy(-cuda\d+x|-rocm.*)?", name))
    if len(builds) > 1:
        raise MachineError(
            f"two builds of CuPy are installed ({', '.join(builds)}) and share one folder; "
            f"run: {Path(sys.executable).name} -m pip uninstall -y {' '.join(builds)}, then install one: "
            "'opbench[cuda13]' for a driver of 580 or newer, else 'opbench[cuda12]'"
        )


def _versions() -> dict[str, str]:
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _gpus() -> tuple[str | None, tuple[Gpu, ...]]:
    try:
        import pynvml
    except ImportError:
        return None, ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None, ()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        gpus = tuple(
            Gpu(
                name=pynvml.nvmlDeviceGetName(handle),
                uuid=pynvml.nvmlDeviceGetUUID(handle),
                memory_bytes=pynvml.nvmlDeviceGetMemoryInfo(handle).total,
                sm_clock_mhz=pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
                memory_clock_mhz=pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
                power_limit_watts=pynvml.nvmlDeviceGetPowerManagementLimit(handle) / 1000,
            )
            for handle in handles
        )
        return pynvml.nvmlSystemGetDriverVersion(), gpus
    finally:
        pynvml.nvmlShutdown()


def _clock_mhz() -> float | None:
    frequency = psutil.cpu_freq()
    return frequency.current if frequency else None


def _commit() -> str | None:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _unicode(text: str) -> str:
    """The text with bytes that are no UTF-8 spelled out, so that JSON can hold it."""
    return text.encode(errors="backslashreplace").decode()


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
