"""A network case's steps: one walk, from which its multiply-accumulates follow in either pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from opbench.cases import Nchw, Pass
from opbench.networks.slot import Slot, slots
from opbench.networks.walk import Step, counted_core, walk
from opbench.subject import META, Subject
from opbench.work import Macs


def of(subject: Subject) -> tuple[Step, ...]:
    """Walk through the network of a case, with its operator in the slots.

    Raises:
        Unsupported: the operator gives no cost, or cannot fill a slot.
    """
    return walk(subject.module(counted_core, device=META), subject.feature_map(device=META))


def places(subject: Subject) -> list[tuple[str, Slot, Nchw, Nchw]]:
    """Tell of each slot its path, what fills it, and the extents of what goes in and comes out, in the order run."""
    network = subject.module(counted_core, device=META)
    paths = {slot: path for path, slot in slots(network).items()}
    found = []

    def note(slot: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.append((paths[slot], slot, Nchw(*inputs[0].shape), Nchw(*output.shape)))

    for slot in paths:
        slot.register_forward_hook(note)
    walk(network, subject.feature_map(device=META))
    return found


def macs(steps: Iterable[Step], pass_: Pass) -> Macs:
    """Add up the multiply-accumulates of a pass."""
    return sum((step.work.of_pass(pass_) for step in steps), Macs.exact(0))
