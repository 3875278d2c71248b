"""What a machine lacks for a GPU is told in one line each, with the command that mends it."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from opbench.readiness import Facts, gather, hindrances, obstacles, why_no_gpu

READY = Facts(
    torch="2.11.0+cu130",
    torch_cuda=(13, 0),
    distributions={"cupy-cuda13x": "14.2.0", "nvidia-cuda-nvrtc": "13.0.88", "nvidia-ml-py": "13.580.65"},
    driver="580.65.06",
    driver_cuda=(13, 0),
    has_device_files=True,
    gpus={"GPU 0, NVIDIA H200": (9, 0)},
)
NO_GPU: dict[str, Any] = {"driver": None, "driver_cuda": None, "gpus": {}}


def facts(**changes: Any) -> Facts:
    return dataclasses.replace(READY, **changes)


def with_distributions(*names: str) -> Facts:
    return facts(distributions=dict.fromkeys(names, "1"))


def test_a_machine_that_lacks_nothing_is_told_nothing() -> None:
    assert obstacles(READY) == hindrances(READY) == []
    assert why_no_gpu(READY) is None


@pytest.mark.parametrize(
    ("lacking", "said", "command"),
    [
        (facts(**NO_GPU, has_device_files=False), "there is no NVIDIA driver", "install one"),
        (facts(**NO_GPU), "the NVIDIA driver does not answer", "nvidia-smi"),
        (facts(gpus={}), "driver 580.65.06 finds no GPU", "nvidia-smi"),
        (facts(gpus={}, hidden=""), "CUDA_VISIBLE_DEVICES='' hides every GPU", "unset CUDA_VISIBLE_DEVICES"),
        (
            facts(torch="2.11.0+cpu", torch_cuda=None),
            "torch 2.11.0+cpu is built without CUDA",
            "https://download.pytorch.org/whl/cu130",
        ),
        (
            facts(torch="2.11.0+cpu", torch_cuda=None, driver_cuda=(12, 4)),
            "torch 2.11.0+cpu is built without CUDA",
            "https://download.pytorch.org/whl/cu126",
        ),
        (
            facts(driver="550.54.14", driver_cuda=(12, 4)),
            "driver 550.54.14 runs CUDA 12.4 at most and torch 2.11.0+cu130 needs 13",
            "https://download.pytorch.org/whl/cu126",
        ),
        (facts(gpus={"GPU 0, Tesla P40": (6, 1)}), "GPU 0, Tesla P40 has compute capability 6.1; 7.5 is", "newer GPU"),
    ],
)
def test_what_keeps_torch_from_a_gpu(lacking: Facts, said: str, command: str) -> None:
    line = why_no_gpu(lacking)
    assert line is not None
    assert line.startswith(said)
    assert command in line
    assert "\n" not in line


def test_a_driver_that_nobody_asked_is_no_obstacle() -> None:
    """Without NVML's binding nothing is known of the driver, and torch may do without it."""
    unasked = facts(**NO_GPU, distributions={"cupy-cuda13x": "14.2.0", "nvidia-cuda-nvrtc": "13.0.88"})
    assert obstacles(unasked) == []
    (line,) = hindrances(unasked)
    assert line.endswith("-m pip install nvidia-ml-py")


def test_a_driver_runs_what_was_built_for_an_earlier_or_the_same_cuda() -> None:
    """Within a major version the minor one does not matter."""
    assert obstacles(facts(torch_cuda=(12, 6))) == []
    assert obstacles(facts(torch_cuda=(13, 2))) == []


def test_all_obstacles_are_listed_the_most_fundamental_first() -> None:
    said = obstacles(facts(**NO_GPU, has_device_files=False, torch_cuda=None))
    assert [line.split()[0] for line in said] == ["there", "torch"]


@pytest.mark.parametrize(
    ("lacking", "said", "command"),
    [
        (
            with_distributions("nvidia-ml-py"),
            "CUDA kernels need CuPy, which is not installed",
            "install 'opbench[cuda13]'",
        ),
        (
            facts(distributions={"nvidia-ml-py": "1"}, driver_cuda=(12, 4), torch_cuda=(12, 4)),
            "CUDA kernels need CuPy",
            "install 'opbench[cuda12]'",
        ),
        (
            with_distributions("cupy-cuda13x", "cupy-cuda12x", "nvidia-ml-py"),
            "two builds of CuPy are installed (cupy-cuda12x, cupy-cuda13x)",
            "uninstall -y cupy-cuda12x cupy-cuda13x",
        ),
        (
            with_distributions("cupy-cuda13x", "nvidia-ml-py"),
            "cupy-cuda13x has no NVRTC to compile kernels with",
            "install nvidia-cuda-nvrtc",
        ),
        (
            with_distributions("cupy-cuda12x", "nvidia-cuda-nvrtc", "nvidia-ml-py"),
            "cupy-cuda12x has no NVRTC",
            "install nvidia-cuda-nvrtc-cu12",
        ),
        (
            facts(driver="550.54.14", driver_cuda=(12, 4), torch_cuda=(12, 4)),
            "cupy-cuda13x needs CUDA 13 and driver 550.54.14 runs 12.4 at most",
            "uninstall -y cupy-cuda13x",
        ),
        (
            with_distributions("cupy-cuda13x", "nvidia-cuda-nvrtc"),
            "clocks, throttling and other users of a GPU are not known without nvidia-ml-py",
            "install nvidia-ml-py",
        ),
    ],
)
def test_what_keeps_kernels_from_compiling_or_a_gpu_from_being_known(lacking: Facts, said: str, command: str) -> None:
    (line,) = hindrances(lacking)
    assert line.startswith(said)
    assert command in line
    assert "\n" not in line


def test_the_system_s_own_nvrtc_will_do() -> None:
    system = dataclasses.replace(with_distributions("cupy-cuda13x", "nvidia-ml-py"), has_nvrtc=True)
    assert hindrances(system) == []


def test_cupy_built_from_source_brings_its_own_choice_of_cuda() -> None:
    assert hindrances(with_distributions("cupy", "nvidia-ml-py")) == []


def test_this_machine_is_looked_at_as_it_is() -> None:
    import torch

    found = gather()
    assert found.torch == torch.__version__
    assert (found.torch_cuda is None) == (torch.version.cuda is None)
    assert found.distributions["torch"].startswith(torch.__version__.partition("+")[0])
    assert found.driver_cuda is None or found.driver_cuda >= (10, 0)


@pytest.mark.gpu
def test_a_machine_with_a_usable_gpu_has_no_obstacles() -> None:
    found = gather()
    assert obstacles(found) == []
    assert all(re.match(r"GPU \d+, ", name) for name in found.gpus)
