"""FCOS (Tian et al. 2019) with all that follows the heads: boxes, scores and labels come out.

The net is the converter's, thinned out: ResNet-18 and a feature pyramid, heads with group
normalization. Here the best of each level are decoded, then either the best of all are kept or
ONNX's NonMaxSuppression decides.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from tests.models.weights import build
from vkconv.converters.checkpoints.fcos_net import Fcos, FcosSizes, Scale
from vkconv.converters.checkpoints.grids import Normalized
from vkconv.converters.checkpoints.resnet import ResNetSizes
from vkconv.converters.suppression import non_max_suppression

RESNET18 = ResNetSizes(32, (32, 64, 128, 256), (32, 64, 128, 256), (2, 2, 2, 2), False)
PUBLISHED_RESNET18 = ResNetSizes(64, (64, 128, 256, 512), (64, 128, 256, 512), (2,) * 4, False)
NORMALIZED = Normalized((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
PER_LEVEL = 40
KEPT = 30


def sizes_of(classes: int, **changes: object) -> FcosSizes:
    """Sizes of a small net; ``changes`` replace its variants."""
    values = {"width": 48, "laterals": 3, "levels": 5, "head_width": 64, "towers": 2}
    values |= {"tower_norm": "gn", "tower_bias": True, "classes": classes, **changes}
    return FcosSizes(backbone=RESNET18, **values)


def fcos(classes: int = 7, seed: int = 81) -> nn.Module:
    """To (batch, 30) detections: boxes, scores, labels."""
    return filled(lambda: BestFcos(sizes_of(classes), NORMALIZED), seed)


def fcos_r18(classes: int = 80, seed: int = 83) -> nn.Module:
    """In the published widths, to the rows of all cells (batch, n, 5 + classes)."""
    sizes = replace(
        sizes_of(classes, width=256, head_width=256, towers=4), backbone=PUBLISHED_RESNET18
    )
    return filled(lambda: Fcos(sizes, NORMALIZED), seed)


def fcos_nms(classes: int = 7, seed: int = 82) -> nn.Module:
    """To detections of all images in one list: boxes, scores, labels and the image of each."""
    return filled(lambda: SuppressedFcos(sizes_of(classes), NORMALIZED), seed)


def filled(make, seed: int) -> nn.Module:
    """With random weights; factors under which boxes have the sizes of objects."""
    net = build(make, seed)
    generator = torch.Generator().manual_seed(seed)
    strides = iter(net.sizes.strides)
    for part in net.modules():
        if isinstance(part, Scale):
            part.scale.uniform_(0.3, 0.6, generator=generator)
            next(strides)
    # in the exponential's pixels: around 20
    net.bbox_head.conv_reg.bias.add_(6.0)
    return net


class BestFcos(Fcos):
    """``(batch, 3, h, w)``, h and w multiples of 32."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = [
            self.best_of_level(*maps, stride)
            for *maps, stride in zip(*self.maps(images), self.sizes.strides, strict=True)
        ]
        boxes, scores, labels = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        scores, order = torch.topk(scores, KEPT)
        boxes = torch.gather(boxes, 1, order[..., None].expand(-1, -1, 4))
        boxes = clipped(boxes, images.shape[2], images.shape[3])
        return boxes, torch.sqrt(scores), torch.gather(labels, 1, order)

    def best_of_level(
        self, classes: torch.Tensor, sides: torch.Tensor, centers: torch.Tensor, stride: int
    ) -> tuple[torch.Tensor, ...]:
        """The best (position, class) pairs of a level."""
        scores = (classes.sigmoid() * centers.sigmoid()).permute(0, 2, 3, 1).flatten(1)
        best, index = torch.topk(scores, smaller(PER_LEVEL, scores.shape[1]))
        position = torch.div(index, self.sizes.classes, rounding_mode="floor")
        return decoded(sides, stride, position), best, index % self.sizes.classes


class SuppressedFcos(Fcos):
    """Every class of the best positions is suppressed on its own."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = [
            self.best_of_level(*maps, stride)
            for *maps, stride in zip(*self.maps(images), self.sizes.strides, strict=True)
        ]
        boxes, scores = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        boxes = clipped(boxes, images.shape[2], images.shape[3])
        kept = non_max_suppression(boxes, scores.transpose(1, 2), 10, 0.5, 0.4)
        image, label, position = kept.unbind(1)
        return boxes[image, position], scores[image, position, label], label, image

    def best_of_level(
        self, classes: torch.Tensor, sides: torch.Tensor, centers: torch.Tensor, stride: int
    ) -> tuple[torch.Tensor, ...]:
        """The positions of a level whose best class scores most, with all classes."""
        scores = (classes.sigmoid() * centers.sigmoid()).flatten(2).transpose(1, 2)
        strongest = scores.max(2)[0]
        _, position = torch.topk(strongest, smaller(PER_LEVEL, strongest.shape[1]))
        taken = torch.gather(scores, 1, position[..., None].expand(-1, -1, self.sizes.classes))
        return decoded(sides, stride, position), taken.sqrt()


def smaller(most: int, size: int | torch.Tensor) -> int | torch.Tensor:
    """The lesser of a limit and a size, which either exporter may leave open."""
    if isinstance(size, torch.Tensor):
        return torch.minimum(torch.tensor(most), size)
    return torch.sym_min(most, size)


def decoded(sides: torch.Tensor, stride: int, position: torch.Tensor) -> torch.Tensor:
    """Boxes (x1, y1, x2, y2) around some points of a map, from the distances to their sides."""
    rows = (torch.arange(sides.shape[2], dtype=torch.float32) + 0.5) * stride
    columns = (torch.arange(sides.shape[3], dtype=torch.float32) + 0.5) * stride
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    points = torch.stack([x.reshape(-1), y.reshape(-1)], 1)[position]
    far = torch.gather(sides.flatten(2).transpose(1, 2), 1, position[..., None].expand(-1, -1, 4))
    return torch.cat([points - far[..., :2], points + far[..., 2:]], 2)


def clipped(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    x1, y1, x2, y2 = boxes.unbind(2)
    xs = (x.clamp(0, width) for x in (x1, x2))
    ys = (y.clamp(0, height) for y in (y1, y2))
    (x1, x2), (y1, y2) = xs, ys
    return torch.stack([x1, y1, x2, y2], 2)
