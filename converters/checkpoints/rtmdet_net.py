"""RTMDet and RTMDet-Ins (Lyu et al. 2022) as mmdetection builds them.

All levels share a head's convolutions, but each has batch normalizations of its own; once those are
folded, each level has its own convolutions. RTMDet-Ins brings with each instance the weights of a
small net that makes its mask out of prototypes and of coordinates seen from the instance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from vkconv.converters.checkpoints.conv_module import ConvModule
from vkconv.converters.checkpoints.cspnext import CspNext, CspNextPyramid, CspNextSizes
from vkconv.converters.checkpoints.grids import Normalized, boxes_around, cells, rows_of
from vkconv.converters.suppression import best_boxes

__all__ = ["MaskNet", "RtmDet", "RtmDetIns", "RtmDetSizes"]

Levels = list[torch.Tensor]


@dataclass(frozen=True, slots=True)
class MaskNet:
    """The net that comes with an instance: 1x1 convolutions of computed weights.

    prototypes:  maps all instances share; two coordinates are added to them.
    width:       channels between the convolutions.
    depth:       how many there are.
    """

    prototypes: int = 8
    width: int = 8
    depth: int = 3

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Inputs and outputs of each convolution."""
        widths = [self.prototypes + 2, *[self.width] * (self.depth - 1), 1]
        return list(pairwise(widths))

    @property
    def weights(self) -> int:
        """Numbers an instance brings: all kernels, then all biases."""
        return sum(inputs * outputs + outputs for inputs, outputs in self.layers)


@dataclass(frozen=True, slots=True)
class RtmDetSizes:
    """Widths and variants of an RTMDet.

    towers:      convolutions before the head's outputs.
    kernel:      of the outputs.
    distances:   how they are made positive: "exp", "relu", or "" where they are taken as they are.
    objectness:  whether a score is the geometric mean of a class and an objectness.
    masks:       the mask net of RTMDet-Ins.
    """

    body: CspNextSizes
    head_width: int
    towers: int
    kernel: int
    classes: int
    distances: str
    objectness: bool = False
    masks: MaskNet | None = None
    mask_towers: int = 4

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(8 << level for level in range(self.body.levels))


class Head(nn.Module):
    """Towers and outputs of every level under the names ``<what>_convs`` and ``rtm_<what>``."""

    def __init__(self, sizes: RtmDetSizes) -> None:
        super().__init__()
        self.sizes = sizes
        outputs = {"cls": sizes.classes, "reg": 4}
        if sizes.masks is not None:
            outputs["kernel"] = sizes.masks.weights
        for what, count in outputs.items():
            setattr(self, f"{what}_convs", nn.ModuleList(self._tower() for _ in sizes.strides))
            setattr(self, f"rtm_{what}", nn.ModuleList(self._last(count) for _ in sizes.strides))
        if sizes.objectness:
            self.rtm_obj = nn.ModuleList(self._last(1) for _ in sizes.strides)
        if sizes.masks is not None:
            self.mask_head = Prototypes(sizes)

    def _tower(self) -> nn.Sequential:
        sizes = self.sizes
        inputs = [sizes.body.width] + [sizes.head_width] * (sizes.towers - 1)
        return nn.Sequential(*(ConvModule(i, sizes.head_width, 3) for i in inputs))

    def _last(self, outputs: int) -> nn.Conv2d:
        kernel = self.sizes.kernel
        return nn.Conv2d(self.sizes.head_width, outputs, kernel, padding=kernel // 2)

    def forward(self, levels: Levels) -> tuple[Levels, Levels]:
        """Class scores in 0..1 and distances in pixels of each level."""
        scores, sides = [], []
        for level, (x, stride) in enumerate(zip(levels, self.sizes.strides, strict=True)):
            score = self.rtm_cls[level](self.cls_convs[level](x)).sigmoid()
            tower = self.reg_convs[level](x)
            if self.sizes.objectness:
                score = torch.sqrt(score * self.rtm_obj[level](tower).sigmoid())
            distance = self.rtm_reg[level](tower)
            if self.sizes.distances == "exp":
                distance = torch.exp(distance)
            elif self.sizes.distances == "relu":
                distance = F.relu(distance)
            scores.append(score)
            sides.append(distance * stride)
        return scores, sides

    def kernels(self, levels: Levels) -> torch.Tensor:
        """(b, n, numbers of a mask net)."""
        return torch.cat(
            [
                rows_of(self.rtm_kernel[level](self.kernel_convs[level](x)))
                for level, x in enumerate(levels)
            ],
            1,
        )


class Prototypes(nn.Module):
    """All levels, as large as the finest, mixed into the maps that masks are made of."""

    def __init__(self, sizes: RtmDetSizes) -> None:
        super().__init__()
        assert sizes.masks is not None
        width = sizes.head_width
        self.fusion_conv = nn.Conv2d(sizes.body.levels * sizes.body.width, sizes.body.width, 1)
        inputs = [sizes.body.width] + [width] * (sizes.mask_towers - 1)
        self.stacked_convs = nn.Sequential(*(ConvModule(i, width, 3) for i in inputs))
        self.projection = nn.Conv2d(width, sizes.masks.prototypes, 1)

    def forward(self, levels: Levels) -> torch.Tensor:
        size = levels[0].shape[2:]
        larger = [F.interpolate(x, size=size, mode="bilinear") for x in levels[1:]]
        mixed = self.fusion_conv(torch.cat([levels[0], *larger], 1))
        return self.projection(self.stacked_convs(mixed))


class RtmDet(nn.Module):
    """``(b, 3, h, w)`` RGB in 0..1 to ``(b, n, 4 + classes)``: cx, cy, w, h in pixels, scores."""

    def __init__(self, sizes: RtmDetSizes, normalize: Normalized) -> None:
        super().__init__()
        self.sizes = sizes
        self.normalize = normalize
        self.backbone = CspNext(sizes.body)
        self.neck = CspNextPyramid(sizes.body)
        self.bbox_head = Head(sizes)

    def forward(self, images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        return self.rows(self.levels(images))

    def levels(self, images: torch.Tensor) -> Levels:
        """The maps that the head reads."""
        return self.neck(self.backbone(self.normalize(images)))

    def rows(self, levels: Levels) -> torch.Tensor:
        """(b, n, 4 + classes) of all levels, the finest first."""
        maps = zip(*self.bbox_head(levels), self.sizes.strides, strict=True)
        return torch.cat(
            [rows_of(boxes_around(sides, stride, 0.0), scores) for scores, sides, stride in maps],
            1,
        )


class RtmDetIns(RtmDet):
    """One picture to its instances: ``(1, most, 4 + classes)`` rows and ``(1, most, h/8, w/8)``
    masks, as logits; a pixel belongs to the instance where its logit is above 0.

    Row i of one belongs to map i of the other. Suppression has been done, so that only the masks of
    what remains are computed; where less than ``most`` remain, rows are zero.
    """

    #: mmdetection's test settings for all published weights
    most, overlap, least = 100, 0.6, 0.05
    candidates = 1000

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        levels = self.levels(images)
        rows = self.rows(levels)
        chosen, is_real = best_boxes(
            rows, self.candidates, self.most, overlap=self.overlap, least=self.least
        )
        kept = taken(rows, chosen) * is_real[..., None].to(rows)
        return kept, self.masks(levels, chosen)

    def masks(self, levels: Levels, chosen: torch.Tensor) -> torch.Tensor:
        """(b, instances, h, w) logits of the finest level's size, for rows (b, instances).

        Every instance's net runs on the prototypes and on the coordinates seen from it, all in one
        grouped convolution a layer.
        """
        assert self.sizes.masks is not None
        maps = self.bbox_head.mask_head(levels)
        # plain numbers, because the legacy exporter has to know the shape of every kernel
        batch, _, height, width = (int(size) for size in maps.shape)
        count = int(chosen.shape[1])
        places, strides = _cells_of(levels, self.sizes.strides)
        own = cells(height, width).reshape(-1, 2).to(maps) * self.sizes.strides[0]
        seen_from = (places[chosen][:, :, None] - own) / (8 * strides[chosen][:, :, None, None])
        seen_from = seen_from.transpose(2, 3).reshape(batch, count, 2, height, width)
        shared = maps[:, None].expand(-1, count, -1, -1, -1)
        inputs = batch * count * (self.sizes.masks.prototypes + 2)
        x = torch.cat([seen_from, shared], 2).reshape(1, inputs, height, width)
        numbers = taken(self.bbox_head.kernels(levels), chosen)
        masks = self._mask_nets(x, numbers, batch * count)
        return masks.reshape(batch, count, height, width)

    def _mask_nets(self, x: torch.Tensor, numbers: torch.Tensor, groups: int) -> torch.Tensor:
        """(1, groups, h, w) of inputs (1, groups * (prototypes + 2), h, w), one group a net."""
        assert self.sizes.masks is not None
        layers = self.sizes.masks.layers
        sizes = [inputs * outputs for inputs, outputs in layers] + [o for _, o in layers]
        parts = torch.split(numbers.reshape(groups, self.sizes.masks.weights), sizes, 1)
        for index, (inputs, outputs) in enumerate(layers):
            weight = parts[index].reshape(groups * outputs, inputs, 1, 1)
            bias = parts[len(layers) + index].reshape(-1)
            x = F.conv2d(x, weight, bias, groups=groups)
            x = F.relu(x) if index < len(layers) - 1 else x
        return x


def taken(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The rows (b, k, c) of (b, n, c) that ``index`` (b, k) names."""
    return torch.gather(x, 1, index[..., None].expand(-1, -1, x.shape[2]))


def _cells_of(levels: Levels, strides: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the cells of all levels lie, (n, 2) as x, y in pixels, and the stride of each, (n)."""
    places, sizes = [], []
    for x, stride in zip(levels, strides, strict=True):
        grid = cells(x.shape[2], x.shape[3]).reshape(-1, 2).to(x) * stride
        places.append(grid)
        sizes.append(torch.full_like(grid[:, 0], stride))
    return torch.cat(places), torch.cat(sizes)
