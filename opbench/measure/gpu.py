"""Which GPU a run measures on, or what is missing for one."""

from __future__ import annotations

import os
from dataclasses import dataclass

from opbench.errors import said

_SHARE_OF_MEMORY = 0.9
_INSTEAD = "or measure on the CPU: --set measure.device=cpu"


@dataclass(frozen=True, kw_only=True)
class UsableGpu:
    """What must be known of a GPU before a run."""

    uuid: str
    spendable_bytes: int
    """Memory that a case may take: what nobody holds, less a share for what nobody foresees."""


def find() -> UsableGpu | str:
    """Return the GPU that torch calls current, or what is missing. Initialises CUDA: for child processes only."""
    import torch

    try:
        torch.cuda.init()
        free_bytes, _ = torch.cuda.mem_get_info()
        properties = torch.cuda.get_device_properties()
    # torch says with an assertion that it was built without CUDA.
    except (RuntimeError, AssertionError) as error:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return missing(torch.__version__, torch.version.cuda, said(error), visible)
    return UsableGpu(uuid=f"GPU-{properties.uuid}", spendable_bytes=int(_SHARE_OF_MEMORY * free_bytes))


def missing(torch_version: str, built_for: str | None, error: str, visible: str | None) -> str:
    """Say in one line why there is no GPU to measure on, and what to do.

    Args:
        torch_version: '2.13.0+cpu'.
        built_for: the CUDA version torch was built for; None without.
        error: what torch said when CUDA was to start.
        visible: the environment variable that hides devices; None where it is not set.
    """
    if built_for is None:
        remedy = "install one with CUDA: pip install torch --index-url https://download.pytorch.org/whl/cu130"
        return f"this PyTorch ({torch_version}) is built without CUDA; {remedy}; {_INSTEAD}"
    if visible is not None:
        return f"CUDA finds no usable GPU among CUDA_VISIBLE_DEVICES={visible!r} ({error}); change it, {_INSTEAD}"
    return f"CUDA {built_for} does not start here ({error}); see what is missing with: opbench env; {_INSTEAD}"


def strict_float32() -> None:
    """Forbid TF32 in this process and its children: float32 is then float32, in every implementation alike."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
