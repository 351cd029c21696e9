"""FCOS (Tian et al. 2019) with all that follows the heads: boxes, scores and labels come out.

ResNet-18 and a feature pyramid, a quarter to half as wide; heads with group normalization shared by
all levels, one factor per level before the exponential; a score is class times centerness. The best
of each level are decoded, then either the best of all are kept or ONNX's NonMaxSuppression decides.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.models.resnet import Block
from tests.models.suppression import non_max_suppression
from tests.models.weights import Drawn, build

STRIDES = (8, 16, 32, 64, 128)
WIDTH = 48
PER_LEVEL = 40
KEPT = 30
Levels = list[torch.Tensor]


def fcos(classes: int = 7, seed: int = 81) -> nn.Module:
    """To (batch, 30) detections: boxes, scores, labels."""
    return build(lambda: Fcos(classes), seed)


def fcos_nms(classes: int = 7, seed: int = 82) -> nn.Module:
    """To detections of all images in one list: boxes, scores, labels and the image of each."""
    return build(lambda: FcosSuppressed(classes), seed)


class Fcos(nn.Module):
    """``(batch, 3, h, w)``, h and w multiples of 32."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.backbone = Backbone()
        self.pyramid = Pyramid((64, 128, 256), WIDTH)
        self.head = Head(WIDTH, classes)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = [
            self.best_of_level(*maps, stride)
            for *maps, stride in zip(*self.maps(images), STRIDES, strict=True)
        ]
        boxes, scores, labels = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        scores, order = torch.topk(scores, KEPT)
        boxes = torch.gather(boxes, 1, order[..., None].expand(-1, -1, 4))
        boxes = clipped(boxes, images.shape[2], images.shape[3])
        return boxes, torch.sqrt(scores), torch.gather(labels, 1, order)

    def maps(self, images: torch.Tensor) -> tuple[Levels, Levels, Levels]:
        return self.head(self.pyramid(self.backbone(images)))

    def best_of_level(
        self, classes: torch.Tensor, sides: torch.Tensor, centers: torch.Tensor, stride: int
    ) -> tuple[torch.Tensor, ...]:
        """The best (position, class) pairs of a level."""
        scores = (classes.sigmoid() * centers.sigmoid()).permute(0, 2, 3, 1).flatten(1)
        best, index = torch.topk(scores, smaller(PER_LEVEL, scores.shape[1]))
        position = torch.div(index, self.classes, rounding_mode="floor")
        return decoded(sides, stride, position), best, index % self.classes


class FcosSuppressed(Fcos):
    """Every class of the best positions is suppressed on its own."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = [
            self.best_of_level(*maps, stride)
            for *maps, stride in zip(*self.maps(images), STRIDES, strict=True)
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
        taken = torch.gather(scores, 1, position[..., None].expand(-1, -1, self.classes))
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


class Backbone(nn.Module):
    """ResNet-18, half as wide: maps of stride 8, 16, 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 7, 2, 3, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
            Block(32, 32),
            Block(32, 32),
        )
        self.stages = nn.ModuleList(
            nn.Sequential(Block(width // 2, width, 2), Block(width, width))
            for width in (64, 128, 256)
        )

    def forward(self, images: torch.Tensor) -> Levels:
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class Pyramid(nn.Module):
    """Coarse maps are added to finer ones; two more levels are made by strides."""

    def __init__(self, inputs: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in inputs)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in inputs)
        self.sixth = nn.Conv2d(width, width, 3, 2, 1)
        self.seventh = nn.Conv2d(width, width, 3, 2, 1)

    def forward(self, maps: Levels) -> Levels:
        joined = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for fine in (1, 0):
            size = joined[fine].shape[2:]
            joined[fine] = joined[fine] + F.interpolate(joined[fine + 1], size, mode="nearest")
        # the sums have the variance of all levels below; the heads' group normalization takes it
        levels = [smooth(x) for smooth, x in zip(self.smooth, joined, strict=True)]
        levels.append(self.sixth(levels[-1]))
        levels.append(self.seventh(F.relu(levels[-1])))
        return levels


class Scale(Drawn):
    """One learnt factor."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.empty(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor

    def draw(self, generator: torch.Generator) -> None:
        self.factor.uniform_(0.3, 0.6, generator=generator)


class Head(nn.Module):
    """Class logits, distances in pixels and centerness logits of every level."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.class_tower = tower(width)
        self.side_tower = tower(width)
        self.classes = nn.Conv2d(width, classes, 3, padding=1)
        self.sides = nn.Conv2d(width, 4, 3, padding=1)
        self.center = nn.Conv2d(width, 1, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in STRIDES)

    def forward(self, levels: Levels) -> tuple[Levels, Levels, Levels]:
        classes, sides, centers = [], [], []
        for x, scale, stride in zip(levels, self.scales, STRIDES, strict=True):
            classes.append(self.classes(self.class_tower(x)))
            towered = self.side_tower(x)
            sides.append(torch.exp(scale(self.sides(towered))) * stride)
            centers.append(self.center(towered))
        return classes, sides, centers


def tower(width: int, length: int = 2) -> nn.Sequential:
    parts: list[nn.Module] = []
    for _ in range(length):
        parts += [nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU()]
    return nn.Sequential(*parts)
