"""Merging: what is merged, what is left, and that the network computes the same."""

from __future__ import annotations

import torch
from torch import nn

from opbench.networks.merging import merge
from tests.networks.settling import settled


def test_a_norm_goes_into_the_convolution_before_it() -> None:
    torch.manual_seed(0)
    chain = settled(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1)))
    x = torch.randn(2, 3, 7, 5, dtype=torch.float64)
    expected = chain(x)
    merge(chain)
    assert [type(part) for part in chain.children()] == [nn.Conv2d, nn.ReLU, nn.Conv2d]
    torch.testing.assert_close(chain(x), expected)


def test_a_bias_before_the_norm_is_kept() -> None:
    torch.manual_seed(0)
    chain = settled(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    x = torch.randn(1, 3, 2, 2, dtype=torch.float64)
    expected = chain(x)
    merge(chain)
    torch.testing.assert_close(chain(x), expected)


def test_a_norm_before_a_convolution_or_after_a_relu_stays() -> None:
    chain = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3))
    merge(chain)
    assert [type(part) for part in chain.children()] == [nn.BatchNorm2d, nn.Conv2d, nn.ReLU, nn.BatchNorm2d]
