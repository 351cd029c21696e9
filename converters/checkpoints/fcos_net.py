"""FCOS (Tian, Shen, Chen, He 2019) as mmdetection builds it: ResNet, feature pyramid, one head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vkconv.converters.checkpoints.conv_module import ConvModule, Norm
from vkconv.converters.checkpoints.grids import Normalized, boxes_around, rows_of
from vkconv.converters.checkpoints.resnet import ResNet, ResNetSizes, Style

__all__ = ["Fcos", "FcosSizes", "FeaturePyramid", "Scale"]

Levels = list[torch.Tensor]


@dataclass(frozen=True, slots=True)
class FcosSizes:
    """Widths, depths and variants of an FCOS.

    levels:              how many maps the pyramid has.
    laterals:            how many of them come from the backbone, its last ones.
    towers:              convolutions before the head's outputs.
    norm_on_bbox:        distances are in strides, cut at 0; else the exponential, in pixels.
    centerness_on_reg:   centerness comes from the tower of the distances.
    """

    backbone: ResNetSizes
    width: int
    laterals: int
    levels: int
    head_width: int
    towers: int
    tower_norm: Norm
    tower_bias: bool
    classes: int
    style: Style = "caffe"
    norm_on_bbox: bool = False
    centerness_on_reg: bool = False

    @property
    def strides(self) -> tuple[int, ...]:
        first = 4 << (len(self.backbone.blocks) - self.laterals)
        return tuple(first << level for level in range(self.levels))


class Fcos(nn.Module):
    """``(b, 3, h, w)`` RGB in 0..1 to ``(b, n, 5 + classes)``.

    A row is cx, cy, w, h in pixels, the centerness and the class scores; a detection's confidence
    is the product of the last two.
    """

    def __init__(self, sizes: FcosSizes, normalize: Normalized) -> None:
        super().__init__()
        self.sizes = sizes
        stages = len(sizes.backbone.blocks)
        taken = range(stages - sizes.laterals, stages)
        self.normalize = normalize
        self.backbone = ResNet(sizes.backbone, taken, sizes.style)
        channels = [sizes.backbone.outputs[stage] for stage in taken]
        self.neck = FeaturePyramid(channels, sizes.width, sizes.levels)
        self.bbox_head = Head(sizes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = zip(*self.maps(images), self.sizes.strides, strict=True)
        return torch.cat(
            [
                rows_of(boxes_around(sides, stride, 0.5), center.sigmoid(), classes.sigmoid())
                for classes, sides, center, stride in maps
            ],
            1,
        )

    def maps(self, images: torch.Tensor) -> tuple[Levels, Levels, Levels]:
        """Class logits, distances in pixels and centerness logits of every level."""
        return self.bbox_head(self.neck(self.backbone(self.normalize(images))))


class FeaturePyramid(nn.Module):
    """Coarse maps are added to finer ones; further levels are made by strides (Lin et al. 2017)."""

    def __init__(self, inputs: Sequence[int], width: int, levels: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(
            ConvModule(channels, width, norm="", act="", bias=True) for channels in inputs
        )
        self.fpn_convs = nn.ModuleList(
            ConvModule(width, width, 3, 1 if level < len(inputs) else 2, norm="", act="", bias=True)
            for level in range(levels)
        )

    def forward(self, maps: Levels) -> Levels:
        joined = [lateral(x) for lateral, x in zip(self.lateral_convs, maps, strict=True)]
        for fine in range(len(joined) - 2, -1, -1):
            size = joined[fine].shape[2:]
            joined[fine] = joined[fine] + F.interpolate(joined[fine + 1], size, mode="nearest")
        levels = [smooth(x) for smooth, x in zip(self.fpn_convs, joined, strict=False)]
        for index, further in enumerate(list(self.fpn_convs)[len(joined) :]):
            # the first further level reads the pyramid's last map as it is, the next rectified
            levels.append(further(F.relu(levels[-1]) if index else levels[-1]))
        return levels


class Scale(nn.Module):
    """One learnt factor."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


class Head(nn.Module):
    """Two towers that all levels share, with a factor of each level's own for the distances."""

    def __init__(self, sizes: FcosSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.cls_convs = self._tower(sizes)
        self.reg_convs = self._tower(sizes)
        self.conv_cls = nn.Conv2d(sizes.head_width, sizes.classes, 3, padding=1)
        self.conv_reg = nn.Conv2d(sizes.head_width, 4, 3, padding=1)
        self.conv_centerness = nn.Conv2d(sizes.head_width, 1, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in range(sizes.levels))

    @staticmethod
    def _tower(sizes: FcosSizes) -> nn.Sequential:
        inputs = [sizes.width] + [sizes.head_width] * (sizes.towers - 1)
        norm, bias = sizes.tower_norm, sizes.tower_bias
        return nn.Sequential(
            *(ConvModule(i, sizes.head_width, 3, norm=norm, act="relu", bias=bias) for i in inputs)
        )

    def forward(self, levels: Levels) -> tuple[Levels, Levels, Levels]:
        classes, sides, centers = [], [], []
        for x, scale, stride in zip(levels, self.scales, self.sizes.strides, strict=True):
            by_class, by_side = self.cls_convs(x), self.reg_convs(x)
            classes.append(self.conv_cls(by_class))
            distance = scale(self.conv_reg(by_side))
            if self.sizes.norm_on_bbox:
                sides.append(F.relu(distance) * stride)
            else:
                sides.append(torch.exp(distance))
            centers.append(
                self.conv_centerness(by_side if self.sizes.centerness_on_reg else by_class)
            )
        return classes, sides, centers
