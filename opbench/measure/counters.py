"""Counts a case three ways and reconciles them: the plugin's formula, fvcore, and torch's own counter.

The two counters see the core as one operation, whose MACs are the plugin's; everything around it they count
themselves. Where a plugin has no formula they look inside its reference, and name what they cannot count.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from opbench.api import Core
from opbench.errors import Unsupported, said
from opbench.measure import flops, steps, traced
from opbench.networks.conventions import totals
from opbench.results import Counted, Counts
from opbench.subject import META, Subject
from opbench.work import Cost, Macs

_LIBRARY = torch.library.Library("opbench", "DEF")
_LIBRARY.define("core(Tensor[] tensors) -> Tensor")
_LIBRARY.define("core_backward(Tensor gradient, Tensor[] tensors) -> Tensor[]")

_current: list[functools.partial[Tensor]] = []
"""The core that `opbench::core` stands for while a case is counted."""

_INSIDE = "looked inside the reference"


def count(subject: Subject) -> Counts:
    """Count a case in its pass and scope, over the whole batch. Nothing is measured."""
    if subject.network is not None:
        return _of_network(subject)
    cost = None if subject.operator.cost is None else subject.operator.cost(subject.params, subject.case.shape)
    formula = None if cost is None else _of_case(subject, cost)
    counters = (_formula(formula), _torch(subject, cost), _fvcore(subject, cost))
    parameters, parameter_fault = _parameters(subject, cost)
    best = _best(counters)
    return Counts(
        parameters=parameters,
        macs_dense=best.macs if best else None,
        macs_in_bounds=formula.in_bounds if formula else None,
        at_least=bool(best and best.unknown),
        compulsory_bytes=_compulsory_bytes(subject),
        counters=counters,
        agreement="; ".join(filter(None, [_agreement(counters), parameter_fault])),
    )


def _of_network(subject: Subject) -> Counts:
    """Count a network: the sum along one walk, with torch's counter around the cores to check it."""
    pass_ = subject.case.pass_
    try:
        walked = steps.of(subject)
    except Unsupported as answer:
        found = _torch(subject, None)
        return Counts(
            parameters=_learnable(_module(subject)),
            macs_dense=found.macs,
            at_least=bool(found.unknown),
            counters=(Counted(source="formula", note=said(answer)), found),
        )
    macs = steps.macs(walked, pass_)
    cores = steps.macs((step for step in walked if step.kind == "core"), pass_)
    around = _torch_around(subject, cores)
    counters = (Counted(source="formula", macs=macs.dense), around)
    return Counts(
        parameters=_learnable(_module(subject)),
        macs_dense=macs.dense,
        macs_in_bounds=macs.in_bounds,
        # The walk knows no more operations than torch does.
        at_least=bool(set(around.unknown) - _NO_MACS_OF_A_NETWORK),
        counters=counters,
        agreement=_agreement(counters),
        conventions=totals(walked) if pass_ == "forward" else {},
    )


_NO_MACS_OF_A_NETWORK = frozenset({"aten::mul", "aten::upsample_bilinear2d", "aten::upsample_bilinear2d_backward"})
"""A scale multiplies and sums nothing, and resizing is no more a multiply-accumulate than pooling is."""


def _torch_around(subject: Subject, cores: Macs) -> Counted:
    """What torch's counter sees around the cores, and their own formulas' answer."""
    formulas: dict[Any, flops.Formula] = {
        torch.ops.opbench.core: lambda *_, **__: 0,
        torch.ops.opbench.core_backward: lambda *_, **__: 0,
    }
    with _cores_as_operations(subject) as core:
        try:
            forward = _forward(subject, core)
            seen = flops.count(lambda: flops.run_pass(forward, subject.case.pass_), formulas)
        except Exception as error:
            return Counted(source="torch", note=f"cannot run it: {said(error) or type(error).__name__}")
    return Counted(source="torch", macs=seen.macs + cores.dense, unknown=seen.unknown)


def _of_case(subject: Subject, cost: Cost) -> Macs:
    return (cost.core if subject.case.scope == "core" else cost.layer).of_pass(subject.case.pass_)


def _formula(macs: Macs | None) -> Counted:
    if macs is None:
        return Counted(source="formula", note="the plugin gives no cost")
    return Counted(source="formula", macs=macs.dense)


def _torch(subject: Subject, cost: Cost | None) -> Counted:
    formulas: dict[Any, flops.Formula] = {}
    if cost is not None:
        formulas = {
            torch.ops.opbench.core: lambda *_, **__: 2 * cost.core.forward.dense,
            torch.ops.opbench.core_backward: lambda *_, **__: 2 * cost.core.backward.dense,
        }
    with _as_one_operation(subject, cost) as core:
        try:
            forward = _forward(subject, core)
            seen = flops.count(lambda: flops.run_pass(forward, subject.case.pass_), formulas)
        except Exception as error:
            return Counted(source="torch", note=f"cannot run it: {said(error) or type(error).__name__}")
    return Counted(source="torch", macs=seen.macs, unknown=seen.unknown, note="" if cost else _INSIDE)


def _forward(subject: Subject, core: Core) -> Callable[[], Tensor]:
    """Return the forward on meta tensors, which cost nothing; on real ones where the plugin cannot do without."""
    try:
        forward = subject.bundle(device=META, core=core).forward
        forward()
    except Exception:
        return subject.bundle(core=core).forward
    return forward


def _fvcore(subject: Subject, cost: Cost | None) -> Counted:
    if subject.case.pass_ == "training":
        return Counted(source="fvcore", note="counts forwards only")
    handles: dict[str, traced.Handle] = {} if cost is None else {"opbench::core": lambda *_: cost.core.forward.dense}
    with _as_one_operation(subject, cost) as core:
        try:
            bundle = subject.bundle(core=core)
            for tensor in bundle.parameters:
                tensor.requires_grad_(False)
            seen = traced.count(bundle.forward, bundle.inputs, handles)
        except Unsupported as answer:
            return Counted(source="fvcore", note=said(answer))
        except Exception as error:
            return Counted(source="fvcore", note=f"cannot trace it: {said(error) or type(error).__name__}")
    return Counted(source="fvcore", macs=seen.macs, unknown=seen.unknown, note="" if cost else _INSIDE)


@contextmanager
def _as_one_operation(subject: Subject, cost: Cost | None) -> Iterator[Core]:
    """Give the core as the one operation `opbench::core`; as itself where there is no formula to count it by."""
    if cost is None:
        yield subject.operator.reference
        return
    with _cores_as_operations(subject) as core:
        yield core


@contextmanager
def _cores_as_operations(subject: Subject) -> Iterator[Core]:
    _current.append(functools.partial(subject.operator.reference, subject.params))

    def operation(params: Any, *tensors: Tensor) -> Tensor:
        # The parameters are those of the slot that calls: no operation of torch takes them.
        _current[-1] = functools.partial(subject.operator.reference, params)
        return _operation(*tensors)

    try:
        yield operation
    finally:
        _current.pop()


def _operation(*tensors: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return _core(*tensors)
    result: Tensor = _CoreFunction.apply(*tensors)  # type: ignore[no-untyped-call]
    return result


class _CoreFunction(torch.autograd.Function):
    """`opbench::core` with a backward that the counters see as one operation, too."""

    @staticmethod
    def forward(context: Any, *tensors: Tensor) -> Tensor:
        context.save_for_backward(*tensors)
        return _core(*tensors)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        return tuple(torch.ops.opbench.core_backward(gradients[0], list(context.saved_tensors)))


def _core(*tensors: Tensor) -> Tensor:
    result: Tensor = torch.ops.opbench.core(list(tensors))
    return result


def _run_core(tensors: list[Tensor]) -> Tensor:
    """Give zeros of the output's shape, which meta tensors tell for nothing; the output where a plugin wants values."""
    with torch.no_grad():
        try:
            shaped = _shaped(_current[-1], tensors)
        except Exception:
            return _current[-1](*tensors)
        return torch.zeros_like(shaped, device=tensors[0].device)


def _shaped(core: functools.partial[Tensor], tensors: list[Tensor]) -> Tensor:
    """The output on meta tensors; a network has many cores of one kind, and asks once for each kind."""
    key = (core.func, repr(core.args), *((tensor.shape, tensor.dtype) for tensor in tensors))
    if key not in _shapes:
        if len(_shapes) >= _MOST_SHAPES:
            _shapes.clear()
        _shapes[key] = core(*(tensor.to(META) for tensor in tensors))
    return _shapes[key]


_shapes: dict[Any, Tensor] = {}
_MOST_SHAPES = 256


def _run_core_backward(_: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    # Only the count matters here, so gradients of the right shapes will do.
    return [torch.zeros_like(tensor) for tensor in tensors]


_LIBRARY.impl("core", _run_core, "CompositeExplicitAutograd")
_LIBRARY.impl("core_backward", _run_core_backward, "CompositeExplicitAutograd")


def _parameters(subject: Subject, cost: Cost | None) -> tuple[int | None, str]:
    """Count the layer's learnable scalars, and say where the plugin's formula disagrees. A core has none."""
    if subject.case.scope == "core":
        return None, ""
    counted = _learnable(_module(subject))
    if cost is not None and cost.parameters != counted:
        return counted, f"the plugin's formula says {cost.parameters} parameters, its layer has {counted}"
    return counted, ""


def _learnable(module: nn.Module) -> int:
    """Learnable scalars; what a network freezes it does not learn."""
    return sum(tensor.numel() for tensor in module.parameters() if tensor.requires_grad)


def _module(subject: Subject) -> nn.Module:
    """Build the layer or network on the meta device; on the CPU where the plugin cannot do without values."""
    try:
        return subject.module(device=META)
    except Unsupported:
        raise
    except Exception:
        return subject.module()


def _compulsory_bytes(subject: Subject) -> int | None:
    """Each input and parameter read once and each output written once; training does so in both phases.

    The backward reads inputs, parameters and the incoming gradient, and writes a gradient for each of the former.
    """
    try:
        bundle = subject.bundle(device=META, core=subject.operator.reference)
        with torch.no_grad():
            output = bundle.forward().nbytes
    except Exception:
        return None
    if subject.case.pass_ == "forward":
        return bundle.bytes + output
    gradients = sum(tensor.nbytes for tensor in (*bundle.inputs, *bundle.parameters) if tensor.requires_grad)
    return 2 * (bundle.bytes + output) + gradients


def _best(counters: tuple[Counted, ...]) -> Counted | None:
    """The formula where there is one; else the counter that sees most."""
    answers = [counted for counted in counters if counted.macs is not None]
    exact = [counted for counted in answers if not counted.unknown]
    return next(iter(exact), None) or max(answers, key=lambda counted: counted.macs or 0, default=None)


def _agreement(counters: tuple[Counted, ...]) -> str:
    """Say 'agree', or which counter differs, or what it cannot count."""
    answers = [(counted, counted.macs) for counted in counters if counted.macs is not None]
    exact = {macs for counted, macs in answers if not counted.unknown}
    blind = [counted for counted, _ in answers if counted.unknown]
    # A lower bound above an exact count contradicts it.
    if len(exact) > 1 or (exact and max(macs for _, macs in answers) > min(exact)):
        return "differ: " + ", ".join(
            f"{counted.source} {'at least ' if counted.unknown else ''}{macs}" for counted, macs in answers
        )
    if blind:
        return "; ".join(f"{counted.source} cannot count {', '.join(counted.unknown)}" for counted in blind)
    return "agree" if len(answers) > 1 else ""
