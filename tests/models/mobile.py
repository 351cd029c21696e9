"""EfficientNet (Tan, Le 2019), MobileNetV2 (Sandler et al. 2018), MobileNetV3-large (Howard et al.
2019).

All are rows of inverted residuals: widen by a 1x1, filter each channel, weigh the channels
(squeeze and excite, not in V2), narrow by a 1x1, add the input where sizes allow.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from tests.models.weights import build

Act = Callable[[], nn.Module]
#: widening, kernel, stride, channels, repeats
EFFICIENTNET_B0 = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
#: widening, channels, repeats, stride
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
#: kernel, widened channels, channels, squeeze and excite, hard swish, stride
MOBILENET_V3 = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)


def efficientnet_b0(classes: int = 100, seed: int = 41) -> nn.Module:
    return build(lambda: EfficientNet(classes), seed)


def efficientnet(
    width: float, depth: float, classes: int = 100, seed: int = 44, act: str = "swish"
) -> nn.Module:
    """By compound scaling: 1 and 1 are B0, 1.0 and 1.1 B1, 1.1 and 1.2 B2, ... 2.0 and 3.1 B7."""
    return build(lambda: EfficientNet(classes, width, depth, act), seed)


def mobilenet_v2(width: float = 1.0, classes: int = 100, seed: int = 45) -> nn.Module:
    return build(lambda: MobileNetV2(classes, width), seed)


def mobilenet_v3(classes: int = 100, seed: int = 43) -> nn.Module:
    return build(lambda: MobileNetV3(classes), seed)


class Swish(nn.Module):
    """x * sigmoid(x), spelt out."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x)


class HardSwish(nn.Module):
    """x * relu6(x + 3) / 6, spelt out as the paper has it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * F.relu6(x + 3.0) / 6.0


def scaled(channels: int, width: float, step: int = 8) -> int:
    """A multiple of ``step`` that is near, and no more than a tenth below, ``width * channels``."""
    result = max(step, int(channels * width + step / 2) // step * step)
    return result + step if result < 0.9 * width * channels else result


class Layer(nn.Sequential):
    """Convolution, batch normalization, activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        act: Act = nn.Identity,
        eps: float = 1e-3,
    ) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps),
            act(),
        )


class Excite(nn.Module):
    """Channel weights from the means of all channels."""

    def __init__(self, channels: int, squeezed: int, act: Act, gate: Act) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            act(),
            nn.Conv2d(squeezed, channels, 1),
            gate(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weigh(x)


class InvertedResidual(nn.Module):
    """Widen, filter, weigh, narrow; added to the input where both have one size."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        wide: int,
        kernel: int,
        stride: int,
        act: Act,
        excite: nn.Module | None,
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = [Layer(inputs, wide, act=act)] if wide != inputs else []
        parts.append(Layer(wide, wide, kernel, stride, groups=wide, act=act))
        if excite is not None:
            parts.append(excite)
        self.body = nn.Sequential(*parts, Layer(wide, outputs))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.adds else self.body(x)


class EfficientNet(nn.Module):
    """``(batch, 3, h, w)`` to class scores that sum to one."""

    def __init__(
        self, classes: int, width: float = 1.0, depth: float = 1.0, act: str = "swish"
    ) -> None:
        super().__init__()
        kind: Act = {"swish": Swish, "hard_swish": HardSwish, "silu": nn.SiLU}[act]
        blocks: list[nn.Module] = []
        first = inputs = scaled(32, width)
        for widening, kernel, stride, channels, repeats in EFFICIENTNET_B0:
            outputs = scaled(channels, width)
            for index in range(math.ceil(depth * repeats)):
                wide = inputs * widening
                excite = Excite(wide, max(1, inputs // 4), kind, nn.Sigmoid)
                step = stride if index == 0 else 1
                block = InvertedResidual(inputs, outputs, wide, kernel, step, kind, excite)
                blocks.append(block)
                inputs = outputs
        last = scaled(1280, width)
        self.features = nn.Sequential(
            Layer(3, first, 3, 2, act=kind), *blocks, Layer(inputs, last, act=kind)
        )
        self.classify = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(last, classes)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.classify(self.features(images)), 1)


class MobileNetV2(nn.Module):
    """``(batch, 3, h, w)`` to class logits; what narrows has no activation."""

    def __init__(self, classes: int, width: float) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        first = inputs = scaled(32, width)
        for widening, channels, repeats, stride in MOBILENET_V2:
            outputs = scaled(channels, width)
            for index in range(repeats):
                step = stride if index == 0 else 1
                wide = inputs * widening
                blocks.append(InvertedResidual(inputs, outputs, wide, 3, step, nn.ReLU6, None))
                inputs = outputs
        last = scaled(1280, width)
        self.features = nn.Sequential(
            Layer(3, first, 3, 2, act=nn.ReLU6), *blocks, Layer(inputs, last, act=nn.ReLU6)
        )
        self.classify = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classify(self.features(images).mean([2, 3]))


class MobileNetV3(nn.Module):
    """``(batch, 3, h, w)`` to class logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        inputs = 16
        for kernel, wide, outputs, excites, hard, stride in MOBILENET_V3:
            act = HardSwish if hard else nn.ReLU
            excite = Excite(wide, wide // 4, nn.ReLU, nn.Hardsigmoid) if excites else None
            blocks.append(InvertedResidual(inputs, outputs, wide, kernel, stride, act, excite))
            inputs = outputs
        self.features = nn.Sequential(
            Layer(3, 16, 3, 2, act=nn.Hardswish), *blocks, Layer(inputs, 960, act=HardSwish)
        )
        self.classify = nn.Sequential(
            nn.Linear(960, 1280), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1280, classes)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classify(self.features(images).mean([2, 3]))
