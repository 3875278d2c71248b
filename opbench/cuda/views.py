"""What device code knows of a convolution's windows: the integers of `Divisor` and `View` in `windows.cuh`."""

from __future__ import annotations

import math

from opbench.windows import Window


def divisor(by: int) -> tuple[int, int, int]:
    """The integers with which a kernel divides 0..2^31 - 1 by a number: itself, a multiplier and a shift.

    What is empty counts as 1: nothing of it is ever divided.
    """
    by = max(by, 1)
    shift = 31 + (by - 1).bit_length()
    multiplier = (1 << shift) // by + 1
    return by, multiplier - (multiplier >> 31 << 32), shift


def forward_view(vertical: Window, horizontal: Window, height: int, width: int) -> tuple[int, ...]:
    """The `View` of outputs into an input of height x width pixels; both axes share stride and dilation."""
    columns = horizontal.outputs(width)
    return (
        *(height, width, vertical.stride, -vertical.padding, -horizontal.padding),
        *(vertical.dilation, horizontal.dilation),
        *divisor(columns),
        *divisor(vertical.outputs(height) * columns),
        *divisor(horizontal.kernel),
        *divisor(vertical.kernel * horizontal.kernel),
    )


def backward_view(vertical: Window, horizontal: Window, height: int, width: int) -> tuple[int, ...]:
    """The `View` of every stride-th pixel of an input into the outputs.

    Where it begins and how it steps, a kernel finds for the pixels at hand by `reach`: here are what `reach` asks
    for, the paddings and the dilation.
    """
    stride = vertical.stride
    columns = math.ceil(width / stride)
    return (
        *(vertical.outputs(height), horizontal.outputs(width), 1, vertical.padding, horizontal.padding),
        *(vertical.dilation, horizontal.dilation),
        *divisor(columns),
        *divisor(math.ceil(height / stride) * columns),
        *divisor(horizontal.kernel),
        *divisor(vertical.kernel * horizontal.kernel),
    )


def flipped_view(vertical: Window, horizontal: Window, height: int, width: int) -> tuple[int, ...]:
    """The `View` of an input's pixels into the outputs where the stride is 1: steps go backward."""
    view = list(backward_view(vertical, horizontal, height, width))
    view[5:7] = -vertical.dilation, -horizontal.dilation
    return tuple(view)
