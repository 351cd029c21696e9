"""Nets that keep what they computed: VoVNet (Lee et al. 2019, 2020), CSPNet (Wang et al. 2020),
DenseNet (Huang et al. 2017) and U-Net++ (Zhou et al. 2018). Depths and widths are scaled down.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.models.context import layer
from tests.models.weights import build


def vovnet(classes: int = 50, seed: int = 61) -> nn.Module:
    return build(lambda: VoVNet(classes), seed)


def vovnet_v1(classes: int = 50, seed: int = 64) -> nn.Module:
    """As first published (2019): channels are not weighed, nothing is added."""
    return build(lambda: VoVNet(classes, second=False), seed)


def csp_net(classes: int = 50, seed: int = 65) -> nn.Module:
    return build(lambda: CspNet(classes), seed)


def densenet(classes: int = 50, growth: int = 16, seed: int = 62) -> nn.Module:
    return build(lambda: DenseNet(classes, growth), seed)


def unet_plus_plus(classes: int = 4, seed: int = 63) -> nn.Module:
    return build(lambda: UNetPlusPlus(classes), seed)


class Ese(nn.Module):
    """Effective squeeze and excite: one layer, no narrowing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = self.mix(F.adaptive_avg_pool2d(x, 1))
        return x * (F.relu6(weights + 3.0) / 6.0)


class OneShot(nn.Module):
    """A chain of 3x3 whose results are all joined at once, mixed and weighed."""

    def __init__(
        self, inputs: int, width: int, outputs: int, length: int = 3, second: bool = True
    ) -> None:
        super().__init__()
        self.chain = nn.ModuleList(
            layer(inputs if index == 0 else width, width, 3) for index in range(length)
        )
        self.mix = layer(inputs + length * width, outputs)
        self.weigh = Ese(outputs) if second else nn.Identity()
        self.adds = second and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        results = [x]
        for step in self.chain:
            results.append(step(results[-1]))
        y = self.weigh(self.mix(torch.cat(results, 1)))
        return x + y if self.adds else y


class VoVNet(nn.Module):
    """``(batch, 3, h, w)`` to class logits, from maps of stride 8 and 16."""

    def __init__(self, classes: int, second: bool = True) -> None:
        super().__init__()
        # ceil_mode as the authors have it: the maps need not be even
        self.stages = nn.Sequential(
            layer(3, 16, 3, stride=2),
            layer(16, 32, 3),
            OneShot(32, 24, 48, second=second),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            OneShot(48, 28, 64, second=second),
            OneShot(64, 28, 64, second=second),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            OneShot(64, 32, 96, second=second),
        )
        self.classify = nn.Linear(96, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.stages(images)
        return self.classify(torch.flatten(F.adaptive_avg_pool2d(features, 1), 1))


class CspStage(nn.Module):
    """Cross stage partial (Wang et al. 2020): half of the channels passes the blocks by, with no
    activation; both halves are joined and mixed."""

    def __init__(self, inputs: int, outputs: int, count: int) -> None:
        super().__init__()
        half = outputs // 2
        self.shrink = layer(inputs, outputs, 3, stride=2)
        self.part = nn.Conv2d(outputs, half, 1)
        self.enter = layer(outputs, half)
        self.blocks = nn.ModuleList(
            nn.Sequential(layer(half, half // 2), layer(half // 2, half, 3)) for _ in range(count)
        )
        self.leave = layer(half, half)
        self.mix = layer(2 * half, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.shrink(x)
        y = self.enter(x)
        for block in self.blocks:
            y = y + block(y)
        return self.mix(torch.cat([self.part(x), self.leave(y)], 1))


class CspNet(nn.Module):
    """``(batch, 3, h, w)`` to class logits. Halves of 10 and 14 channels are no multiples of 4."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stages = nn.Sequential(
            layer(3, 12, 3, stride=2), CspStage(12, 20, 1), CspStage(20, 28, 2), CspStage(28, 40, 1)
        )
        self.classify = nn.Linear(40, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classify(self.stages(images).mean((2, 3)))


class DenseLayer(nn.Module):
    """Normalise, activate, convolve, twice, what all layers before have made."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth),
            nn.ReLU(),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, made: list[torch.Tensor]) -> torch.Tensor:
        y: torch.Tensor = self.body(torch.cat(made, 1))
        return y


class DenseBlock(nn.Module):
    """Layers that each read the results of all before them, side by side."""

    def __init__(self, inputs: int, growth: int, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DenseLayer(inputs + i * growth, growth) for i in range(count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = [x]
        for one in self.layers:
            made.append(one(made))
        return torch.cat(made, 1)


class DenseNet(nn.Module):
    """``(batch, 3, h, w)`` to class logits. With a growth of 14, no multiple of 4, nearly all parts
    of the blocks are copied; with 16 they are written where they belong."""

    def __init__(self, classes: int, growth: int = 14, repeats: tuple[int, ...] = (3, 4, 3)):
        super().__init__()
        parts: list[nn.Module] = [
            nn.Conv2d(3, 28, 7, 2, 3, bias=False),
            nn.BatchNorm2d(28),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        ]
        channels = 28
        for stage, count in enumerate(repeats):
            parts.append(DenseBlock(channels, growth, count))
            channels += growth * count
            parts += [nn.BatchNorm2d(channels), nn.ReLU()]
            if stage < len(repeats) - 1:
                parts += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
                channels //= 2
        self.features = nn.Sequential(*parts)
        self.classify = nn.Linear(channels, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classify(F.adaptive_avg_pool2d(self.features(images), 1).flatten(1))


class UNetPlusPlus(nn.Module):
    """``(batch, 3, h, w)`` to the maps of all depths: node (i, j) joins everything of level i that
    is there with node (i + 1, j - 1), enlarged."""

    WIDTHS = (16, 24, 32, 48)

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = self.WIDTHS
        self.nodes = nn.ModuleDict()
        for level, width in enumerate(widths):
            inputs = 3 if level == 0 else widths[level - 1]
            self.nodes[f"{level}_0"] = nn.Sequential(
                layer(inputs, width, 3), layer(width, width, 3)
            )
            for step in range(1, len(widths) - level):
                joined = step * width + widths[level + 1]
                self.nodes[f"{level}_{step}"] = nn.Sequential(
                    layer(joined, width, 3), layer(width, width, 3)
                )
        self.classify = nn.ModuleList(nn.Conv2d(widths[0], classes, 1) for _ in widths[1:])

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        depth = len(self.WIDTHS)
        found: dict[tuple[int, int], torch.Tensor] = {}
        for level in range(depth):
            x = images if level == 0 else F.max_pool2d(found[level - 1, 0], 2)
            found[level, 0] = self.nodes[f"{level}_0"](x)
        for step in range(1, depth):
            for level in range(depth - step):
                coarse = found[level + 1, step - 1]
                enlarged = F.interpolate(
                    coarse, scale_factor=2.0, mode="bilinear", align_corners=True
                )
                joined = [found[level, k] for k in range(step)] + [enlarged]
                found[level, step] = self.nodes[f"{level}_{step}"](torch.cat(joined, 1))
        return tuple(head(found[0, k + 1]) for k, head in enumerate(self.classify))
