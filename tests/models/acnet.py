"""ACNet (Ding et al. 2019): in training every square convolution has a 1 x k and a k x 1 beside it.

With ``deploy`` each block is one convolution.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from tests.models.weights import build

#: (inputs, outputs, kernel, stride) to a layer without activation
Layer = Callable[[int, int, int, int], nn.Module]


def acnet_resnet18(deploy: bool = False, seed: int = 42) -> nn.Module:
    def layer(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
        return ACBlock(inputs, outputs, kernel, stride, kernel // 2, deploy=deploy)

    return build(lambda: BlockResNet18(layer, deploy), seed)


def acnet_small(deploy: bool = False, seed: int = 43) -> nn.Module:
    """The first two of its four stages, thinner: it takes milliseconds."""

    def layer(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
        return ACBlock(inputs, outputs, kernel, stride, kernel // 2, deploy=deploy)

    return build(lambda: BlockResNet18(layer, deploy, (8, 12), 10), seed)


class CropLayer(nn.Module):
    """Takes rows and columns off all sides: what a branch needs whose padding would be negative."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[2:]
        return x[:, :, self.rows : height - self.rows, self.columns : width - self.columns]


class ACBlock(nn.Module):
    """BN(k x k (x)) + BN(1 x k (x)) + BN(k x 1 (x)); where the square's padding is smaller than
    k // 2, the others read a cropped input."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        padding: int = 1,
        groups: int = 1,
        deploy: bool = False,
    ) -> None:
        super().__init__()
        self.deploy = deploy
        if deploy:
            self.fused_conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups)
            return
        self.square_conv = nn.Conv2d(
            inputs, outputs, kernel, stride, padding, groups=groups, bias=False
        )
        self.square_bn = nn.BatchNorm2d(outputs)
        #: how much further in (negative) or out the centre row lies than the border
        offset = padding - kernel // 2
        outside = max(offset, 0)
        self.ver_conv_crop_layer = CropLayer(0, -offset) if offset < 0 else nn.Identity()
        self.hor_conv_crop_layer = CropLayer(-offset, 0) if offset < 0 else nn.Identity()
        self.ver_conv = nn.Conv2d(
            inputs, outputs, (kernel, 1), stride, (padding, outside), groups=groups, bias=False
        )
        self.hor_conv = nn.Conv2d(
            inputs, outputs, (1, kernel), stride, (outside, padding), groups=groups, bias=False
        )
        self.ver_bn = nn.BatchNorm2d(outputs)
        self.hor_bn = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.deploy:
            return self.fused_conv(x)
        square = self.square_bn(self.square_conv(x))
        vertical = self.ver_bn(self.ver_conv(self.ver_conv_crop_layer(x)))
        horizontal = self.hor_bn(self.hor_conv(self.hor_conv_crop_layer(x)))
        return square + vertical + horizontal


class BlockResNet18(nn.Module):
    """ResNet-18 of given layers: ``(batch, 3, h, w)`` to ``(batch, classes)``."""

    def __init__(
        self,
        layer: Layer,
        deploy: bool,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        classes: int = 1000,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(layer(3, widths[0], 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        blocks, channels = [], widths[0]
        for index, width in enumerate(widths):
            blocks.append(ResidualBlock(layer, channels, width, 2 if index else 1, deploy))
            blocks.append(ResidualBlock(layer, width, width, 1, deploy))
            channels = width
        self.stages = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(channels, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classify(torch.flatten(self.pool(self.stages(self.stem(images))), 1))


class ResidualBlock(nn.Module):
    """Two 3 x 3 layers; the input (through a 1 x 1 where sizes differ) is added to the result."""

    def __init__(self, layer: Layer, inputs: int, outputs: int, stride: int, deploy: bool) -> None:
        super().__init__()
        self.first = layer(inputs, outputs, 3, stride)
        self.second = layer(outputs, outputs, 3, 1)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=deploy)
            self.shortcut = conv if deploy else nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.second(self.relu(self.first(x))) + self.shortcut(x))
