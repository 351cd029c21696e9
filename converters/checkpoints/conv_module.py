"""The block of mmdetection's networks: a convolution, perhaps a normalization, an activation."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

__all__ = ["ConvModule", "DepthwiseSeparable"]

#: what group normalization of mmdetection's heads has
_GROUPS_OF_NORM = 32
Norm = Literal["bn", "gn", ""]


class ConvModule(nn.Module):
    """``act(norm(conv(x)))`` under the names ``conv`` and ``bn`` or ``gn``.

    act:  "silu", "relu" or "" for none. Padding keeps ``ceil(size / stride)``.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        *,
        norm: Norm = "bn",
        act: str = "silu",
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias
        )
        if norm == "bn":
            self.bn = nn.BatchNorm2d(outputs)
        elif norm == "gn":
            self.gn = nn.GroupNorm(_GROUPS_OF_NORM, outputs)
        self.norm = norm
        self.act = {"silu": nn.SiLU, "relu": nn.ReLU, "": nn.Identity}[act]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        if self.norm == "bn":
            x = self.bn(x)
        elif self.norm == "gn":
            x = self.gn(x)
        return self.act(x)


class DepthwiseSeparable(nn.Module):
    """A kxk convolution of each channel, then a 1x1 over the channels, each normalized."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.depthwise_conv = ConvModule(inputs, inputs, kernel, groups=inputs)
        self.pointwise_conv = ConvModule(inputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pointwise_conv(self.depthwise_conv(x))
