"""Gives the batch norms of an untrained network statistics to go by."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def settle(network: nn.Module, x: Tensor) -> None:
    """Let every batch norm take its running statistics from the images that the network is to be measured on.

    An untrained network in evaluation mode normalises nothing: through fifty layers its activations vanish, or grow
    beyond what float16 can hold, and neither is what a kernel meets in practice. Other images would not do: products
    of products, as X-volution's, grow from what little is different in them.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    sizes: dict[nn.Module, int] = {}

    def note(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes[norm] = inputs[0].numel() // inputs[0].shape[1]

    training, momenta = network.training, [norm.momentum for norm in norms]
    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    # A norm after a pooling to one pixel wants more than one image.
    network.train()(torch.cat([x, x]) if len(x) == 1 else x)
    for norm, momentum, hook in zip(norms, momenta, hooks, strict=True):
        norm.momentum = momentum
        hook.remove()
        if norm in sizes and norm.running_var is not None:
            # In training a norm divides by the variance of the batch, and keeps the estimate for the population.
            norm.running_var.mul_((sizes[norm] - 1) / sizes[norm])
    network.train(training)
