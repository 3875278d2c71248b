"""The operations that a pass launches one after another, each with its work and its bytes: what a waterline is made of.

They are what torch dispatches below autograd when it runs the pass eagerly, on meta tensors where that is possible.
Views and other operations that touch only metadata launch nothing and are left out, and so is making room. Nothing
is measured.

A device may have an operation of its own in place of a few of them, as of a norm. A core made of kernels is one
operation, with the work of its formula; copies that it makes because its inputs lie otherwise are not told apart.
"""

from __future__ import annotations

import dataclasses
import math
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from opbench.cuda import core as kernels
from opbench.measure import flops
from opbench.results import Launch, Launches
from opbench.subject import CPU, META, Subject

MOST = 4000
"""Launches kept; of those that come after only the number is."""

_MAKES_ROOM = frozenset(["empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"])
_OVERWRITES = frozenset(["bernoulli_", "copy_", "exponential_", "fill_", "normal_", "random_", "uniform_", "zero_"])
"""Operations in place that do not read what they replace."""
_FILLS = frozenset(
    ["full_like", "new_full", "new_ones", "new_zeros", "ones_like", "rand_like", "randn_like", "zeros_like"]
)
"""Operations that are given a tensor for its shape or kind and do not read it."""


def of(subject: Subject, runs_on_cpu: bool = True) -> Launches | None:
    """List what one pass of a core or layer launches, for 'training' the backward's after the forward's.

    None where it cannot be known: the call runs neither on meta tensors nor on real ones, or something is computed
    where torch does not see it. Compiled code must not be asked: torch sees what goes in, not what it has become.

    Args:
        subject: a case of a core or layer with an implementation.
        runs_on_cpu: whether real tensors on a CPU will do where a plugin cannot do without values.
    """
    for device in (META, CPU) if runs_on_cpu else (META,):
        concrete = dataclasses.replace(subject, device=device)
        try:
            step = concrete.step(concrete.bundle())
            with torch.set_grad_enabled(subject.case.pass_ == "training"):
                step()  # What is made once and kept is no part of a call.
                with _Trace() as trace:
                    results = step()
        except Exception:
            continue
        return None if trace.unseen or trace.has_blank(results) else trace.launches()
    return None


class _Trace(TorchDispatchMode):
    """While entered, notes every operation that launches something."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kinds: dict[Launch, int] = {}
        self.order: list[int] = []
        self.unseen = False
        """Whether an operation has read what none has written."""
        self.blank: weakref.WeakSet[UntypedStorage] = weakref.WeakSet()
        """Room that was made and that no operation has written to."""

    def launches(self) -> Launches:
        """What was noted."""
        order = tuple(self.order[:MOST])
        kinds = tuple(self.kinds)[: max(order, default=-1) + 1]
        return Launches(kinds=kinds, order=order, left_out=len(self.order) - len(order))

    def has_blank(self, tree: object) -> bool:
        """Whether some tensor's values came from no operation: they were computed out of sight."""
        return any(tensor.untyped_storage() in self.blank for tensor in _tensors(tree))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        given = _tensors((args, kwargs))
        changed = _changed(func, args, kwargs)
        read = [] if packet.__name__ in _FILLS else _others(given, changed) if _overwrites(func) else given
        results = func(*args, **kwargs)
        made = _apart(_tensors(results), given)
        if packet.__name__ in _MAKES_ROOM:
            self.blank.update(tensor.untyped_storage() for tensor in made if tensor.numel())
        elif made or changed:
            self.unseen = self.unseen or self.has_blank(read)
            for tensor in changed:
                self.blank.discard(tensor.untyped_storage())
            self._note(packet, args, kwargs, results, _bytes(read) + _bytes([*changed, *made]))
        return results

    def _note(self, packet: Any, args: Any, kwargs: Any, results: Any, bytes_: int) -> None:
        macs = kernels.macs(packet, args) or flops.of_operation(packet, args, kwargs, results)
        launch = Launch(
            name=flops.name_of(packet),
            macs=macs.dense if macs else 0,
            macs_in_bounds=macs.in_bounds if macs else 0,
            bytes=bytes_,
            unknown=macs is None,
        )
        self.order.append(self.kinds.setdefault(launch, len(self.kinds)))


def _changed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that an operation writes to, among those it is given."""
    if not func._schema.is_mutable:
        return []
    values = zip(func._schema.arguments, [*args, *[None] * len(func._schema.arguments)], strict=False)
    return _tensors(
        [
            kwargs.get(argument.name, value)
            for argument, value in values
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
    )


def _overwrites(func: Any) -> bool:
    """Whether an operation does not read what it writes to."""
    return func._overloadpacket.__name__ in _OVERWRITES or any(argument.is_out for argument in func._schema.arguments)


def _others(tensors: list[Tensor], left_out: list[Tensor]) -> list[Tensor]:
    return [tensor for tensor in tensors if not any(tensor is other for other in left_out)]


def _apart(tensors: list[Tensor], given: Iterable[Tensor]) -> list[Tensor]:
    """Tensors in memory of their own, which is what tells a result from a view."""
    there = {tensor.untyped_storage() for tensor in given}
    return [tensor for tensor in tensors if tensor.untyped_storage() not in there]


def _bytes(tensors: list[Tensor]) -> int:
    """Bytes of some tensors, each once: broadcast elements once, and of one storage no more than it holds."""
    extents: dict[UntypedStorage, dict[Any, int]] = {}
    for tensor in tensors:
        axes = zip(tensor.shape, tensor.stride(), strict=True)
        elements = math.prod(extent for extent, stride in axes if stride or not extent)
        key = tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype
        extents.setdefault(tensor.untyped_storage(), {})[key] = elements * tensor.itemsize
    return sum(min(sum(parts.values()), storage.nbytes()) for storage, parts in extents.items())


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
