"""LSNet: blocks whose mixer is by turns a small depthwise convolution and LS convolution, the slot.

Wang et al., LSNet: See Large, Focus Small, CVPR 2025, arXiv 2503.23135.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from opbench.networks.merging import merge
from opbench.networks.slot import Filling

_HEADS, _KEYS = 4, 16


def build(
    fill: Filling,
    *,
    widths: Sequence[int],
    blocks: Sequence[int],
    side: int = 4,
    classes: int = 1000,
    fused: bool = False,
) -> LSNet:
    """Build an LSNet.

    Args:
        fill: fills the slots: every second block of all stages but the last.
        widths: channels of each stage.
        blocks: of each stage.
        side: of the maps for which the last stage's attention learns its position biases, 4 for images of 224 pixels.
        classes: of the classifier.
        fused: the deployed form, batch norms and parallel convolutions merged.
    """
    network = LSNet(fill, widths, blocks, side, classes)
    if fused:
        merge(network)
        network.merge_classifier()
    return network


class LSNet(nn.Module):
    """[N, 3, H, W] -> [N, classes]."""

    def __init__(self, fill: Filling, widths: Sequence[int], blocks: Sequence[int], side: int, classes: int) -> None:
        super().__init__()
        channels = widths[0]
        self.stem = nn.Sequential(
            _convolution_norm(3, channels // 4, 3, stride=2),
            nn.ReLU(),
            _convolution_norm(channels // 4, channels // 2, 3, stride=2),
            nn.ReLU(),
            _convolution_norm(channels // 2, channels, 3, stride=2),
        )
        self.stages = nn.Sequential()
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            chain: list[nn.Module] = []
            if stage:
                chain += [
                    _convolution_norm(channels, channels, 3, stride=2, groups=channels),
                    _convolution_norm(channels, width, 1),
                ]
            last = stage == len(widths) - 1
            for place in range(count):
                if place % 2 == 0:
                    chain.append(Block(width, SmallDepthwise(width), Gate(width)))
                else:
                    mixer = Attention(width, side) if last else _slot(fill, width)
                    chain.append(Block(width, mixer, nn.Identity()))
            self.stages.append(nn.Sequential(*chain))
            channels = width
        self.norm: nn.Module = nn.BatchNorm1d(channels)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, classes]."""
        means = F.adaptive_avg_pool2d(self.stages(self.stem(x)), 1).flatten(1)
        logits: Tensor = self.head(self.norm(means))
        return logits

    @torch.no_grad()
    def merge_classifier(self) -> None:
        """Merge, in place, the last norm into the classifier after it."""
        norm: Any = self.norm
        head: Any = self.head
        gain = norm.weight * (norm.running_var + norm.eps).rsqrt()
        head.bias += head.weight @ (norm.bias - gain * norm.running_mean)
        head.weight *= gain
        self.norm = nn.Identity()


class Block(nn.Module):
    """[N, C, H, W] -> the same: a mixer of pixels, a gate, two 1x1 convolutions added to their input."""

    def __init__(self, channels: int, mixer: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.mixer, self.gate = mixer, gate
        self.pointwise = nn.Sequential(
            _convolution_norm(channels, 2 * channels, 1), nn.ReLU(), _convolution_norm(2 * channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        x = self.gate(self.mixer(x))
        y: Tensor = x + self.pointwise(x)
        return y


class SmallDepthwise(nn.Module):
    """[N, C, H, W] -> the same: a 3x3 and a 1x1 depthwise convolution and the input, added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.square = _convolution_norm(channels, channels, 3, groups=channels)
        self.point = _convolution_norm(channels, channels, 1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        y: Tensor = self.square(x) + self.point(x) + x
        return y

    @torch.no_grad()
    def merge(self) -> nn.Conv2d:
        """Return one 3x3 convolution that computes what the three do in evaluation mode."""
        merge(self)
        square: Any = self.square[0]
        point: Any = self.point[0]
        square.weight[:, :, 1, 1] += point.weight[:, :, 0, 0] + 1
        square.bias += point.bias
        convolution: nn.Conv2d = square
        return convolution


class Gate(nn.Module):
    """[N, C, H, W] -> the same: squeeze and excitation, each channel times a number that depends on all means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.activation = nn.ReLU()
        self.expand = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        means = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.expand(self.activation(self.reduce(means))))


class Attention(nn.Module):
    """[N, C, H, W] -> the same: every pixel attends to every other, with a bias by their distance; added to the input.

    Args:
        channels: C.
        side: farthest distance, and one more, along either axis that has a bias of its own.
    """

    index: Tensor

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.channels, self.side = channels, side
        keys = _HEADS * _KEYS
        self.qkv = _convolution_norm(channels, channels + 2 * keys, 1)
        self.local = _convolution_norm(keys, keys, 3, groups=keys)
        self.project = nn.Sequential(nn.ReLU(), _convolution_norm(channels, channels, 1))
        self.biases = nn.Parameter(torch.zeros(_HEADS, side**2))
        self.register_buffer("index", _distances(side, side, side, self.biases.device))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        query, key, value = self.qkv(x).split((_HEADS * _KEYS, _HEADS * _KEYS, self.channels), dim=1)
        query, key, value = (part.flatten(2).unflatten(1, (_HEADS, -1)) for part in (self.local(query), key, value))
        height, width = size = x.shape[2:]
        known = height == width == self.side
        index = self.index if known else _distances(height, width, self.side, x.device)
        scores = query.transpose(2, 3) @ key * _KEYS**-0.5 + self.biases[:, index]
        mixed = value @ scores.softmax(3).transpose(2, 3)
        y: Tensor = x + self.project(mixed.flatten(1, 2).unflatten(2, size))
        return y


def _distances(height: int, width: int, side: int, device: torch.device) -> Tensor:
    """[H * W, H * W]: of every two pixels the number of their distance, as far as a map of this side has one."""
    ys = torch.arange(height, device=device).repeat_interleave(width)
    xs = torch.arange(width, device=device).repeat(height)
    dy, dx = ((axis[:, None] - axis).abs().clamp(max=side - 1) for axis in (ys, xs))
    return dy * side + dx


def _slot(fill: Filling, channels: int) -> nn.Module:
    slot = fill(channels)
    # LS convolution has a norm of its own and adds its input, which any other operator gets here.
    return slot if fill.own else Residual(nn.Sequential(slot, nn.BatchNorm2d(channels)))


class Residual(nn.Module):
    """[N, C, H, W] -> the same: a part, added to its input."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        y: Tensor = x + self.part(x)
        return y


def _convolution_norm(channels: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))
