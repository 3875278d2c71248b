"""All that an operator plugin may import from opbench.

A plugin is a folder with a `plugin.py` that holds one constant, `OPERATOR`. The folder's name is the operator's
name, the module docstring's first line its summary. The least a plugin needs is a reference:

    OPERATOR = Operator(reference=box_blur)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from opbench.cases import DTYPES, Dtype, Nchw
from opbench.errors import Unsupported
from opbench.params import check_params, param
from opbench.windows import Window
from opbench.work import Cost, Macs, Work

__all__ = [
    "Core",
    "Cost",
    "Implementation",
    "Macs",
    "Maker",
    "Nchw",
    "NoParams",
    "Operator",
    "Sample",
    "Unsupported",
    "Window",
    "Work",
    "check_params",
    "param",
    "taps",
    "windows",
]

_HARNESS_NAMES = frozenset({"reference", "compile", "all"})

Core = Callable[..., Tensor]
"""`core(params, *tensors) -> Tensor`: the operator on plain tensors, without learned state of its own."""


@dataclass(frozen=True)
class NoParams:
    """The `Params` of an operator that has none."""


@dataclass(frozen=True)
class Maker:
    """Makes a core's input tensors: random, seeded, rounded to the case's dtype, on its device."""

    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    generator: torch.Generator | None = None

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Normal values of mean 0 and standard deviation `scale`, of the given shape."""
        if self.device.type == "meta":
            return torch.empty(shape, dtype=self.dtype, device=self.device)
        # Drawn in float32 on the CPU whatever the case, so that every dtype and device sees the same values.
        values = torch.randn(shape, generator=self.generator, dtype=torch.float32)
        return (values * scale).to(self.device, self.dtype)

    def probabilities(self, *shape: int) -> Tensor:
        """Positive values of the given shape that sum to one along the last axis."""
        values = self.normal(*shape)
        return values if values.is_meta else values.double().softmax(-1).to(self.dtype)


@dataclass(frozen=True, kw_only=True)
class Implementation:
    """One way to compute an operator's core, forward and every gradient, and what it covers."""

    core: Core
    dtypes: tuple[Dtype, ...] = DTYPES
    devices: tuple[str, ...] = ("cpu", "cuda")
    summary: str = ""

    def __call__(self, params: Any, *tensors: Tensor) -> Tensor:
        """Compute the core."""
        return self.core(params, *tensors)


@dataclass(frozen=True)
class Sample:
    """A parameter set worth checking, and a channel count that it accepts."""

    params: Any
    channels: int


def _one_feature_map(params: Any, shape: Nchw, make: Maker) -> dict[str, Tensor]:
    return {"x": make.normal(*shape)}


class _BareCore(nn.Module):
    """The layer of an operator that learns nothing: its core on the feature map."""

    def __init__(self, _: int, params: Any, core: Core) -> None:
        super().__init__()
        self.params, self.core = params, core

    def forward(self, x: Tensor) -> Tensor:
        return self.core(self.params, x)


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One spatial operator: its meaning (the reference), its layer, its inputs, its cost, its rivals."""

    reference: Core
    """The core in plain PyTorch: any float dtype, differentiable, short enough to read as the definition."""
    params: type[Any] = NoParams
    """Frozen dataclass of the layer's hyper-parameters, the paper's values as defaults."""
    inputs: Callable[[Any, Nchw, Maker], Mapping[str, Tensor]] = _one_feature_map
    """The core's tensors by name, in the core's order, for a layer input of the given shape."""
    layer: Callable[[int, Any, Core], nn.Module] | None = None
    """`layer(in_channels, params, core)`: the trainable module as the paper defines it, calling `core`.

    Left out, the core is the layer where the feature map is all that it takes; else there is none.
    """
    cost: Callable[[Any, Nchw], Cost] | None = None
    """Exact parameters of the layer and MACs of core and layer, for a layer input of the given shape."""
    implementations: Mapping[str, Implementation] = field(default_factory=dict)
    """The rivals of the reference, by name."""
    samples: tuple[Sample, ...] = ()
    """Parameter sets that the gate checks: several groups, strides, dilations, every option."""
    surrogate_gradients: tuple[str, ...] = ()
    """Inputs whose gradient is defined by a formula and is not the derivative of the forward."""
    equivalent: type[nn.Module] | None = None
    """The module of torch.nn that computes what the core does, where there is one: what counters that know modules
    would have seen in the core's place."""
    source: str = ""
    """The paper: authors, title, venue, arXiv number."""

    def __post_init__(self) -> None:
        if not dataclasses.is_dataclass(self.params):
            raise TypeError(f"params must be a dataclass, got {self.params!r}")
        taken = _HARNESS_NAMES & self.implementations.keys()
        if taken:
            raise ValueError(f"implementations cannot be called {', '.join(sorted(taken))}: the harness has those")
        object.__setattr__(self, "implementations", MappingProxyType(dict(self.implementations)))
        if self.layer is None and self.inputs is _one_feature_map:
            object.__setattr__(self, "layer", _BareCore)
        if not self.samples:
            object.__setattr__(self, "samples", (Sample(self.params(), 8),))

    def __deepcopy__(self, _: object) -> Operator:
        # Nothing in it changes, so the copy of a network shares it.
        return self


def windows(x: Tensor, vertical: Window, horizontal: Window) -> Tensor:
    """[N, C, H, W] -> [N, C, kh, kw, Ho, Wo]: what each tap of each output position sees; 0 outside the image.

    A view of the zero-padded input: nothing is copied until it is multiplied.
    """
    rows = _padded(x, vertical, horizontal).unfold(2, vertical.span, vertical.stride)[..., :: vertical.dilation]
    both = rows.unfold(3, horizontal.span, horizontal.stride)[..., :: horizontal.dilation]
    return both.permute(0, 1, 4, 5, 2, 3)


def taps(x: Tensor, vertical: Window, horizontal: Window) -> Iterator[Tensor]:
    """[..., H, W] -> kh * kw views [..., Ho, Wo], row by row: the same as `windows`, one tap at a time.

    For a sum over taps that should never hold all windows at once: neither the forward nor, as each view is made
    when it is asked for and autograd goes back in that order, the backward.
    """
    padded = _padded(x, vertical, horizontal)
    for a in range(vertical.kernel):
        rows = padded[..., _seen_by(a, vertical, x.shape[-2]), :]
        for b in range(horizontal.kernel):
            yield rows[..., _seen_by(b, horizontal, x.shape[-1])]


def _padded(x: Tensor, vertical: Window, horizontal: Window) -> Tensor:
    padded = nn.functional.pad(x, (*horizontal.paddings, *vertical.paddings))
    if vertical.span > padded.shape[-2] or horizontal.span > padded.shape[-1]:
        raise Unsupported(f"a {vertical.span}x{horizontal.span} window does not fit the padded input")
    return padded


def _seen_by(tap: int, window: Window, extent: int) -> slice:
    first = tap * window.dilation
    return slice(first, first + (window.outputs(extent) - 1) * window.stride + 1, window.stride)
