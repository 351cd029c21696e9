"""ResNet-18 (He, Zhang, Ren, Sun 2015): residual blocks, batch normalization, global average."""

from __future__ import annotations

import torch
from torch import nn

from tests.models.weights import build


def resnet18(seed: int = 18) -> nn.Module:
    """The net with weights of its own, ready to run."""
    return build(ResNet18, seed)


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
