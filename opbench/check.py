"""The correctness gate: a wrong implementation is never timed.

The truth is the reference in float64, on the very inputs the implementation gets (rounded to the case's dtype).
An implementation may lose twice what the reference itself loses when run in that dtype, plus rounding, and never
more than a ceiling, so that a poor reference cannot open the gate. Both the relative L2 error and the worst element
are held to it; elements are scaled by the magnitude their sum could have had (the reference on absolute values), so
that small results are judged like large ones. Where the exact result itself jumps when the inputs move by less than
their dtype can tell, as a softmax of large logits does, it is what the ceiling is made of: nothing can do better.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from opbench.api import Core, Operator
from opbench.errors import Unsupported

FORWARD = "forward"
ALLOWANCE = 2.0
"""How many times the reference's own loss an implementation may lose."""
_MOST_SHAPES = 64
ROUNDINGS = 16.0
"""How many times what one rounding of the inputs moves the exact result the ceiling is at least."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One quantity of an implementation beside the float64 reference."""

    quantity: str
    """'forward', 'grad_' and the name of an input, or the name of an input that the core overwrote."""
    error: float
    """The error that uses most of its budget: relative L2, or of the worst element; NaN when not comparable."""
    budget: float
    where: str
    """Index of the worst element, or what made a comparison impossible."""

    @property
    def passed(self) -> bool:
        """Whether the error is within the budget; NaN never is."""
        return self.error <= self.budget


def check(operator: Operator, core: Core, params: Any, tensors: Mapping[str, Tensor]) -> list[Comparison]:
    """Compare a core with the float64 reference: the forward and the gradient of every floating input.

    An input that the core has changed is one more quantity, the first and wrong.

    Raises:
        Unsupported: the core does not cover these inputs.
    """
    standard = Standard.of(operator, params, tensors)
    with poisoned_memory():
        actual = evaluate(core, params, tensors)
    return standard.judge(actual, tensors)


@dataclass(frozen=True, kw_only=True)
class Standard:
    """What an implementation's results on some inputs are held to."""

    exact: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
    """The reference, forward and backward."""
    inputs: Mapping[str, Tensor]
    """Copies, in float64 where they are floating."""
    truth: Mapping[str, Tensor]
    scale: Mapping[str, Tensor]
    """The reference on absolute values: the magnitude each sum could have had."""
    own: Mapping[str, Tensor]
    """The reference in the inputs' dtype."""
    _moved: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, operator: Operator, params: Any, tensors: Mapping[str, Tensor]) -> Standard:
        """Run the reference in float64, on absolute values, and in the inputs' dtype."""
        upcast = {name: float64(tensor) for name, tensor in tensors.items()}
        absolute = {name: tensor.abs() for name, tensor in upcast.items()}
        exact = functools.partial(evaluate, operator.reference, params)
        return cls(
            exact=exact,
            inputs=upcast,
            truth=exact(upcast),
            scale=evaluate(operator.reference, params, absolute, absolute=True),
            own=exact(tensors),
        )

    def moved(self, dtype: torch.dtype) -> Mapping[str, Tensor]:
        """The exact results at inputs that lie as far from these as the dtype's rounding might have put them."""
        if not self._moved:
            generator = torch.Generator().manual_seed(0xF1A7)
            step = torch.finfo(dtype).eps / 2

            def move(tensor: Tensor) -> Tensor:
                if not tensor.is_floating_point():
                    return tensor
                signs = torch.randint(0, 2, tensor.shape, generator=generator).to(tensor) * 2 - 1
                return tensor * (1 + step * signs)

            self._moved.update(self.exact({name: move(tensor) for name, tensor in self.inputs.items()}))
        return self._moved

    def judge(self, actual: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[Comparison]:
        """Hold results by quantity to their budgets; `tensors` are the inputs as the implementation left them."""
        dtype = next(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point())
        # First, because a gradient made from an overwritten input is wrong as well.
        overwritten = [
            Comparison(quantity=name, error=math.nan, budget=0.0, where="the core overwrote it")
            for name, tensor in tensors.items()
            if not torch.equal(float64(tensor), self.inputs[name])
        ]
        return overwritten + [self._judged(quantity, actual.get(quantity), dtype) for quantity in self.truth]

    def _judged(self, quantity: str, actual: Tensor | None, dtype: torch.dtype) -> Comparison:
        held_to = self.truth[quantity], self.own[quantity], self.scale[quantity], dtype
        row = compare(quantity, actual, *held_to)
        if row.passed or not math.isfinite(row.error):
            return row
        # Rare, and another run in float64: asked only of what is about to be refused.
        return compare(quantity, actual, *held_to, moved=self.moved(dtype)[quantity])


def evaluate(core: Core, params: Any, tensors: Mapping[str, Tensor], *, absolute: bool = False) -> dict[str, Tensor]:
    """Run forward and backward; return the output and each gradient by quantity.

    The incoming gradient is random but the same for every core, dtype and device, `absolute` values of it on demand.
    """
    leaves = {name: tensor.detach().requires_grad_(tensor.is_floating_point()) for name, tensor in tensors.items()}
    with torch.enable_grad():
        output = core(params, *leaves.values())
    results = {FORWARD: output.detach()}
    wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    if output.requires_grad:
        incoming = incoming_gradient(output)
        gradients = torch.autograd.grad(
            output, list(wanted.values()), incoming.abs() if absolute else incoming, allow_unused=True
        )
        for name, gradient in zip(wanted, gradients, strict=True):
            if gradient is not None:
                results[f"grad_{name}"] = gradient
    return results


def incoming_gradient(output: Tensor) -> Tensor:
    """Return the gradient that flows into an output: seeded by its shape alone, in its dtype, on its device."""
    if output.is_meta:
        return torch.empty_like(output)
    generator = torch.Generator().manual_seed(0x5EED)
    # Rounded to bfloat16 first: exact in every dtype, so float64 and float16 runs receive the same numbers.
    values = torch.randn(output.shape, generator=generator).bfloat16()
    return values.to(output.device, output.dtype)


def compare(
    quantity: str,
    actual: Tensor | None,
    truth: Tensor,
    own: Tensor,
    scale: Tensor,
    dtype: torch.dtype,
    moved: Tensor | None = None,
) -> Comparison:
    """Hold one tensor to its budget.

    `own` is what the reference gives in the case's dtype, `scale` what it gives on absolute values, and `moved` the
    truth at inputs a rounding away, where that may raise the ceiling.
    """
    if actual is None:
        return Comparison(quantity=quantity, error=math.nan, budget=0.0, where="it was not computed")
    if actual.shape != truth.shape:
        where = f"shape {list(actual.shape)} instead of {list(truth.shape)}"
        return Comparison(quantity=quantity, error=math.nan, budget=0.0, where=where)
    if actual.dtype != dtype:
        where = f"{_name(actual.dtype)} instead of {_name(dtype)}"
        return Comparison(quantity=quantity, error=math.nan, budget=0.0, where=where)
    magnitude = _magnitude(truth, scale)
    norm = float(truth.norm())
    *errors, where = _errors(actual, truth, magnitude)
    *losses, _ = _errors(own, truth, magnitude)
    # The norm of the error is relative to the result, the worst element to the terms of its sum.
    cancellations = (float(magnitude.norm()) / norm if norm else 1.0, 1.0)
    jumps = (0.0, 0.0) if moved is None else _errors(moved, truth, magnitude)[:2]
    budgets = [_budget(*each, dtype) for each in zip(losses, cancellations, jumps, strict=True)]
    error, budget = max(
        zip(errors, budgets, strict=True), key=lambda pair: math.inf if math.isnan(pair[0]) else pair[0] / pair[1]
    )
    return Comparison(quantity=quantity, error=error, budget=budget, where=where)


def agree(quantity: str, actual: Tensor, expected: Tensor) -> Comparison:
    """Compare two runs in one dtype, each of which may have lost its share: the difference is held to the ceiling."""
    wide = expected.double()
    unknown_loss = torch.full_like(wide, math.nan)
    return compare(quantity, actual, wide, unknown_loss, wide.abs(), expected.dtype)


def rounding(dtype: torch.dtype, cancellation: float = 1.0) -> tuple[float, float]:
    """Return the slack every result is given and the ceiling no budget exceeds, as relative errors.

    The slack is one rounding of the result, a few of a float32 (or wider) accumulator, and one more of the terms of a
    sum, which together are `cancellation` times larger than the result: a plain loop over n terms of either sign loses
    about √n / 5 roundings, and cancels 3 √n / 5 fold. The ceiling keeps a copy rounded to TF32 or bfloat16 out of
    float32, and a missing row out of every dtype.
    """
    result = torch.finfo(dtype).eps
    accumulator = min(result, torch.finfo(torch.float32).eps)
    return result + (8 + cancellation) * accumulator, 4 * result + 1024 * accumulator


def shared_inputs(core: Core, calls: list[tuple[Any, tuple[Tensor, ...]]]) -> Core:
    """Wrap a core so that it notes the parameters and tensors of every call: what a layer feeds its core."""

    def noting(params: Any, *tensors: Tensor) -> Tensor:
        calls.append((params, tuple(tensor.detach() for tensor in tensors)))
        return core(params, *tensors)

    return noting


def float64(tensor: Tensor) -> Tensor:
    """Return a copy, in float64 where the tensor is floating."""
    return tensor.detach().to(torch.float64 if tensor.is_floating_point() else tensor.dtype, copy=True)


def usable_core(operator: Operator, name: str) -> Core:
    """Return an implementation's core by name; 'reference' and 'compile' exist for every operator.

    Raises:
        Unsupported: the operator has no such implementation.
    """
    if name == "reference":
        return operator.reference
    if name == "compile":
        # A network has a core of another shape in each stage; torch gives up on a function after eight.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_SHAPES)
        compiled: Callable[..., Tensor] = torch.compile(operator.reference, dynamic=False, fullgraph=True)
        return compiled
    if name not in operator.implementations:
        known = ", ".join(["reference", "compile", *operator.implementations])
        raise Unsupported(f"no implementation {name!r}; there are {known}")
    return operator.implementations[name]


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fill fresh tensors with NaN, so that an output left unwritten fails instead of passing by luck."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _budget(loss: float, cancellation: float, jump: float, dtype: torch.dtype) -> float:
    slack, ceiling = rounding(dtype, cancellation)
    ceiling = max(ceiling, ROUNDINGS * jump)
    return min(ALLOWANCE * loss + slack, ceiling) if math.isfinite(loss) else ceiling


def _magnitude(truth: Tensor, scale: Tensor) -> Tensor:
    """What each element's error is relative to: the terms of its sum, and never less than the typical element."""
    root_mean_square = float(truth.norm()) / math.sqrt(max(truth.numel(), 1))
    # Where gradients subtract, as a softmax's do, the run on absolute values may cancel more than the run itself.
    return scale.abs().maximum(truth.abs()).clamp(min=root_mean_square)


def _errors(actual: Tensor, truth: Tensor, magnitude: Tensor) -> tuple[float, float, str]:
    """Relative L2 error, scaled error of the worst element, and where that is."""
    if truth.numel() == 0:
        return 0.0, 0.0, "empty"
    difference = actual.double() - truth
    if not bool(difference.isfinite().all()):
        return math.nan, math.nan, _index(~difference.isfinite()) + " is not finite"
    norm = float(truth.norm())
    if norm == 0:
        exact = float(difference.abs().max()) == 0
        return (0.0 if exact else math.inf,) * 2 + (_index(difference.abs()),)
    scaled = difference.abs() / magnitude
    return float(difference.norm()) / norm, float(scaled.max()), _index(scaled)


def _index(values: Tensor) -> str:
    flat = values.to(torch.float64).argmax()
    return "[" + ", ".join(str(int(i)) for i in torch.unravel_index(flat, values.shape)) + "]"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
