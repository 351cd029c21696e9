"""VGG-16 (Simonyan, Zisserman 2014): 31 GFLOP, 553 MB of weights.

The first fully connected layer alone has 411 MB: more than many drivers let one storage buffer hold
(maxStorageBufferRange is 128 MiB at least, and often no more).
"""

from __future__ import annotations

import torch
from torch import nn

from tests.models.weights import build

WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16(seed: int = 16) -> nn.Module:
    """The net with weights of its own, ready to run."""
    return build(VGG16, seed)


class VGG16(nn.Module):
    """``(batch, 3, 224, 224)`` to ``(batch, 1000)``."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for widths in WIDTHS:
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(7)
        self.classify = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 1000),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classify(torch.flatten(self.pool(self.features(images)), 1))
