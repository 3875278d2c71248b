"""Semantic segmentation on a ResNet: semantic FPN and UPerNet, as mmsegmentation builds them.

Kirillov et al., Panoptic Feature Pyramid Networks, CVPR 2019, arXiv 1901.02446; Xiao et al., Unified Perceptual Parsing
for Scene Understanding, ECCV 2018, arXiv 1807.10221.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from opbench.networks import resnet
from opbench.networks.fpn import Pyramid, top_down
from opbench.networks.slot import Filling

_CHANNELS = (256, 512, 1024, 2048)


def build(
    fill: Filling,
    *,
    segmenter: Literal["semantic-fpn", "upernet"],
    blocks: Sequence[int],
    stem: resnet.Stem = "7x7",
    norm: resnet.Norm = "batch",
    neck: Literal["convolution", "slot"] = "convolution",
    classes: int = 19,
) -> nn.Module:
    """Build a segmenter.

    Args:
        fill: fills the slots.
        segmenter: which.
        blocks: of each stage of the backbone.
        stem: of the backbone.
        norm: of the whole network.
        neck: what smooths each level of semantic FPN's pyramid, a 3x3 convolution or a slot; UPerNet has no neck.
        classes: of pixels.
    """
    backbone = resnet.build(fill, blocks=blocks, stem=stem, norm=norm, classes=None)
    if segmenter == "upernet":
        return UPerNet(backbone, classes, resnet.NORMS[norm])
    return SemanticFPN(backbone, fill if neck == "slot" else None, classes, resnet.NORMS[norm])


class SemanticFPN(nn.Module):
    """[N, 3, H, W] -> [N, classes, H / 4, W / 4]: each level enlarged step by step, their sum classified."""

    def __init__(
        self, backbone: resnet.ResNet, in_neck: Filling | None, classes: int, norm: type[nn.Module], width: int = 128
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = Pyramid(_CHANNELS, 256, in_neck)
        self.levels = nn.ModuleList(_enlarging(256, width, doublings, norm) for doublings in range(4))
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, classes, H / 4, W / 4]."""
        maps = self.neck(self.backbone.features(x))
        y, *coarser = (level(x) for level, x in zip(self.levels, maps, strict=True))
        for z in coarser:
            y = y + _resized(z, y)
        logits: Tensor = self.classify(y)
        return logits


class UPerNet(nn.Module):
    """[N, 3, H, W] -> [N, classes, H / 4, W / 4]: a pyramid under a pooled top, all its levels fused and classified.

    Its auxiliary head learns from the third stage; it has parameters, and does not run. Training needs two images: the
    norm over the coarsest pool has one pixel of each.
    """

    def __init__(
        self,
        backbone: resnet.ResNet,
        classes: int,
        norm: type[nn.Module],
        width: int = 512,
        grids: Sequence[int] = (1, 2, 3, 6),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        *fine, top = _CHANNELS
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(grid), _convolution(top, width, 1, norm)) for grid in grids
        )
        self.top = _convolution(top + len(grids) * width, width, 3, norm)
        self.laterals = nn.ModuleList(_convolution(channels, width, 1, norm) for channels in fine)
        self.outputs = nn.ModuleList(_convolution(width, width, 3, norm) for _ in fine)
        self.fuse = _convolution(len(_CHANNELS) * width, width, 3, norm)
        self.classify = nn.Conv2d(width, classes, 1)
        self.auxiliary = nn.Sequential(_convolution(1024, 256, 3, norm), nn.Conv2d(256, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, classes, H / 4, W / 4]."""
        *fine, last = self.backbone.features(x)
        pooled = [_resized(pool(last), last) for pool in self.pools]
        laterals = [lateral(x) for lateral, x in zip(self.laterals, fine, strict=True)]
        *sums, top = top_down([*laterals, self.top(torch.cat([last, *pooled], dim=1))], mode="bilinear")
        levels = [*(output(x) for output, x in zip(self.outputs, sums, strict=True)), top]
        logits: Tensor = self.classify(self.fuse(torch.cat([_resized(y, levels[0]) for y in levels], dim=1)))
        return logits


def _enlarging(channels: int, width: int, doublings: int, norm: type[nn.Module]) -> nn.Sequential:
    """[N, C, H, W] -> [N, width, H * 2**doublings, W * 2**doublings], by a convolution before each doubling."""
    layers: list[nn.Module] = []
    for _ in range(max(1, doublings)):
        layers.append(_convolution(channels, width, 3, norm))
        if doublings:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear"))
        channels = width
    return nn.Sequential(*layers)


def _convolution(channels: int, outputs: int, kernel: int, norm: type[nn.Module]) -> nn.Sequential:
    convolution = nn.Conv2d(channels, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, norm(outputs), nn.ReLU())


def _resized(x: Tensor, like: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, H', W'], the size of `like`."""
    return F.interpolate(x, like.shape[2:], mode="bilinear")
