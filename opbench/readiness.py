"""What keeps this machine from measuring on a GPU, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from collections.abc import Iterable, Mapping
from ctypes.util import find_library
from dataclasses import dataclass, field
from pathlib import Path

from opbench.measure import nvml

OLDEST_CAPABILITY = (7, 5)

_DEVICE_FILES = ("/dev/nvidiactl", "/dev/dxg")
"""Of the driver on Linux, and on Windows' Linux."""
_CUPY = r"cupy(-cuda\d+x|-rocm.*)?"
_PIP = f"{Path(sys.executable).name} -m pip"

Version = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is installed, and what the driver says; versions of CUDA as (major, minor)."""

    torch: str
    torch_cuda: Version | None
    """That torch was built with; None for a build without CUDA."""
    distributions: Mapping[str, str] = field(default_factory=dict)
    """Version by name, of CuPy, NVRTC and NVML's binding."""
    driver: str | None = None
    driver_cuda: Version | None = None
    """Newest that the driver runs."""
    has_device_files: bool = False
    """Whether the kernel module is loaded, whatever NVML says."""
    gpus: Mapping[str, Version | None] = field(default_factory=dict)
    """Compute capability by name, of those that `CUDA_VISIBLE_DEVICES` leaves."""
    hidden: str | None = None
    """The value of `CUDA_VISIBLE_DEVICES` where it leaves none of several GPUs."""
    has_nvrtc: bool = False
    """Whether the system has NVRTC, outside of Python's packages."""


def why_no_gpu(facts: Facts | None = None) -> str | None:
    """Say in one line why nothing can be measured on a GPU here, and what to do; None where it can."""
    return next(iter(obstacles(facts or gather())), None)


def obstacles(facts: Facts) -> list[str]:
    """List what keeps torch from computing on a GPU, the most fundamental first."""
    found = []
    newest = facts.driver_cuda or (13, 0)
    if not facts.has_device_files and facts.driver is None:
        found.append("there is no NVIDIA driver; install one from nvidia.com/drivers")
    elif facts.driver is None:
        if "nvidia-ml-py" in facts.distributions:  # Without it nobody has asked.
            found.append("the NVIDIA driver does not answer; see what nvidia-smi says, and restart the machine")
    elif facts.hidden is not None:
        found.append(f"CUDA_VISIBLE_DEVICES={facts.hidden!r} hides every GPU; run: unset CUDA_VISIBLE_DEVICES")
    elif not facts.gpus:
        found.append(f"driver {facts.driver} finds no GPU; see what nvidia-smi says")
    if facts.torch_cuda is None:
        found.append(f"torch {facts.torch} is built without CUDA; run: {_install_torch(newest)}")
    elif facts.driver_cuda is not None and facts.driver_cuda[0] < facts.torch_cuda[0]:
        found.append(
            f"driver {facts.driver} runs CUDA {_dotted(facts.driver_cuda)} at most and torch {facts.torch} needs "
            f"{facts.torch_cuda[0]}; install a newer driver, or run: {_install_torch(newest)}"
        )
    for name, capability in facts.gpus.items():
        if capability is not None and capability < OLDEST_CAPABILITY:
            oldest = _dotted(OLDEST_CAPABILITY)
            found.append(f"{name} has compute capability {_dotted(capability)}; {oldest} is the least; use a newer GPU")
    return found


def hindrances(facts: Facts) -> list[str]:
    """List what keeps opbench's own CUDA kernels from compiling, or the GPU's state from being known."""
    found = []
    builds = cupy_builds(facts.distributions)
    if len(builds) > 1:
        found.append(two_cupys(builds))
    elif not builds:
        extra = "cuda13" if facts.driver_cuda is None or facts.driver_cuda[0] >= 13 else "cuda12"
        found.append(f"CUDA kernels need CuPy, which is not installed; run: {_PIP} install 'opbench[{extra}]'")
    elif built := re.search(r"cuda(\d+)x", builds[0]):
        major = int(built[1])
        if facts.driver_cuda is not None and facts.driver_cuda[0] < major:
            found.append(
                f"{builds[0]} needs CUDA {major} and driver {facts.driver} runs {_dotted(facts.driver_cuda)} at most; "
                f"run: {_PIP} uninstall -y {builds[0]} && {_PIP} install 'opbench[cuda12]'"
            )
        nvrtc = "nvidia-cuda-nvrtc" if major >= 13 else f"nvidia-cuda-nvrtc-cu{major}"
        if nvrtc not in facts.distributions and not facts.has_nvrtc:
            found.append(f"{builds[0]} has no NVRTC to compile kernels with; run: {_PIP} install {nvrtc}")
    if "nvidia-ml-py" not in facts.distributions:
        found.append(
            "clocks, throttling and other users of a GPU are not known without nvidia-ml-py; "
            f"run: {_PIP} install nvidia-ml-py"
        )
    return found


def cupy_builds(distributions: Iterable[str]) -> list[str]:
    """Names of the installed builds of CuPy; more than one lie over each other, and pip does not notice."""
    return sorted(name for name in set(map(_normalised, distributions)) if re.fullmatch(_CUPY, name))


def two_cupys(builds: Iterable[str]) -> str:
    """Say what to do about several builds of CuPy."""
    names = list(builds)
    return (
        f"two builds of CuPy are installed ({', '.join(names)}) and share one folder; "
        f"run: {_PIP} uninstall -y {' '.join(names)}, then install one: "
        "'opbench[cuda13]' for a driver of 580 or newer, else 'opbench[cuda12]'"
    )


def gather() -> Facts:
    """Look at this machine. Imports torch and touches no CUDA, so that forking stays safe."""
    import torch

    driver, newest, all_gpus, visible = None, None, [], []
    with nvml.driver() as ask:
        if ask is not None:
            driver, newest = ask("SystemGetDriverVersion"), ask("SystemGetCudaDriverVersion_v2")
            all_gpus, visible = nvml.handles(ask), nvml.visible_handles(ask)
            capabilities = {
                f"GPU {index}, {ask('DeviceGetName', handle)}": ask("DeviceGetCudaComputeCapability", handle)
                for index, handle in enumerate(visible)
            }
    return Facts(
        torch=torch.__version__,
        torch_cuda=_version(torch.version.cuda),
        distributions=distributions(),
        driver=driver,
        driver_cuda=None if newest is None else (newest // 1000, newest % 1000 // 10),
        has_device_files=any(Path(name).exists() for name in _DEVICE_FILES),
        gpus=capabilities if visible else {},
        hidden=os.environ.get("CUDA_VISIBLE_DEVICES") if all_gpus and not visible else None,
        has_nvrtc=find_library("nvrtc") is not None or "CUDA_PATH" in os.environ,
    )


def distributions() -> dict[str, str]:
    """Version of every installed distribution, by its normalised name."""
    # What an interrupted uninstallation leaves behind has no name.
    described = [distribution.metadata for distribution in importlib.metadata.distributions()]
    return {
        _normalised(metadata["Name"]): metadata["Version"]
        for metadata in described
        if "Name" in metadata and "Version" in metadata
    }


def _normalised(name: str) -> str:
    """'CuPy_CUDA12x' -> 'cupy-cuda12x': one distribution may be written in several ways."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _install_torch(driver_cuda: Version) -> str:
    """The command for a build of torch that the driver runs."""
    build = "cu130" if driver_cuda[0] >= 13 else "cu126"
    return f"{_PIP} install --force-reinstall torch --index-url https://download.pytorch.org/whl/{build}"


def _version(text: str | None) -> Version | None:
    found = re.match(r"(\d+)\.(\d+)", text or "")
    return (int(found[1]), int(found[2])) if found else None


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))
