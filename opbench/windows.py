"""The sliding window of a spatial operator: how many outputs it has, and how many taps fall inside the image."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """A window along one axis; all lengths in pixels."""

    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    padding_end: int | None = None
    """Zeros after the last pixel where they differ from those before the first, else None."""

    @classmethod
    def half(cls, kernel: int, stride: int = 1, dilation: int = 1) -> Window:
        """Return the window padded by half its span: an odd kernel then has ceil(extent / stride) outputs."""
        return cls(kernel, stride, dilation * (kernel - 1) // 2, dilation)

    @property
    def paddings(self) -> tuple[int, int]:
        """Zeros before the first pixel and after the last."""
        return self.padding, self.padding if self.padding_end is None else self.padding_end

    @property
    def span(self) -> int:
        """Distance from the first tap to the last, both included."""
        return self.dilation * (self.kernel - 1) + 1

    def outputs(self, extent: int) -> int:
        """Positions of the window on `extent` pixels; 0 when it does not fit."""
        return max(0, (extent + sum(self.paddings) - self.span) // self.stride + 1)

    def taps(self, extent: int) -> int:
        """Taps of all positions, those on padding included."""
        return self.kernel * self.outputs(extent)

    def taps_in_bounds(self, extent: int) -> int:
        """Taps of all positions that read a pixel of the image."""
        return sum(
            1
            for output in range(self.outputs(extent))
            for tap in range(self.kernel)
            if 0 <= output * self.stride - self.padding + tap * self.dilation < extent
        )
