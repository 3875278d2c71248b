"""CUDA's errors are known by their words, whoever passes them on."""

import pytest

from opbench.cuda_errors import CudaError, find, shortage


@pytest.mark.parametrize(
    ("said", "name", "cost"),
    [
        ("CUDA error: an illegal memory access was encountered\nSearch for …", "cudaErrorIllegalAddress", "process"),
        ("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered", "cudaErrorIllegalAddress", "process"),
        ("cudaErrorLaunchFailure: unspecified launch failure", "cudaErrorLaunchFailure", "process"),
        ("CUDA error: misaligned address", "cudaErrorMisalignedAddress", "process"),
        ("CUDA error: device-side assert triggered", "cudaErrorAssert", "process"),
        ("CUDA error: the launch timed out and was terminated", "cudaErrorLaunchTimeout", "process"),
        ("cudaErrorNoDevice: no CUDA-capable device is detected", "cudaErrorNoDevice", "device"),
        (
            "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
            "cudaErrorDevicesUnavailable",
            "device",
        ),
        ("CUDA error: uncorrectable ECC error encountered", "cudaErrorECCUncorrectable", "device"),
        ("NVMLError_GpuIsLost: GPU is lost", "NVML_ERROR_GPU_IS_LOST", "device"),
    ],
)
def test_what_ends_a_process_or_a_device_is_found(said: str, name: str, cost: str) -> None:
    found = find(said)
    assert found is not None
    assert (found.name, found.cost) == (name, cost)
    assert found.words in said
    assert str(found) == f"{name}: {found.words}"


@pytest.mark.parametrize(
    "said",
    [
        "",
        "expected 3 channels, got 4",
        "CUDA error: out of memory",
        "CUDA error: invalid configuration argument",
        "CUDA error: too many resources requested for launch",
        "CUDA error: no kernel image is available for execution on the device",
    ],
)
def test_what_leaves_the_process_usable_is_no_such_error(said: str) -> None:
    assert find(said) is None


def test_of_two_errors_the_one_that_spoiled_the_process_is_told() -> None:
    both = "CUDA error: uncorrectable ECC error encountered, after CUDA error: misaligned address"
    assert find(both) == CudaError("cudaErrorMisalignedAddress", "misaligned address", "process")


def test_a_shortage_has_its_sizes() -> None:
    said = (
        "CUDA out of memory. Tried to allocate 512.00 MiB. GPU 1 has a total capacity of 79.15 GiB of which {} is free."
    )
    short = said.format("5.75 GiB")
    assert shortage(short) == "tried to allocate 512.00 MiB; 5.75 GiB of the GPU's 79.15 GiB were free"
    assert shortage(said.format("0 bytes")) == "tried to allocate 512.00 MiB; 0 bytes of the GPU's 79.15 GiB were free"
    held = short + " Of the allocated memory 70.00 GiB is allocated by PyTorch, and 1.00 GiB is reserved"
    assert "512.00 MiB beyond the 70.00 GiB it held; 5.75" in (shortage(held) or "")


@pytest.mark.parametrize("said", ["", "CUDA out of memory.", "CUDA out of memory. Tried to allocate 2.00 GiB."])
def test_without_sizes_there_is_nothing_to_tell(said: str) -> None:
    assert shortage(said) is None
