"""ResNet (He, Zhang, Ren, Sun 2015) and ResNeXt under mmdetection's and torchvision's names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from vkconv.converters.checkpoints.shapes import Shapes

__all__ = ["ResNet", "ResNetSizes", "Style", "resnet_sizes"]

#: where a bottleneck halves the map: in its 3x3 ("pytorch") or in its first 1x1 ("caffe")
Style = Literal["pytorch", "caffe"]


@dataclass(frozen=True, slots=True)
class ResNetSizes:
    """Widths and depths: for each stage the inner width, the output width and the blocks.

    bottleneck:  blocks of 1x1, 3x3, 1x1; else of two 3x3.
    groups:      of the 3x3 of a bottleneck (ResNeXt).
    """

    stem: int
    inner: tuple[int, ...]
    outputs: tuple[int, ...]
    blocks: tuple[int, ...]
    bottleneck: bool
    groups: int = 1


def resnet_sizes(shapes: Shapes, prefix: str) -> ResNetSizes:
    """The sizes of the weights under ``prefix``, such as "backbone."."""
    stem = shapes.outputs(f"{prefix}conv1")
    bottleneck = f"{prefix}layer1.0.conv3.weight" in shapes
    last = "conv3" if bottleneck else "conv2"
    stages = 0
    while shapes.count(f"{prefix}layer{stages + 1}"):
        stages += 1
    shapes.need(f"{prefix}layer1")
    names = [f"{prefix}layer{stage + 1}" for stage in range(stages)]
    inner = tuple(shapes.outputs(f"{name}.0.conv1") for name in names)
    groups = shapes.groups(f"{names[0]}.0.conv2", inner[0]) if bottleneck else 1
    return ResNetSizes(
        stem,
        inner,
        tuple(shapes.outputs(f"{name}.0.{last}") for name in names),
        tuple(shapes.need(name) for name in names),
        bottleneck,
        groups,
    )


class ResNet(nn.Module):
    """``(b, 3, h, w)`` to the maps of some stages; the first has stride 4."""

    def __init__(self, sizes: ResNetSizes, taken: Sequence[int], style: Style = "pytorch") -> None:
        super().__init__()
        self.taken = tuple(taken)
        self.conv1 = nn.Conv2d(3, sizes.stem, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(sizes.stem)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.stages = len(sizes.blocks)
        inputs = sizes.stem
        for stage, (inner, outputs, count) in enumerate(
            zip(sizes.inner, sizes.outputs, sizes.blocks, strict=True)
        ):
            blocks = []
            for index in range(count):
                stride = 2 if stage and index == 0 else 1
                blocks.append(
                    Bottleneck(inputs, inner, outputs, stride, sizes.groups, style)
                    if sizes.bottleneck
                    else BasicBlock(inputs, outputs, stride)
                )
                inputs = outputs
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = []
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
            if stage in self.taken:
                maps.append(x)
        return maps


def _downsample(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """What the input of a block goes through where its sizes change."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, and the input added."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.downsample = _downsample(inputs, outputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, and the input added."""

    def __init__(
        self, inputs: int, inner: int, outputs: int, stride: int, groups: int, style: Style
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if style == "caffe" else (1, stride)
        self.conv1 = nn.Conv2d(inputs, inner, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, second, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.downsample = _downsample(inputs, outputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))
