"""ResNet-18 and -50 (He, Zhang, Ren, Sun 2015); ResNet-18 with deformable layers (Zhu et al. 2018).

Residual blocks, batch normalization, global average.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from tests.models.weights import build
from vkconv.converters.deformable import deform_conv2d

#: blocks of each stage of ResNet-50, and their width inside; four times as much comes out
RESNET50 = ((3, 64), (4, 128), (6, 256), (3, 512))


def resnet18(seed: int = 18) -> nn.Module:
    """The net with weights of its own, ready to run."""
    return build(ResNet18, seed)


def resnet50(classes: int = 1000, seed: int = 50) -> nn.Module:
    """The net with weights of its own, ready to run."""
    return build(lambda: ResNet50(RESNET50, classes), seed)


def dcn_resnet18(seed: int = 19) -> nn.Module:
    """ResNet-18 with a modulated deformable convolution in each block of its last three stages."""
    net = build(DeformableResNet18, seed)
    for part in net.modules():
        if isinstance(part, Deformable):
            # offsets of about a pixel
            part.sampling.weight.mul_(0.3)
    return net


class ResNet18(nn.Module):
    """``(batch, 3, h, w)`` to ``(batch, 1000)``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        self.stages = nn.Sequential(
            Block(64, 64),
            Block(64, 64),
            Block(64, 128, 2),
            Block(128, 128),
            Block(128, 256, 2),
            Block(256, 256),
            Block(256, 512, 2),
            Block(512, 512),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(512, 1000)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.pool(self.stages(self.stem(images)))
        return self.classify(torch.flatten(features, 1))


class Block(nn.Module):
    """Two 3x3 convolutions; the input (through a 1x1 where sizes differ) is added to the result."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.first_norm(self.first(x)))
        return self.relu(self.second_norm(self.second(y)) + self.shortcut(x))


class ResNet50(nn.Module):
    """``(batch, 3, h, w)`` to class logits."""

    def __init__(self, stages: Sequence[tuple[int, int]], classes: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        inputs = 64
        for stage, (count, inner) in enumerate(stages):
            for index in range(count):
                stride = 2 if stage and index == 0 else 1
                blocks.append(Bottleneck(inputs, inner, stride))
                inputs = 4 * inner
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        self.stages = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(inputs, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.pool(self.stages(self.stem(images)))
        return self.classify(torch.flatten(features, 1))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with four times the channels, and the input added."""

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * inner
        self.work = nn.Sequential(
            nn.Conv2d(inputs, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, stride, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.work(x) + self.shortcut(x))


class DeformableResNet18(ResNet18):
    """``(batch, 3, h, w)`` to ``(batch, 1000)``."""

    def __init__(self) -> None:
        super().__init__()
        for block in list(self.stages)[2:]:
            block.second = Deformable(block.second.out_channels)


class Deformable(nn.Module):
    """3x3 at places, and with factors, that a convolution of the input tells (DCNv2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.sampling = nn.Conv2d(channels, 27, 3, padding=1)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        offset, factor = self.sampling(x).split((18, 9), 1)
        return deform_conv2d(x, offset, self.conv.weight, padding=1, mask=factor.sigmoid())
