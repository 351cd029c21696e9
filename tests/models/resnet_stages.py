"""ResNet as mmdetection builds it: stages whose maps all come out, the stride in either place, and
plugins within the bottlenecks. The net is the converter's; here it gets plugins.
"""

from __future__ import annotations

import torch
from torch import nn

from tests.models.weights import build
from vkconv.converters.checkpoints.resnet import Bottleneck, ResNet, ResNetSizes, Style

SIZES = ResNetSizes(
    stem=16, inner=(8, 12, 16, 24), outputs=(32, 48, 64, 96), blocks=(2, 1, 2, 1), bottleneck=True
)
#: stages whose blocks have plugins
PLUGGED = (1, 2)


def resnet_stages(style: Style, plugged: bool = False, seed: int = 50) -> nn.Module:
    """To the maps of stages 2 to 4 with strides 8, 16, 32."""
    return build(lambda: _net(style, plugged), seed)


def squeezed(seed: int = 51) -> nn.Module:
    """A net of both kinds of squeeze and excite, to class logits."""
    return build(lambda: SqueezedNet(8), seed)


def _net(style: Style, plugged: bool) -> nn.Module:
    net = ResNet(SIZES, (1, 2, 3), style)
    if plugged:
        for stage in PLUGGED:
            for block in getattr(net, f"layer{stage + 1}"):
                block.__class__ = PluggedBottleneck
                block.after_conv2 = nn.ModuleList([SqueezeExcite(block.conv2.out_channels)])
                block.after_conv3 = nn.ModuleList([GlobalContext(block.conv3.out_channels)])
    return net


class PluggedBottleneck(Bottleneck):
    """With further layers behind the 3x3 and behind the last 1x1."""

    after_conv2: nn.ModuleList
    after_conv3: nn.ModuleList

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        for plugin in self.after_conv2:
            y = plugin(y)
        y = self.bn3(self.conv3(y))
        for plugin in self.after_conv3:
            y = plugin(y)
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class GlobalContext(nn.Module):
    """One vector for the whole map, weighed by attention, is added everywhere (Cao et al. 2019)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_mask = nn.Conv2d(channels, 1, 1)
        self.channel_add_conv = nn.Sequential(
            nn.Conv2d(channels, channels // 4, 1),
            nn.LayerNorm([channels // 4, 1, 1]),
            nn.ReLU(),
            nn.Conv2d(channels // 4, channels, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        where = self.conv_mask(x).flatten(2).softmax(2)
        context = torch.matmul(x.flatten(2), where.transpose(1, 2)).unsqueeze(-1)
        return x + self.channel_add_conv(context)


class SqueezeExcite(nn.Module):
    """A factor for each channel, from the averages of all (Hu, Shen, Sun 2018)."""

    def __init__(self, channels: int, squeezed: int = 4) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weigh(x)


class LinearSqueezeExcite(nn.Module):
    """The same with fully connected layers, as first published."""

    def __init__(self, channels: int, squeezed: int = 4) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, squeezed, bias=False),
            nn.ReLU(),
            nn.Linear(squeezed, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels = x.shape[:2]
        weights = self.fc(x.mean((2, 3))).view(batch, channels, 1, 1)
        return x * weights.expand_as(x)


class SqueezedNet(nn.Module):
    """``(batch, 3, h, w)`` to class logits: SE-ResNet's blocks."""

    def __init__(self, classes: int, width: int = 20) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, 1, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, 1, 1, bias=False),
                nn.BatchNorm2d(width),
                weigh(width),
            )
            for weigh in (SqueezeExcite, LinearSqueezeExcite)
        )
        self.classify = nn.Linear(width, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = torch.relu(x + block(x))
        return self.classify(x.mean((2, 3)))
