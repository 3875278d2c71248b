"""A kernel as a function: called on tensors, it plans its launch once per shapes and runs it on their device."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from opbench.cuda import device, emulation
from opbench.cuda.plan import Launch

Planner = Callable[..., Launch | None]
"""`plan(params, dtype, *shapes) -> Launch`: the dtype is the first tensor's, a shape is None for a tensor left out."""

MAX_PLANS = 4096
"""Plans a kernel remembers; beyond, all are forgotten."""

TYPE_NAMES = {torch.float32: "float", torch.float16: "float16", torch.bfloat16: "bfloat16"}
"""What device code calls the dtypes."""


@dataclass(frozen=True)
class Recorded:
    """A launch that was planned for tensors, and the bytes of those tensors."""

    kernel: str
    """Name of the planning function."""
    launch: Launch
    bytes: int


_recorders: list[list[Recorded]] = []


class Kernel:
    """What `@kernel` makes of a planning function."""

    def __init__(self, plan: Planner) -> None:
        functools.update_wrapper(self, plan)
        self.plan = plan
        self._plans: dict[Any, Launch | None] = {}

    def __call__(self, params: Any, *tensors: Tensor | None) -> None:
        """Run over tensors, which must be contiguous and on one device; None stands for one that is left out.

        Raises:
            Unsupported: the device cannot run it.
        """
        first = tensors[0]
        assert first is not None
        key = (params, first.dtype, *[None if tensor is None else tensor.shape for tensor in tensors])
        if first.is_meta or _is_fake(first):
            if _recorders:
                self._record(key, tensors)
            return
        try:
            launch = self._plans[key]
        except KeyError:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            launch = self._plans[key] = self._planned(key)
        if launch is None:
            return
        if first.is_cuda:
            device.run(launch, tensors)
        else:
            emulation.run(launch, tensors)

    def _planned(self, key: tuple[Any, ...]) -> Launch | None:
        launch = self.plan(*key)
        return launch if launch is not None and launch.blocks else None

    def _record(self, key: tuple[Any, ...], tensors: tuple[Tensor | None, ...]) -> None:
        launch = self._planned(key)
        if launch is not None:
            size = sum(tensor.nbytes for tensor in tensors if tensor is not None)
            _recorders[-1].append(Recorded(self.plan.__name__, launch, size))


def kernel(plan: Planner) -> Kernel:
    """Make a kernel of the function that plans its launch; None as a plan means there is nothing to do."""
    return Kernel(plan)


@contextmanager
def recorded() -> Iterator[list[Recorded]]:
    """Note every launch over meta tensors, which run nothing, while the block runs."""
    launches: list[Recorded] = []
    _recorders.append(launches)
    try:
        yield launches
    finally:
        _recorders.pop()


def _is_fake(tensor: Tensor) -> bool:
    # torch.compile and the checks of torch.library trace with tensors that have a shape and no memory.
    return type(tensor) is not Tensor and type(tensor) is not torch.nn.Parameter
