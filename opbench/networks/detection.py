"""Detectors on a ResNet: Faster R-CNN, Mask R-CNN and RetinaNet, as mmdetection builds them.

Ren et al., NeurIPS 2015, arXiv 1506.01497; He et al., ICCV 2017, arXiv 1703.06870; Lin et al., ICCV 2017, arXiv
1708.02002. The involution paper fills the slots of the backbone, and then those of the neck and of the head too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from opbench.networks import resnet
from opbench.networks.fpn import Pyramid, spatial
from opbench.networks.slot import Filling

Part = Literal["convolution", "slot"]

_CHANNELS = (256, 512, 1024, 2048)
_WIDTH = 256
_BOXES, _MASKS = 1000, 100
"""Regions of an image that the box head and the mask head see."""


def build(
    fill: Filling,
    *,
    detector: Literal["faster-rcnn", "mask-rcnn", "retinanet"],
    blocks: Sequence[int],
    stem: resnet.Stem = "7x7",
    norm: resnet.Norm = "batch",
    neck: Part = "convolution",
    head: Part = "convolution",
    classes: int = 80,
) -> nn.Module:
    """Build a detector whose stem and first stage are frozen, as they are while it is trained.

    Args:
        fill: fills the slots.
        detector: which.
        blocks: of each stage of the backbone.
        stem: of the backbone.
        norm: of the backbone; there is none elsewhere.
        neck: what smooths each level of the pyramid, a 3x3 convolution or a slot.
        head: the same for the region proposals and the masks; RetinaNet's is always convolution.
        classes: of objects.
    """
    backbone = resnet.build(fill, blocks=blocks, stem=stem, norm=norm, classes=None)
    for part in (backbone.stem, backbone.stages[0]):
        part.requires_grad_(False)
    in_neck, in_head = (fill if part == "slot" else None for part in (neck, head))
    if detector == "retinanet":
        return RetinaNet(backbone, in_neck, classes)
    return RCNN(backbone, in_neck, in_head, classes, masks=detector == "mask-rcnn")


class RCNN(nn.Module):
    """[N, 3, H, W] -> [N, *]: all proposals, boxes and masks of an image in one row.

    Its boxes and masks are those of empty regions: what RoIAlign would cut from the pyramid are zeros here.
    """

    def __init__(
        self, backbone: resnet.ResNet, in_neck: Filling | None, in_head: Filling | None, classes: int, masks: bool
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = Pyramid(_CHANNELS, _WIDTH, in_neck)
        self.proposals = Proposals(in_head)
        self.boxes = Boxes(classes)
        self.masks = Masks(in_head, classes) if masks else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, *]."""
        levels = self.neck(self.backbone.features(x))
        levels.append(levels[-1][..., ::2, ::2])
        outputs = [y for level in levels for y in self.proposals(level)]
        outputs += self.boxes(_regions(x, _BOXES, 7))
        if self.masks is not None:
            outputs.append(self.masks(_regions(x, _MASKS, 14)))
        return _joined(outputs, len(x))


class Proposals(nn.Module):
    """[N, 256, H, W] -> [N, 3, H, W] and [N, 12, H, W]: for three boxes at each pixel, a score and four offsets."""

    def __init__(self, fill: Filling | None) -> None:
        super().__init__()
        self.spatial = spatial(_WIDTH, fill)
        self.scores = nn.Conv2d(_WIDTH, 3, 1)
        self.offsets = nn.Conv2d(_WIDTH, 12, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """[N, 256, H, W] -> [N, 3, H, W], [N, 12, H, W]."""
        x = F.relu(self.spatial(x))
        return [self.scores(x), self.offsets(x)]


class Boxes(nn.Module):
    """[R, 256, 7, 7] -> [R, classes + 1] and [R, 4 * classes]: each region's scores, and a box for each class."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        hidden = 1024
        self.shared = nn.Sequential(
            nn.Flatten(), nn.Linear(_WIDTH * 7 * 7, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.scores = nn.Linear(hidden, classes + 1)
        self.offsets = nn.Linear(hidden, 4 * classes)

    def forward(self, x: Tensor) -> list[Tensor]:
        """[R, 256, 7, 7] -> [R, classes + 1], [R, 4 * classes]."""
        x = self.shared(x)
        return [self.scores(x), self.offsets(x)]


class Masks(nn.Sequential):
    """[R, 256, 14, 14] -> [R, classes, 28, 28]."""

    def __init__(self, fill: Filling | None, classes: int) -> None:
        convolutions = [layer for _ in range(4) for layer in (spatial(_WIDTH, fill), nn.ReLU())]
        enlarge = WrappedConvTranspose2d(_WIDTH, _WIDTH, 2, 2)
        super().__init__(*convolutions, enlarge, nn.ReLU(), WrappedConv2d(_WIDTH, classes, 1))


class RetinaNet(nn.Module):
    """[N, 3, H, W] -> [N, *]: the scores and offsets of all boxes of an image in one row, finest level first."""

    def __init__(self, backbone: resnet.ResNet, in_neck: Filling | None, classes: int, boxes: int = 9) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = Pyramid(_CHANNELS[1:], _WIDTH, in_neck)
        self.coarser = nn.Conv2d(_CHANNELS[-1], _WIDTH, 3, 2, 1)
        self.coarsest = nn.Conv2d(_WIDTH, _WIDTH, 3, 2, 1)
        self.scores = _tower(boxes * classes)
        self.offsets = _tower(boxes * 4)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, *]."""
        maps = self.backbone.features(x)[1:]
        levels = self.neck(maps)
        levels.append(self.coarser(maps[-1]))
        levels.append(self.coarsest(levels[-1]))
        return _joined([y for level in levels for y in (self.scores(level), self.offsets(level))], len(x))


class WrappedConv2d(nn.Conv2d):
    """A convolution that counters which know torch's classes only do not know: mmcv's mask head has such."""


class WrappedConvTranspose2d(nn.ConvTranspose2d):
    """The same for the transposed convolution."""


def _regions(x: Tensor, count: int, side: int) -> Tensor:
    """[N, ...] -> [N * count, 256, side, side] zeros, which ask for a gradient as what RoIAlign cuts would."""
    return x.new_zeros(len(x) * count, _WIDTH, side, side, requires_grad=torch.is_grad_enabled())


def _tower(outputs: int) -> nn.Sequential:
    """[N, 256, H, W] -> [N, outputs, H, W]: four convolutions, and one for the outputs."""
    layers = [layer for _ in range(4) for layer in (nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1), nn.ReLU())]
    return nn.Sequential(*layers, nn.Conv2d(_WIDTH, outputs, 3, padding=1))


def _joined(outputs: Sequence[Tensor], images: int) -> Tensor:
    """[N, ...] or [N * regions, ...] each -> [N, *]."""
    return torch.cat([y.reshape(images, -1) for y in outputs], dim=1)
