"""Counts multiply-accumulates with fvcore, which reads a TorchScript trace; mended where it is wrong or blind.

fvcore counts a norm's element-wise work, ignores broadcasting in a matrix product and rounds an einsum to four digits.
Here the first counts nothing and the others are exact, and every operation that may multiply and accumulate without
being counted is named.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from opbench.errors import Unsupported
from opbench.measure.flops import Seen, is_free

Handle = Callable[[list[Any], list[Any]], int]
"""MACs of a traced operation, from the traced values that go in and come out."""


def count(forward: Callable[[], Tensor], inputs: tuple[Tensor, ...], handles: Mapping[str, Handle]) -> Seen:
    """Run a call over tensors once and count what it computes; `handles` count operations that fvcore does not know.

    No tensor that the call reads may require a gradient, for those that are not `inputs` are constants to the tracer.

    Raises:
        Unsupported: fvcore is not installed.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and its tracer warns of every number it sees.
        try:
            from fvcore.nn import FlopCountAnalysis
        except ImportError as error:
            raise Unsupported("not installed") from error
        logging.getLogger("fvcore").setLevel(logging.ERROR)
        noted: set[str] = set()
        analysis = FlopCountAnalysis(_Call(forward), inputs)
        analysis.set_op_handle(**_free_handles(), **_MENDED, **_noting(noted), **handles)
        macs = sum(analysis.by_operator().values())
        unknown = {name for name in analysis.unsupported_ops() if not is_free(name.removeprefix("aten::"))}
    return Seen(int(macs), tuple(sorted(unknown | noted)))


class _Call(torch.nn.Module):
    """A call without arguments as the module that the tracer wants."""

    def __init__(self, call: Callable[[], Tensor]) -> None:
        super().__init__()
        self.call = call

    def forward(self, *_: Tensor) -> Tensor:
        return self.call()


def _free_handles() -> dict[str, Handle]:
    """Nothing, for what fvcore counts though the counting rules do not."""
    names = ("batch_norm", "group_norm", "layer_norm", "instance_norm", "adaptive_avg_pool2d", "upsample_nearest2d")
    return {f"aten::{name}": lambda *_: 0 for name in names}


def _noting(noted: set[str]) -> dict[str, Handle]:
    """Note what some uses of an operation hide, and count the others."""

    def product(name: str) -> Handle:
        def handle(inputs: list[Any], _: list[Any]) -> int:
            if all(map(_shape, inputs)):  # A single number only scales.
                noted.add(name)
            return 0

        return handle

    def grid_sampler(inputs: list[Any], outputs: list[Any]) -> int:
        shape, mode = _shape(outputs[0]), inputs[2].toIValue()
        if mode == 0:  # Linear: two neighbours along each axis.
            return math.prod(shape) << (len(shape) - 2)
        noted.add("aten::grid_sampler")
        return 0

    return {name: product(name) for name in ("aten::mul", "aten::mul_")} | {"aten::grid_sampler": grid_sampler}


def _matmul(inputs: list[Any], outputs: list[Any]) -> int:
    return math.prod(_shape(outputs[0])) * _shape(inputs[0])[-1]


def _convolution_mode(inputs: list[Any], outputs: list[Any]) -> int:
    """`padding="same"`: [O, C/g, kh, kw] meets each output position of each image once."""
    batch, _, *positions = _shape(outputs[0])
    return batch * math.prod([*positions, *_shape(inputs[1])])


def _einsum(inputs: list[Any], _: list[Any]) -> int:
    """Of two operands, each combination of the labels' values is one multiply-accumulate."""
    terms = inputs[0].toIValue().replace(" ", "").partition("->")[0].split(",")
    shapes = [_shape(operand) for operand in inputs[1].node().inputs()]
    if len(terms) == 1:
        return 0
    if len(terms) > 2:
        raise NotImplementedError("an einsum of more than two operands has no one count")
    extents: dict[str | int, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        before, _dots, after = term.partition("...")
        # The axes an ellipsis stands for broadcast from the last, so they are labelled from the last.
        between = list(range(len(shape) - len(before) - len(after), 0, -1))
        for label, extent in zip([*before, *between, *after], shape, strict=True):
            if extents.setdefault(label, extent) == 1:
                extents[label] = extent
    return math.prod(extents.values())


def _shape(value: Any) -> list[int]:
    """Extents of a traced tensor; none for a number."""
    return list(value.type().sizes()) if value.isCompleteTensor() else []


_MENDED: Mapping[str, Handle] = {
    "aten::matmul": _matmul,
    "aten::_convolution_mode": _convolution_mode,
    "aten::einsum": _einsum,
}
