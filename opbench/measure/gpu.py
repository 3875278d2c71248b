"""Which GPU a run measures on, and what is set before any work there."""

from __future__ import annotations

from dataclasses import dataclass

from opbench.errors import said

_SHARE_OF_MEMORY = 0.9


@dataclass(frozen=True, kw_only=True)
class UsableGpu:
    """What must be known of a GPU before a run."""

    uuid: str
    spendable_bytes: int
    """Memory that a case may take: what nobody holds, less a share for what nobody foresees."""


def find() -> UsableGpu | str:
    """Return the GPU that torch calls current, or what torch says. Initialises CUDA: for child processes only."""
    import torch

    try:
        torch.cuda.init()
        free_bytes, _ = torch.cuda.mem_get_info()
        properties = torch.cuda.get_device_properties()
    # torch says with an assertion that it was built without CUDA.
    except (RuntimeError, AssertionError) as error:
        return f"CUDA does not start here: {said(error)}"
    return UsableGpu(uuid=f"GPU-{properties.uuid}", spendable_bytes=int(_SHARE_OF_MEMORY * free_bytes))


def strict_float32() -> None:
    """Forbid TF32 in this process and its children: float32 is then float32, in every implementation alike."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
