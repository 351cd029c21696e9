"""Context heads: the same map seen at several scales, on a small stem.

ASPP (Chen et al. 2017), RFB (Liu, Huang, Wang 2018), SPP by maxima, SPPF and SPP3 by averages.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.models.weights import build

WIDTH = 32


def aspp(seed: int = 31) -> nn.Module:
    return build(lambda: nn.Sequential(stem(), Aspp(WIDTH, 24), nn.Conv2d(24, 9, 1)), seed)


def rfb(seed: int = 32) -> nn.Module:
    return build(lambda: nn.Sequential(stem(), Rfb(WIDTH, 40), nn.Conv2d(40, 9, 1)), seed)


def spp(seed: int = 33) -> nn.Module:
    """All three pyramids, one behind the other."""
    return build(
        lambda: nn.Sequential(
            stem(),
            Spp(WIDTH, WIDTH),
            Sppf(WIDTH, WIDTH),
            Spp3(WIDTH, WIDTH),
            nn.Conv2d(WIDTH, 9, 1),
        ),
        seed,
    )


def layer(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int] = 1,
    *,
    stride: int = 1,
    dilation: int = 1,
    act: bool = True,
) -> nn.Sequential:
    """Convolution, batch normalization and rectifier; the size is kept but for the stride."""
    kernels = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    pads = tuple(dilation * (k // 2) for k in kernels)
    parts = [
        nn.Conv2d(inputs, outputs, kernels, stride, pads, dilation, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*parts, nn.ReLU()) if act else nn.Sequential(*parts)


def stem() -> nn.Sequential:
    """Pixels to ``WIDTH`` channels at a quarter of the size."""
    return nn.Sequential(layer(3, 16, 3, stride=2), layer(16, WIDTH, 3, stride=2))


class Aspp(nn.Module):
    """1x1, dilated 3x3 and the mean of the whole map, enlarged again, side by side."""

    def __init__(self, inputs: int, outputs: int, rates: tuple[int, ...] = (2, 4, 6)) -> None:
        super().__init__()
        self.local = layer(inputs, outputs)
        self.dilated = nn.ModuleList(layer(inputs, outputs, 3, dilation=r) for r in rates)
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), layer(inputs, outputs))
        self.mix = layer((2 + len(rates)) * outputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        whole = F.interpolate(self.whole(x), x.shape[2:], mode="bilinear", align_corners=False)
        return self.mix(torch.cat([self.local(x), *(d(x) for d in self.dilated), whole], 1))


class Rfb(nn.Module):
    """Branches of 1x1, 1x3 and 3x1, 5x5 as two 3x3, each with its dilation, added to a shortcut."""

    def __init__(self, inputs: int, outputs: int, scale: float = 0.3) -> None:
        super().__init__()
        width = inputs // 4
        self.branches = nn.ModuleList(
            [
                nn.Sequential(layer(inputs, width), layer(width, width, 3, act=False)),
                nn.Sequential(
                    layer(inputs, width),
                    layer(width, width, (1, 3)),
                    layer(width, width, 3, dilation=3, act=False),
                ),
                nn.Sequential(
                    layer(inputs, width),
                    layer(width, width, (3, 1)),
                    layer(width, width, 3, dilation=3, act=False),
                ),
                nn.Sequential(
                    layer(inputs, width // 2),
                    layer(width // 2, 3 * width // 4, (1, 3)),
                    layer(3 * width // 4, width, (3, 1)),
                    layer(width, width, 3, dilation=5, act=False),
                ),
            ]
        )
        self.mix = layer(4 * width, outputs, act=False)
        self.shortcut = layer(inputs, outputs, act=False)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = self.mix(torch.cat([branch(x) for branch in self.branches], 1))
        return F.relu(mixed * self.scale + self.shortcut(x))


class Spp(nn.Module):
    """Maxima over 5, 9 and 13 pixels beside the map itself."""

    def __init__(self, inputs: int, outputs: int, sizes: tuple[int, ...] = (5, 9, 13)) -> None:
        super().__init__()
        width = inputs // 2
        self.narrow = layer(inputs, width)
        self.pools = nn.ModuleList(self.pool(size) for size in sizes)
        self.mix = layer((1 + len(sizes)) * width, outputs)

    @staticmethod
    def pool(size: int) -> nn.Module:
        return nn.MaxPool2d(size, 1, size // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.narrow(x)
        return self.mix(torch.cat([x, *(pool(x) for pool in self.pools)], 1))


class Spp3(Spp):
    """Means instead of maxima; one of them counts the padding, the others do not."""

    @staticmethod
    def pool(size: int) -> nn.Module:
        return nn.AvgPool2d(size, 1, size // 2, count_include_pad=size == 9)


class Sppf(nn.Module):
    """The maxima one behind the other: 5 pixels three times see 5, 9 and 13."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        width = inputs // 2
        self.narrow = layer(inputs, width)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.mix = layer(4 * width, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.narrow(x)
        y = self.pool(x)
        z = self.pool(y)
        return self.mix(torch.cat([x, y, z, self.pool(z)], 1))
