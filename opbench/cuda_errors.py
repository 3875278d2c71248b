"""What a GPU's errors mean, told by their words: those of PyTorch, CuPy and the driver are the same."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

_SPOILS_THE_PROCESS = {
    "an illegal memory access was encountered": "cudaErrorIllegalAddress",
    "unspecified launch failure": "cudaErrorLaunchFailure",
    "misaligned address": "cudaErrorMisalignedAddress",
    "an illegal instruction was encountered": "cudaErrorIllegalInstruction",
    "invalid program counter": "cudaErrorInvalidPc",
    "operation not supported on global/shared address space": "cudaErrorInvalidAddressSpace",
    "hardware stack error": "cudaErrorHardwareStackError",
    "device-side assert triggered": "cudaErrorAssert",
    "the launch timed out and was terminated": "cudaErrorLaunchTimeout",
}
_LOSES_THE_DEVICE = {
    "no CUDA-capable device is detected": "cudaErrorNoDevice",
    "CUDA-capable device(s) is/are busy or unavailable": "cudaErrorDevicesUnavailable",
    "uncorrectable ECC error encountered": "cudaErrorECCUncorrectable",
    "uncorrectable NVLink error detected during the execution": "cudaErrorNvlinkUncorrectable",
    "GPU is lost": "NVML_ERROR_GPU_IS_LOST",
}

_SIZE = r"([\d.]+ [KMGT]?i?B|\d+ bytes)"
_TRIED = re.compile(rf"tried to allocate {_SIZE}", re.IGNORECASE)
_CAPACITY = re.compile(rf"total capacity of {_SIZE} of which {_SIZE} is free")
_HELD = re.compile(rf"of the allocated memory {_SIZE} is allocated by pytorch", re.IGNORECASE)


class CudaError(NamedTuple):
    """An error after which a process can do nothing more on its GPU."""

    name: str
    words: str
    cost: Literal["process", "device"]
    """Whether a new process can go on, or the device itself is no longer to be had."""

    def __str__(self) -> str:
        return f"{self.name}: {self.words}"


def find(text: str) -> CudaError | None:
    """Find such an error in what a program said; errors that leave a process usable, as a bad launch does, are none."""
    lower = text.lower()
    for words, name in _SPOILS_THE_PROCESS.items():
        if words.lower() in lower:
            return CudaError(name, words, "process")
    for words, name in _LOSES_THE_DEVICE.items():
        if words.lower() in lower:
            return CudaError(name, words, "device")
    return None


def shortage(text: str) -> str | None:
    """'tried to allocate 20.00 GiB; 5.75 GiB of the GPU's 79.15 GiB were free', from PyTorch's long line."""
    tried, capacity, held = _TRIED.search(text), _CAPACITY.search(text), _HELD.search(text)
    if tried is None or capacity is None:
        return None
    beyond = f" beyond the {held[1]} it held" if held else ""
    return f"tried to allocate {tried[1]}{beyond}; {capacity[2]} of the GPU's {capacity[1]} were free"
