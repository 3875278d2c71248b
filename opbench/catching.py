"""Shapes and layouts that catch bugs: odd, not square, smaller than the kernel, one image, none, strided memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from opbench.api import Maker, Operator
from opbench.cases import Nchw

CPU = torch.device("cpu")
Layout = Literal["contiguous", "channels_last", "sliced"]

_EXTENTS = ((2, 9, 6), (1, 7, 5), (2, 4, 11), (1, 2, 3), (0, 7, 5))
_LAYOUTS: tuple[Layout, ...] = ("channels_last", "sliced")


@dataclass(frozen=True)
class CatchingCase:
    """One check of an operator: parameters, input shape and memory layout."""

    params: Any
    shape: Nchw
    layout: Layout

    def __str__(self) -> str:
        return f"{self.params} at {self.shape}, {self.layout}"


def sample_cases(operator: Operator) -> Iterator[CatchingCase]:
    """Every sample of an operator at every catching shape, and at the first in every layout."""
    for sample in operator.samples:
        shapes = [Nchw(batch, sample.channels, height, width) for batch, height, width in _EXTENTS]
        for shape in shapes:
            yield CatchingCase(sample.params, shape, "contiguous")
        for layout in _LAYOUTS:
            yield CatchingCase(sample.params, shapes[0], layout)


def inputs_of(
    operator: Operator, case: CatchingCase, dtype: torch.dtype, device: torch.device = CPU
) -> dict[str, Tensor]:
    """Make the core's tensors in the case's layout, always the same values."""
    make = Maker(dtype, device, torch.Generator().manual_seed(0))
    tensors = operator.inputs(case.params, case.shape, make)
    return {name: laid_out(tensor, case.layout) for name, tensor in tensors.items()}


def laid_out(tensor: Tensor, layout: Layout) -> Tensor:
    """Return the same values in another memory layout."""
    if layout == "channels_last" and tensor.dim() == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "sliced" and tensor.dim() > 0:
        wider = tensor.new_zeros((*tensor.shape[:-1], tensor.shape[-1] + 3))
        wider[..., 1:-2] = tensor
        return wider[..., 1:-2]
    return tensor
