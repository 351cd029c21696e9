"""VGG-16 and VGG-19 (Simonyan, Zisserman 2014); in full, VGG-16 has 31 GFLOP and 553 MB of weights.

The first fully connected layer alone has 411 MB: more than many drivers let one storage buffer hold
(maxStorageBufferRange is 128 MiB at least, and often no more).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from tests.models.weights import build

WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
#: convolutions of each stage
VGG16_STAGES, VGG19_STAGES = (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)


def vgg16(seed: int = 16) -> nn.Module:
    """The net with weights of its own, ready to run."""
    return build(lambda: Vgg(WIDTHS), seed)


def thin_vgg(stages: tuple[int, ...], seed: int = 19) -> nn.Module:
    """An eighth as wide, normalized, to class scores that sum to one."""
    widths = [(w,) * n for w, n in zip((8, 16, 32, 64, 64), stages, strict=True)]
    return build(lambda: nn.Sequential(Vgg(widths, 256, 50, norm=True), nn.Softmax(1)), seed)


class Vgg(nn.Module):
    """``(batch, 3, h, w)``, 224 x 224 in the paper, to ``(batch, classes)``."""

    def __init__(
        self,
        stages: Sequence[Sequence[int]],
        hidden: int = 4096,
        classes: int = 1000,
        norm: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for widths in stages:
            for width in widths:
                layers.append(nn.Conv2d(channels, width, 3, padding=1))
                layers += [nn.BatchNorm2d(width), nn.ReLU()] if norm else [nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(7)
        self.classify = nn.Sequential(
            nn.Linear(channels * 7 * 7, hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classify(torch.flatten(self.pool(self.features(images)), 1))
