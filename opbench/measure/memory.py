"""What one pass of a call holds, beyond its inputs and parameters.

Three meters. The *tracker* follows every tensor storage from birth to release and is exact to the byte, but sees
only tensors: scratch space inside an operation escapes it. The *high-water mark* is the kernel's record of the
process's resident memory and misses nothing it touches, to within some hundred KiB. The *allocator* is PyTorch's
own account of a GPU: of what it handed out, in blocks that it rounds up, and of what it was asked for. It misses what
others take from the driver themselves: the context, and libraries that do not go through PyTorch.

Meant for a process of its own, after all timing: it changes how the C library gives memory back.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from opbench.cases import Pass
from opbench.measure import resident
from opbench.measure.tracker import LiveStorages, storage_bytes
from opbench.results import Memory

CPU = torch.device("cpu")
REPETITIONS = 3

Source = Literal["tracker", "high_water", "allocator"]
TOLERANCE: Mapping[Source, float] = {"tracker": 0.0, "high_water": 0.01, "allocator": 0.0}
"""Fraction by which repetitions may differ and still count as equal."""


class Peaks(NamedTuple):
    """Most bytes of each phase on top of what was there when it began."""

    forward: int
    backward: int | None = None
    """None for the forward pass."""


@dataclass(frozen=True)
class Trial:
    """A pass of a call, and the tensors that do not count as its own."""

    call: Callable[[], Tensor]
    inputs: Sequence[Tensor]
    parameters: Sequence[Tensor]
    pass_: Pass

    @property
    def held(self) -> tuple[Tensor, ...]:
        """Tensors that are there before the call."""
        return (*self.inputs, *self.parameters)

    def backward(self, output: Tensor, incoming: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of every input and parameter that trains."""
        leaves = [tensor for tensor in self.held if tensor.requires_grad]
        return torch.autograd.grad(output, leaves, incoming, allow_unused=True)


class Meter(Protocol):
    """Something that tells the most memory held during a phase."""

    def settle(self) -> None:
        """Make what is free visible as free, before the first phase."""

    def start_phase(self) -> None:
        """Take what is held now as the base."""

    def phase_peak_bytes(self) -> int:
        """Most bytes held since then, above the base."""


def measure(
    call: Callable[[], Tensor],
    inputs: Sequence[Tensor],
    parameters: Sequence[Tensor],
    pass_: Pass,
    device: torch.device = CPU,
    *,
    compiled: bool = False,
) -> tuple[Memory, ...]:
    """Measure one pass of a call by every meter that the device and the system offer.

    The backward starts from an output and an incoming gradient that are there before; the gradients it returns are
    part of its peak.

    Args:
        call: the forward; returns its output.
        inputs: the tensors it reads; those that train require a gradient.
        parameters: its learnable tensors.
        pass_: 'training' adds the backward to every input and parameter that requires a gradient.
        device: where it runs.
        compiled: whether torch.compile made the call; such code allocates where the tracker cannot see it.
    """
    trial = Trial(call, inputs, parameters, pass_)
    measured: dict[Source, list[Peaks]] = {}
    requested: dict[Source, Peaks] = {}
    if not compiled:
        storages = LiveStorages()
        with storages:
            measured["tracker"] = repeated(trial, storages)
    if device.type == "cuda":
        measured["allocator"] = repeated(trial, Allocator(device))
        requested["allocator"] = middle(repeated(trial, Allocator(device, "requested_bytes")))
    elif resident.is_supported():
        measured["high_water"] = repeated(trial, resident.HighWater())
    output_bytes, saved_bytes = kept_bytes(trial)
    return tuple(
        Memory(
            source=source,
            inputs_bytes=storage_bytes(inputs),
            parameters_bytes=storage_bytes(parameters, without=inputs),
            output_bytes=output_bytes,
            forward_peak_bytes=middle(repetitions).forward,
            saved_bytes=saved_bytes,
            backward_peak_bytes=middle(repetitions).backward,
            forward_requested_bytes=requested[source].forward if source in requested else None,
            backward_requested_bytes=requested[source].backward if source in requested else None,
            repeatable=agree(repetitions, TOLERANCE[source]),
        )
        for source, repetitions in measured.items()
    )


def repeated(trial: Trial, meter: Meter) -> list[Peaks]:
    """Measure the peaks three times, after a pass that warms up: what is allocated once and kept is not a peak."""
    return [peaks(trial, meter) for _ in range(1 + REPETITIONS)][1:]


def peaks(trial: Trial, meter: Meter) -> Peaks:
    """Run one pass and read the meter after each phase."""
    with torch.set_grad_enabled(trial.pass_ == "training"):
        meter.settle()
        meter.start_phase()
        output = trial.call()
        forward = meter.phase_peak_bytes()
        if trial.pass_ == "forward":
            return Peaks(forward)
        incoming = torch.ones_like(output)
        meter.start_phase()
        trial.backward(output, incoming)
        return Peaks(forward, meter.phase_peak_bytes())


def kept_bytes(trial: Trial) -> tuple[int, int | None]:
    """Bytes of the output and, in training, of what autograd saves for the backward; inputs and parameters excluded.

    An output that the backward needs counts in both.
    """
    if trial.pass_ == "forward":
        with torch.no_grad():
            return storage_bytes([trial.call()], without=trial.held), None
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = trial.call()
    return storage_bytes([output], without=trial.held), storage_bytes(saved, without=trial.held)


def middle(repetitions: Sequence[Peaks]) -> Peaks:
    """The median of each phase."""
    backward = [peak.backward for peak in repetitions if peak.backward is not None]
    return Peaks(median_low(peak.forward for peak in repetitions), median_low(backward) if backward else None)


def agree(repetitions: Sequence[Peaks], tolerance: float) -> bool:
    """Whether the peaks of each phase lie within a fraction of their largest."""
    phases = [[peak for peak in phase if peak is not None] for phase in zip(*repetitions, strict=True)]
    return all(max(phase) - min(phase) <= tolerance * max(phase) for phase in phases if phase)


class Statistics(Protocol):
    """The functions of `torch.cuda` that tell of its allocator."""

    def empty_cache(self) -> None:
        """Hand cached blocks back to the driver."""

    def reset_peak_memory_stats(self, device: torch.device) -> None:
        """Make every peak what is current now."""

    def memory_stats(self, device: torch.device) -> Mapping[str, int]:
        """Return current values and peaks by name; nothing before the device was first used."""


class Allocator:
    """PyTorch's account of a GPU's memory as a meter of phases."""

    def __init__(
        self,
        device: torch.device,
        quantity: Literal["allocated_bytes", "requested_bytes"] = "allocated_bytes",
        statistics: Statistics = torch.cuda,
    ) -> None:
        self.device = device
        self.quantity = quantity
        self.statistics = statistics
        self.base = 0

    def settle(self) -> None:
        """Collect garbage and hand cached blocks back: a block that is reused whole counts more than was asked for."""
        gc.collect()
        self.statistics.empty_cache()

    def start_phase(self) -> None:
        """Take what is held now as the base."""
        self.statistics.reset_peak_memory_stats(self.device)
        self.base = self._read("current")

    def phase_peak_bytes(self) -> int:
        """Most bytes held at once since the last `start_phase`, above the base."""
        return self._read("peak") - self.base

    def _read(self, moment: Literal["current", "peak"]) -> int:
        # A device that nothing was allocated on has no statistics yet.
        return self.statistics.memory_stats(self.device).get(f"{self.quantity}.all.{moment}", 0)
