"""YOLOX (Ge et al. 2021) with deformable layers: CSP backbone, pyramid, a head whose classes and
boxes have towers of their own.

The deformable layers are plain modules, as training code has them: ``p_conv`` tells where to
sample, ``m_conv`` how much each sample counts, ``conv`` has a stride of its kernel's size.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from tests.converters.wild_deformable import PlainDeformable
from tests.models.weights import build

WIDTHS = (8, 16, 24, 32, 48)
STRIDES = (8, 16, 32)


def yolox(classes: int = 4, seed: int = 93) -> nn.Module:
    return build(lambda: YoloX(classes), seed)


class Conv(nn.Module):
    """``conv``, ``bn``, ``act``, as YOLOX names them."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)
        self.act = nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.bn(self.conv(x)))


class Focus(nn.Module):
    """Each 2 x 2 pixels become channels."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv = Conv(12, outputs, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        corners = (x[..., y::2, z::2] for z in (0, 1) for y in (0, 1))
        return self.conv(torch.cat(list(corners), 1))


class Bottleneck(nn.Module):
    """1x1 and 3x3; added to the input where asked."""

    def __init__(self, channels: int, adds: bool, deformable: bool = False) -> None:
        super().__init__()
        self.conv1 = Conv(channels, channels)
        self.conv2: nn.Module = (
            PlainDeformable(channels, channels, 3, 1, 1, modulated=True)
            if deformable
            else Conv(channels, channels, 3)
        )
        self.adds = adds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv2(self.conv1(x))
        return x + y if self.adds else y


class CspLayer(nn.Module):
    """Half of the channels pass the bottlenecks, half pass them by (Wang et al. 2020)."""

    def __init__(
        self, inputs: int, outputs: int, count: int = 1, adds: bool = True, deformable: bool = False
    ) -> None:
        super().__init__()
        half = outputs // 2
        self.conv1, self.conv2 = Conv(inputs, half), Conv(inputs, half)
        self.conv3 = Conv(2 * half, outputs)
        self.m = nn.Sequential(*(Bottleneck(half, adds, deformable) for _ in range(count)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv3(torch.cat([self.m(self.conv1(x)), self.conv2(x)], 1))


class SppBottleneck(nn.Module):
    """Maxima over 5, 9 and 13 pixels beside the map itself."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = Conv(inputs, inputs // 2)
        self.m = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in (5, 9, 13))
        self.conv2 = Conv(inputs * 2, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        return self.conv2(torch.cat([x, *(pool(x) for pool in self.m)], 1))


class Pyramid(nn.Module):
    """Coarse maps go up to finer ones, then fine ones down again; the coarsest is deformable."""

    def __init__(self) -> None:
        super().__init__()
        third, fourth, fifth = WIDTHS[2:]
        self.lateral = Conv(fifth, fourth)
        self.up4 = CspLayer(2 * fourth, fourth, adds=False)
        self.reduce = Conv(fourth, third)
        self.up3 = CspLayer(2 * third, third, adds=False)
        self.shrink3 = Conv(third, third, 3, 2)
        self.down4 = CspLayer(2 * third, fourth, adds=False)
        # version 1: no modulation
        self.shrink4 = PlainDeformable(fourth, fourth, 3, 1, 2, modulated=False)
        self.down5 = CspLayer(2 * fourth, fifth, adds=False, deformable=True)

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        x3, x4, x5 = maps
        lateral = self.lateral(x5)
        y4 = self.up4(torch.cat([F.interpolate(lateral, scale_factor=2.0), x4], 1))
        reduced = self.reduce(y4)
        y3 = self.up3(torch.cat([F.interpolate(reduced, scale_factor=2.0), x3], 1))
        z4 = self.down4(torch.cat([self.shrink3(y3), reduced], 1))
        z5 = self.down5(torch.cat([self.shrink4(z4), lateral], 1))
        return [y3, z4, z5]


class Head(nn.Module):
    """Towers for classes and for boxes, on every level its own; rows relative to the grid."""

    def __init__(self, classes: int, width: int = 24) -> None:
        super().__init__()
        self.stems = nn.ModuleList(Conv(inputs, width) for inputs in WIDTHS[2:])
        self.cls_convs = nn.ModuleList(self.tower(width) for _ in STRIDES)
        self.reg_convs = nn.ModuleList(self.tower(width) for _ in STRIDES)
        self.cls_preds = nn.ModuleList(nn.Conv2d(width, classes, 1) for _ in STRIDES)
        self.reg_preds = nn.ModuleList(nn.Conv2d(width, 4, 1) for _ in STRIDES)
        self.obj_preds = nn.ModuleList(nn.Conv2d(width, 1, 1) for _ in STRIDES)

    @staticmethod
    def tower(width: int) -> nn.Sequential:
        return nn.Sequential(Conv(width, width, 3), Conv(width, width, 3))

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        rows = []
        for level, x in enumerate(maps):
            x = self.stems[level](x)
            by_class, by_box = self.cls_convs[level](x), self.reg_convs[level](x)
            found = [
                self.reg_preds[level](by_box),
                self.obj_preds[level](by_box).sigmoid(),
                self.cls_preds[level](by_class).sigmoid(),
            ]
            rows.append(torch.cat(found, 1).flatten(2))
        return torch.cat(rows, 2).permute(0, 2, 1)


class YoloX(nn.Module):
    """``(batch, 3, h, w)``, h and w multiples of 32, to ``(batch, cells, 5 + classes)``."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = Focus(WIDTHS[0])
        stages: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(pairwise(WIDTHS)):
            last = index == len(WIDTHS) - 2
            stages.append(
                nn.Sequential(
                    Conv(inputs, outputs, 3, 2),
                    SppBottleneck(outputs, outputs) if last else nn.Identity(),
                    CspLayer(outputs, outputs, 1, adds=not last),
                )
            )
        self.stages = nn.ModuleList(stages)
        self.neck = Pyramid()
        self.head = Head(classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x, maps = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return self.head(self.neck(maps[1:]))
