"""What the tests of merged networks share: networks that look trained."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def settled(network: nn.Module) -> nn.Module:
    """The network in float64 and evaluation mode, no statistic, scale or offset of it at its initial value."""
    network.double().eval()
    for parameter in network.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean = torch.randn_like(module.bias)
            module.running_var = 0.5 + torch.rand_like(module.bias)
    return network
