"""Why there is no GPU to measure on, in one line with what to do; and, where there is one, that it is found."""

from __future__ import annotations

import pytest
import torch

from opbench import isolation
from opbench.measure import gpu
from opbench.measure.gpu import UsableGpu, missing


def test_a_torch_without_cuda_is_named_with_the_one_to_install() -> None:
    said = missing("2.13.0+cpu", None, "Torch not compiled with CUDA enabled", None)
    assert said.startswith("this PyTorch (2.13.0+cpu) is built without CUDA; install one with CUDA: pip install torch")


def test_hidden_devices_are_named() -> None:
    said = missing("2.13.0+cu130", "13.0", "No CUDA GPUs are available", "")
    assert said.startswith("CUDA finds no usable GPU among CUDA_VISIBLE_DEVICES='' (No CUDA GPUs are available)")


def test_a_driver_that_does_not_answer_is_told_as_torch_tells_it() -> None:
    said = missing("2.13.0+cu130", "13.0", "Found no NVIDIA driver on your system.", None)
    assert "CUDA 13.0 does not start here (Found no NVIDIA driver on your system.)" in said
    assert "opbench env" in said


def test_every_answer_says_how_to_measure_without_one() -> None:
    answers = [missing("2.13.0", built, "no", visible) for built in (None, "13.0") for visible in (None, "1")]
    assert all(said.endswith("or measure on the CPU: --set measure.device=cpu") for said in answers)
    assert all("\n" not in said for said in answers)


@pytest.mark.skipif(torch.version.cuda is not None, reason="this PyTorch is built with CUDA")
def test_without_cuda_none_is_found() -> None:
    found = gpu.find()
    assert isinstance(found, str)
    assert torch.__version__ in found


@pytest.mark.gpu
def test_with_one_it_is_found_in_a_child() -> None:
    ending = isolation.run(gpu.find, timeout_seconds=120, cuda=True)
    assert isinstance(ending.value, UsableGpu), ending
    assert ending.value.uuid.startswith("GPU-")
    assert ending.value.spendable_bytes > 1 << 30
