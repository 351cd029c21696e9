"""A small detector with the parts of YOLOv7 (Wang, Bochkovskiy, Liao 2022), in plain torch.

The blocks follow the paper and its predecessors: ELAN aggregation, down-sampling by a pooled and
a strided branch (MP), spatial pyramid pooling inside a cross-stage-partial block (SPPCSPC), a
top-down and bottom-up neck (PAN), RepConv before the heads, and anchors decoded as in YOLOv5::

    xy = (2 * sigmoid(t_xy) - 0.5 + cell) * stride
    wh = (2 * sigmoid(t_wh)) ** 2 * anchor

Feature maps are ``(batch, channels, height, width)``; coordinates are input pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from vkconv.converters.deformable import DeformConv2d

__all__ = ["ANCHORS", "STRIDES", "ConvNormAct", "DeformConvNormAct", "DemoNet", "RepConv"]

STRIDES = (8, 16, 32)

# (width, height) in input pixels, three shapes for each stride. Ratios spread from upright
# (rockets, trees) to lying (cars, fish); the matching rule tolerates a factor of four.
ANCHORS = (
    ((18.0, 22.0), (32.0, 24.0), (26.0, 40.0)),
    ((46.0, 36.0), (40.0, 62.0), (68.0, 56.0)),
    ((98.0, 72.0), (78.0, 110.0), (136.0, 132.0)),
)


class ConvNormAct(nn.Module):
    """Convolution without bias, batch norm, SiLU. Padding keeps ``ceil(size / stride)``."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)
        self.act = nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(b, inputs, h, w) -> (b, outputs, h / stride, w / stride)``."""
        return self.act(self.bn(self.conv(x)))


class DeformConvNormAct(nn.Module):
    """Modulated deformable 3x3 convolution (Zhu et al. 2018) without bias, batch norm, SiLU.

    One plain convolution says where each tap looks and how much it counts: 18 offsets, row and
    column tap by tap, and 9 weights before the sigmoid. It starts from zero, that is, from a plain
    3x3 convolution.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.offset = nn.Conv2d(inputs, 27, 3, 1, 1)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)
        self.conv = DeformConv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)
        self.act = nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(b, inputs, h, w) -> (b, outputs, h, w)``."""
        offset, mask = self.offset(x).split((18, 9), dim=1)
        return self.act(self.bn(self.conv(x, offset, mask.sigmoid())))


class RepConv(nn.Module):
    """A kxk, a 1x1 and (where shapes allow) an identity branch, summed (RepVGG).

    The branches share stride and groups, so ``reparameterize`` can collapse the block into the
    single convolution ``rbr_reparam``; ``deploy`` says which of the two forms it has.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.deploy = False
        self.act = nn.SiLU()

        def branch(size: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
                nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03),
            )

        self.rbr_dense = branch(kernel)
        self.rbr_1x1 = branch(1)
        same_shape = inputs == outputs and stride == 1
        self.rbr_identity = nn.BatchNorm2d(inputs, eps=1e-3, momentum=0.03) if same_shape else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(b, inputs, h, w) -> (b, outputs, h / stride, w / stride)``."""
        if self.deploy:
            return self.act(self.rbr_reparam(x))
        total = self.rbr_dense(x) + self.rbr_1x1(x)
        if self.rbr_identity is not None:
            total = total + self.rbr_identity(x)
        return self.act(total)


class Elan(nn.Module):
    """Efficient layer aggregation: keep every second stage of a 3x3 chain and mix them all.

    Two 1x1 convolutions open the block, one feeds two stages of two 3x3 convolutions; both
    entries and both stages are concatenated (4 * hidden channels) and mixed by a 1x1.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.bypass = ConvNormAct(inputs, hidden)
        self.entry = ConvNormAct(inputs, hidden)
        self.stages = nn.ModuleList(
            nn.Sequential(ConvNormAct(hidden, hidden, 3), ConvNormAct(hidden, hidden, 3))
            for _ in range(2)
        )
        self.mix = ConvNormAct(4 * hidden, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(b, inputs, h, w) -> (b, outputs, h, w)``."""
        kept = [self.bypass(x), self.entry(x)]
        for stage in self.stages:
            kept.append(stage(kept[-1]))
        return self.mix(torch.cat(kept[::-1], dim=1))


class Downsample(nn.Module):
    """MP block: half the channels from a max pool, half from a strided convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.pooled = nn.Sequential(nn.MaxPool2d(2, 2), ConvNormAct(inputs, half))
        self.strided = nn.Sequential(ConvNormAct(inputs, half), ConvNormAct(half, half, 3, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(b, inputs, h, w) -> (b, outputs, h / 2, w / 2)``."""
        return torch.cat([self.strided(x), self.pooled(x)], dim=1)


class SppCspc(nn.Module):
    """Spatial pyramid pooling (He et al. 2015) inside a cross-stage-partial block.

    Max pools of 5, 9 and 13 see three context sizes at one resolution; a parallel 1x1 path
    carries half of the features around them.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.before = nn.Sequential(ConvNormAct(inputs, outputs), ConvNormAct(outputs, outputs, 3))
        self.pools = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in (5, 9, 13))
        self.after = ConvNormAct(4 * outputs, outputs)
        self.around = ConvNormAct(inputs, outputs)
        self.mix = ConvNormAct(2 * outputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(b, inputs, h, w) -> (b, outputs, h, w)``."""
        y = self.before(x)
        y = self.after(torch.cat([y, *(pool(y) for pool in self.pools)], dim=1))
        return self.mix(torch.cat([y, self.around(x)], dim=1))


class AnchorHead(nn.Module):
    """1x1 convolutions to three anchors per cell, and the decoding into input pixels."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.values = 5 + classes
        self.predict = nn.ModuleList(nn.Conv2d(c, 3 * self.values, 1) for c in channels)
        for layer, stride in zip(self.predict, STRIDES, strict=True):
            bias = layer.bias.data.view(3, -1)
            # Start from the rarity of objects (about 6 in a 320 pixel picture) and from even
            # odds among the classes, so that the first steps are not spent learning that.
            bias[:, 4] = math.log(6 / (320 / stride) ** 2)
            bias[:, 5:] = math.log(0.6 / (classes - 0.99))

    def forward(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Raw values for each level, ``(b, 3, h, w, 5 + classes)``, before any sigmoid."""
        raw = []
        for layer, feature in zip(self.predict, features, strict=True):
            y = layer(feature)
            batch, _, height, width = y.shape
            y = y.view(batch, 3, self.values, height, width)
            raw.append(y.permute(0, 1, 3, 4, 2).contiguous())
        return raw

    def decode(self, raw: Sequence[torch.Tensor]) -> torch.Tensor:
        """``(b, anchors of all levels, 5 + classes)``: cx, cy, w, h in pixels, then scores."""
        rows = []
        for y, anchors, stride in zip(raw, ANCHORS, STRIDES, strict=True):
            batch, _, height, width, _ = y.shape
            # Plain numbers, not tensor operations, so that an export holds them as constants.
            cells = [
                [(column - 0.5, row - 0.5) for column in range(width)] for row in range(height)
            ]
            cell, anchor = torch.tensor(cells).to(y), torch.tensor(anchors).to(y)
            xy, wh, scores = y.sigmoid().split((2, 2, self.values - 4), dim=-1)
            xy = (2.0 * xy + cell) * stride
            wh = 2.0 * wh
            wh = wh * wh * anchor.view(1, 3, 1, 1, 2)
            decoded = torch.cat([xy, wh, scores], dim=-1)
            rows.append(decoded.view(batch, 3 * height * width, self.values))
        return torch.cat(rows, dim=1)


class DemoNet(nn.Module):
    """Three-level detector. Input ``(b, 3, h, w)`` RGB in 0..1, sides multiples of 32.

    In training mode returns the raw levels; in eval mode the decoded ``(b, n, 5 + classes)``.
    """

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        w = width
        self.stem = nn.Sequential(ConvNormAct(3, w, 3, 2), ConvNormAct(w, 2 * w, 3, 2))
        self.stage2 = Elan(2 * w, w, 3 * w)
        self.stage3 = nn.Sequential(Downsample(3 * w, 4 * w), Elan(4 * w, 2 * w, 5 * w))
        self.stage4 = nn.Sequential(Downsample(5 * w, 6 * w), Elan(6 * w, 2 * w, 8 * w))
        self.stage5 = nn.Sequential(Downsample(8 * w, 6 * w), Elan(6 * w, 2 * w, 8 * w))
        self.pyramid = SppCspc(8 * w, 4 * w)
        self.lower = nn.Upsample(scale_factor=2, mode="nearest")
        self.reduce5, self.lateral4 = ConvNormAct(4 * w, 3 * w), ConvNormAct(8 * w, 3 * w)
        self.down4 = Elan(6 * w, 2 * w, 4 * w)
        self.reduce4, self.lateral3 = ConvNormAct(4 * w, 2 * w), ConvNormAct(5 * w, 2 * w)
        self.down3 = Elan(4 * w, 2 * w, 3 * w)
        self.to4 = Downsample(3 * w, 4 * w)
        self.up4 = Elan(8 * w, 2 * w, 4 * w)
        self.to5 = Downsample(4 * w, 4 * w)
        self.up5 = Elan(8 * w, 2 * w, 4 * w)
        self.adapt4 = DeformConvNormAct(4 * w, 4 * w)
        self.refine3 = RepConv(3 * w, 3 * w)
        self.refine4 = RepConv(4 * w, 4 * w)
        self.refine5 = RepConv(4 * w, 5 * w)
        self.head = AnchorHead((3 * w, 4 * w, 5 * w), classes)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor] | torch.Tensor:
        """``(b, 3, h, w)`` to raw levels (training) or decoded rows (eval)."""
        c3 = self.stage3(self.stage2(self.stem(images)))
        c4 = self.stage4(c3)
        p5 = self.pyramid(self.stage5(c4))
        p4 = self.down4(torch.cat([self.lateral4(c4), self.lower(self.reduce5(p5))], dim=1))
        p3 = self.down3(torch.cat([self.lateral3(c3), self.lower(self.reduce4(p4))], dim=1))
        p4 = self.up4(torch.cat([self.to4(p3), p4], dim=1))
        p5 = self.up5(torch.cat([self.to5(p4), p5], dim=1))
        raw = self.head([self.refine3(p3), self.refine4(self.adapt4(p4)), self.refine5(p5)])
        return raw if self.training else self.head.decode(raw)
