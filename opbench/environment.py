"""What a run was taken on: processor, memory, GPU, versions, settings, noise. Captured once per run, stored whole."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil

from opbench import readiness
from opbench.errors import MachineError
from opbench.measure import machine, nvml, processor
from opbench.measure.ceilings import Ceilings

_DISTRIBUTIONS = (
    "opbench", "torch", "numpy", "scipy", "pandas", "fvcore", "pydantic", "triton", "cupy-cuda12x", "cupy-cuda13x",
    "nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "nvidia-ml-py",
)  # fmt: skip
# All that may change speed; the one that opbench sets itself does not.
_VARIABLES = re.compile(
    r"^(?!PYTORCH_NVML_)(OMP|MKL|KMP|GOMP|OPENBLAS|TORCH|PYTORCH|CUDA|NVIDIA|CUPY|MALLOC|OPBENCH)_|^LD_PRELOAD$"
)


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One NVIDIA device, as its driver describes it."""

    name: str
    uuid: str
    memory_bytes: int
    compute_capability: str | None = None
    """'9.0'"""
    multiprocessors: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    max_sm_clock_mhz: int | None = None
    max_memory_clock_mhz: int | None = None
    power_limit_watts: float | None = None
    ecc: bool | None = None
    """Whether memory errors are corrected, which costs some GPUs bandwidth."""
    mig: bool | None = None
    """Whether the GPU is split into instances."""
    persistence: bool | None = None
    """Whether the driver stays loaded when nobody uses the GPU."""


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
    ceilings: tuple[Ceilings, ...] = ()
    """What the device that the run measured on can do at best, on a CPU by threads; empty where nobody measured it."""


def capture(command: Iterable[str] = (), ceilings: Iterable[Ceilings] = ()) -> Environment:
    """Read the environment. Imports torch, and touches neither CUDA nor a thread pool, so that forking stays safe.

    Args:
        command: the command line that began the run.
        ceilings: what `opbench.probing.ceilings` found, passed on.

    Raises:
        MachineError: two builds of CuPy are installed.
    """
    installed = readiness.distributions()
    refuse_two_cupys(installed)
    import torch

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
        driver=nvml.driver_version(),
        gpus=_gpus(),
        versions={name: installed[name] for name in _DISTRIBUTIONS if name in installed}
        | {"cuda": str(torch.version.cuda)},
        settings={
            "matmul TF32": str(torch.backends.cuda.matmul.allow_tf32),
            "cuDNN TF32": str(torch.backends.cudnn.allow_tf32),
            "cuDNN benchmark": str(torch.backends.cudnn.benchmark),
            "oneDNN": str(torch.backends.mkldnn.enabled),
        },
        variables={name: _unicode(value) for name, value in sorted(os.environ.items()) if _VARIABLES.match(name)},
        commit=_commit(),
        command=tuple(map(_unicode, command)),
        ceilings=tuple(ceilings),
    )


def refuse_two_cupys(distributions: Iterable[str]) -> None:
    """Raise when CuPy's CUDA 12 and CUDA 13 builds lie over each other."""
    builds = readiness.cupy_builds(distributions)
    if len(builds) > 1:
        raise MachineError(readiness.two_cupys(builds))


def _gpus() -> tuple[Gpu, ...]:
    with nvml.driver() as ask:
        return tuple(gpu_of(ask, handle) for handle in nvml.handles(ask)) if ask else ()


def gpu_of(ask: nvml.Ask, handle: object) -> Gpu:
    """Ask the driver what does not change while a run goes on, and the clocks at this moment."""
    state = nvml.state_of(ask, handle)
    memory, ecc = ask("DeviceGetMemoryInfo", handle), ask("DeviceGetCurrentEccMode", handle)
    capability, lanes = ask("DeviceGetCudaComputeCapability", handle), ask("DeviceGetNumGpuCores", handle)
    return Gpu(
        name=state.name,
        uuid=state.uuid,
        memory_bytes=memory.total if memory else 0,
        compute_capability=".".join(map(str, capability)) if capability else None,
        multiprocessors=lanes // _lanes(capability) if lanes and capability else None,
        sm_clock_mhz=_mhz(state.sm_clock_hz),
        memory_clock_mhz=_mhz(state.memory_clock_hz),
        max_sm_clock_mhz=_mhz(state.max_sm_clock_hz),
        max_memory_clock_mhz=_mhz(state.max_memory_clock_hz),
        power_limit_watts=state.power_limit_watts,
        ecc=None if ecc is None else bool(ecc),
        mig=state.mig,
        persistence=state.persistence,
    )


def _lanes(capability: tuple[int, int]) -> int:
    """Float32 lanes of a multiprocessor: 64 up to the A100, 128 since."""
    return 64 if capability <= (8, 0) else 128


def _mhz(hertz: float | None) -> int | None:
    return None if hertz is None else round(hertz / 1e6)


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
