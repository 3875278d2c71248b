"""Multiply-accumulates, counted exactly. No torch.

One multiply-accumulate counts one. Bias adds, activations, norms, softmax exponentials and pooling adds are not
multiply-accumulates. *Dense* counts every tap of a window, those on padding included, as papers do; *in-bounds*
counts only taps that read the image.
"""

from __future__ import annotations

from dataclasses import dataclass

from opbench.windows import Window


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one phase, over the whole batch."""

    dense: int
    in_bounds: int

    @classmethod
    def exact(cls, count: int) -> Macs:
        """Work that has no padding: both counts agree."""
        return cls(count, count)

    @classmethod
    def of_windows(cls, vertical: Window, horizontal: Window, height: int, width: int) -> Macs:
        """One multiply-accumulate for each tap of each output position, of one channel of one image."""
        return cls(
            dense=vertical.taps(height) * horizontal.taps(width),
            in_bounds=vertical.taps_in_bounds(height) * horizontal.taps_in_bounds(width),
        )

    def __add__(self, other: Macs) -> Macs:
        return Macs(self.dense + other.dense, self.in_bounds + other.in_bounds)

    def __mul__(self, times: int) -> Macs:
        return Macs(self.dense * times, self.in_bounds * times)

    __rmul__ = __mul__


@dataclass(frozen=True)
class Work:
    """The two phases of a core or a layer, over the whole batch."""

    forward: Macs
    backward: Macs

    @classmethod
    def bilinear(cls, forward: Macs) -> Work:
        """Work that is linear in each of two inputs: either gradient costs what the forward costs."""
        return cls(forward, 2 * forward)

    def __add__(self, other: Work) -> Work:
        return Work(self.forward + other.forward, self.backward + other.backward)

    def of_pass(self, pass_: str) -> Macs:
        """What a pass runs: the forward, or for 'training' both phases."""
        return self.forward if pass_ == "forward" else self.forward + self.backward


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What an operator costs on paper, at given parameters and input shape."""

    parameters: int
    """Every learnable scalar of the layer, norm affine included, running statistics excluded."""
    core: Work
    layer: Work
    """The core and everything the layer computes around it."""
