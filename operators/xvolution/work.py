"""What the attention branch of X-volution costs on paper."""

from __future__ import annotations

from opbench.api import Macs, Nchw, Work

from .reference import Params


def core_work(p: Params, shape: Nchw) -> Work:
    """Multiply-adds of either form."""
    return _attention_work(p, shape) if p.form == "B" else _products_work(p, shape)


def _attention_work(p: Params, shape: Nchw) -> Work:
    """Form B: k^2 MACs per channel and pixel for the affinities and again for the weighted sum.

    The backward recomputes the affinities and forms their gradient, gq, gk and gv.
    """
    p.head_width(shape.channels)
    taps = shape.batch * shape.channels * Macs.of_windows(p.window, p.window, shape.height, shape.width)
    return Work(forward=2 * taps, backward=5 * taps)


def _products_work(p: Params, shape: Nchw) -> Work:
    """Form A: one multiplication per channel, pixel and direction; gq and gk cost as much each."""
    partners = sum(
        max(0, shape.height - abs(down) * p.shift) * max(0, shape.width - abs(right) * p.shift)
        for down, right in p.directed_steps
    )
    every = Macs(dense=p.directions * shape.height * shape.width, in_bounds=partners)
    return Work.bilinear(shape.batch * shape.channels * every)
