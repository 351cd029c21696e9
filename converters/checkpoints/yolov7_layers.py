"""The layers that a YOLOv7 cfg names (Wang, Bochkovskiy, Liao 2022), in their training form.

Attributes bear the names that published weights have. Maps are ``(batch, channels, h, w)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from vkconv.converters.checkpoints.grids import cells
from vkconv.converters.demo_net import RepConv

__all__ = [
    "NORM_EPSILON",
    "AnchorDetect",
    "Concat",
    "Conv",
    "DownC",
    "ImplicitA",
    "ImplicitM",
    "ReOrg",
    "Shortcut",
    "SppCspc",
    "rep_conv",
]

#: what YOLOv7's training sets every batch normalization to
NORM_EPSILON = 1e-3


class Conv(nn.Module):
    """``act(bn(conv(x)))``; with ``fused`` the normalization already is in the convolution."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        act: nn.Module | None = None,
        *,
        fused: bool = False,
    ) -> None:
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=fused)
        self.bn = nn.Identity() if fused else nn.BatchNorm2d(outputs, NORM_EPSILON)
        self.act = nn.SiLU() if act is None else act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(b, inputs, h, w) -> (b, outputs, h / stride, w / stride)``."""
        return self.act(self.bn(self.conv(x)))


def rep_conv(
    inputs: int, outputs: int, stride: int, groups: int, act: nn.Module, *, fused: bool
) -> RepConv:
    """A 3x3 RepConv; with ``fused`` it is the one convolution ``rbr_reparam``."""
    block = RepConv(inputs, outputs, 3, stride, groups)
    block.act = act
    if fused:
        del block.rbr_dense, block.rbr_1x1, block.rbr_identity
        block.rbr_reparam = nn.Conv2d(inputs, outputs, 3, stride, 1, groups=groups)
        block.deploy = True
    return block


class Concat(nn.Module):
    """Maps side by side, along an axis (the channels)."""

    def __init__(self, axis: int = 1) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat(list(maps), self.axis)


class Shortcut(nn.Module):
    """The sum of two maps."""

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        return maps[0] + maps[1]


class ReOrg(nn.Module):
    """Each 2x2 cell of pixels becomes four channels: ``(b, c, h, w) -> (b, 4 c, h/2, w/2)``."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        even, odd = x[..., ::2, :], x[..., 1::2, :]
        return torch.cat([even[..., ::2], odd[..., ::2], even[..., 1::2], odd[..., 1::2]], 1)


class DownC(nn.Module):
    """Half as large: one half of the channels by a strided convolution, one by a max pool."""

    def __init__(self, inputs: int, outputs: int, factor: int = 2, *, fused: bool = False) -> None:
        super().__init__()
        self.cv1 = Conv(inputs, inputs, fused=fused)
        self.cv2 = Conv(inputs, outputs // 2, 3, factor, fused=fused)
        self.cv3 = Conv(inputs, outputs // 2, fused=fused)
        self.mp = nn.MaxPool2d(factor, factor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.cv2(self.cv1(x)), self.cv3(self.mp(x))], 1)


class SppCspc(nn.Module):
    """Spatial pyramid pooling (He et al. 2015) inside a cross-stage-partial block."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        ratio: float = 0.5,
        kernels: Sequence[int] = (5, 9, 13),
        *,
        fused: bool = False,
    ) -> None:
        super().__init__()
        hidden = int(2 * outputs * ratio)
        self.cv1 = Conv(inputs, hidden, fused=fused)
        self.cv2 = Conv(inputs, hidden, fused=fused)
        self.cv3 = Conv(hidden, hidden, 3, fused=fused)
        self.cv4 = Conv(hidden, hidden, fused=fused)
        self.m = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in kernels)
        self.cv5 = Conv((len(kernels) + 1) * hidden, hidden, fused=fused)
        self.cv6 = Conv(hidden, hidden, 3, fused=fused)
        self.cv7 = Conv(2 * hidden, outputs, fused=fused)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(b, inputs, h, w) -> (b, outputs, h, w)``."""
        narrow = self.cv4(self.cv3(self.cv1(x)))
        pooled = self.cv5(torch.cat([narrow, *(pool(narrow) for pool in self.m)], 1))
        return self.cv7(torch.cat([self.cv6(pooled), self.cv2(x)], 1))


class ImplicitA(nn.Module):
    """Implicit knowledge (Wang, Yeh, Liao 2021): a learnt vector that is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.implicit = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.implicit


class ImplicitM(nn.Module):
    """A learnt vector that is multiplied with."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.implicit = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.implicit


class AnchorDetect(nn.Module):
    """1x1 convolutions to the anchors' values and their decoding into pixels::

        xy = (2 * sigmoid(t_xy) - 0.5 + cell) * stride
        wh = (2 * sigmoid(t_wh)) ** 2 * anchor

    implicit:  a vector is added before each convolution and one multiplied with after it (IDetect).
    anchors:   widths and heights in pixels, one tuple a level.
    strides:   pixels a cell, one a level; set once the network around it is known.
    """

    def __init__(
        self,
        channels: Sequence[int],
        classes: int,
        anchors: Sequence[Sequence[tuple[float, float]]],
        *,
        implicit: bool,
    ) -> None:
        super().__init__()
        self.values = classes + 5
        self.anchors = tuple(tuple(level) for level in anchors)
        self.strides: tuple[int, ...] = ()
        count = len(self.anchors[0]) * self.values
        self.m = nn.ModuleList(nn.Conv2d(width, count, 1) for width in channels)
        if implicit:
            self.ia = nn.ModuleList(ImplicitA(width) for width in channels)
            self.im = nn.ModuleList(ImplicitM(count) for _ in channels)
        self.implicit = implicit

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """``(b, rows of all levels, 5 + classes)``: cx, cy, w, h in pixels, then the scores."""
        rows = []
        for level, x in enumerate(maps):
            x = self.ia[level](x) if self.implicit else x
            x = self.m[level](x)
            x = self.im[level](x) if self.implicit else x
            rows.append(self._decoded(x, level))
        return torch.cat(rows, 1)

    def _decoded(self, x: torch.Tensor, level: int) -> torch.Tensor:
        anchor = torch.tensor(self.anchors[level]).to(x).view(1, -1, 1, 1, 2)
        batch, _, height, width = x.shape
        x = x.view(batch, anchor.shape[1], self.values, height, width).permute(0, 1, 3, 4, 2)
        xy, wh, scores = x.sigmoid().split((2, 2, self.values - 4), dim=-1)
        xy = (2.0 * xy + (cells(height, width).to(x) - 0.5)) * self.strides[level]
        wh = 2.0 * wh
        decoded = torch.cat([xy, wh * wh * anchor, scores], -1)
        return decoded.reshape(batch, -1, self.values)
