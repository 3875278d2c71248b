"""The GPU that a run measures on."""

from __future__ import annotations

import pytest
import torch

from opbench import isolation
from opbench.measure import gpu
from opbench.measure.gpu import UsableGpu


@pytest.mark.skipif(torch.version.cuda is not None, reason="this PyTorch is built with CUDA")
def test_without_cuda_none_is_found() -> None:
    found = gpu.find()
    assert found == "CUDA does not start here: Torch not compiled with CUDA enabled"


@pytest.mark.gpu
def test_with_one_it_is_found_in_a_child() -> None:
    ending = isolation.run(gpu.find, timeout_seconds=120, cuda=True)
    assert isinstance(ending.value, UsableGpu), ending
    assert ending.value.uuid.startswith("GPU-")
    assert ending.value.spendable_bytes > 1 << 30
