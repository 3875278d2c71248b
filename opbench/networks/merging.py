"""Networks as they are deployed: what is linear and follows a convolution is merged into it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from opbench.networks.slot import Slot


def merge(network: nn.Module) -> None:
    """Merge, in place, every batch norm of a chain into the convolution before it, and what can merge itself.

    The network then computes what it did in evaluation mode. A part can merge itself if it has a method `merge`, which
    returns its replacement; the layer in a slot may have one too.
    """
    parts: list[tuple[str, Any]] = list(network.named_children())
    for name, part in parts:
        replaced = part.merge() if hasattr(part, "merge") else part
        setattr(network, name, replaced)
        merge(replaced)
        if isinstance(network, Slot) and replaced is not part:
            network.params = replaced.params
    if isinstance(network, nn.Sequential):
        _shorten(network)


def _shorten(chain: nn.Sequential) -> None:
    previous: nn.Module | None = None
    for name, part in list(chain.named_children()):
        if isinstance(previous, nn.Conv2d) and isinstance(part, nn.BatchNorm2d):
            fold(previous, part)
            delattr(chain, name)
        previous = part


@torch.no_grad()
def fold(convolution: nn.Conv2d, norm: Any) -> None:
    """Let a convolution, which gets a bias, compute what it and the norm after it do in evaluation mode."""
    # In float64, so that each merged value is rounded once, whatever the network's dtype.
    gain = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    offset = 0 if convolution.bias is None else convolution.bias.double()
    bias = norm.bias + gain * (offset - norm.running_mean)
    convolution.weight.copy_(gain[:, None, None, None] * convolution.weight)
    convolution.bias = nn.Parameter(bias.to(convolution.weight.dtype))
