"""FCN-8s (Long, Shelhamer, Darrell 2015): scores of three depths are summed on the way up.

As published, the picture is padded generously and the sums are cropped to what overlaps.
"""

from __future__ import annotations

import torch
from torch import nn

from tests.models.weights import build

WIDTHS = (8, 12, 16, 24, 24)
#: around the picture; 100 in the paper, where the deepest kernel is 7
PADDING = 36


def fcn8s(classes: int = 6, seed: int = 58) -> nn.Module:
    return build(lambda: Fcn8s(classes), seed)


class Fcn8s(nn.Module):
    """``(batch, 3, h, w)`` to ``(batch, classes, h, w)``."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        stages = []
        inputs = 3
        for index, width in enumerate(WIDTHS):
            stages.append(
                nn.Sequential(
                    nn.Conv2d(inputs, width, 3, padding=PADDING if index == 0 else 1),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                    nn.MaxPool2d(2, ceil_mode=True),
                )
            )
            inputs = width
        self.stages = nn.ModuleList(stages)
        # what were fully connected layers
        self.fc = nn.Sequential(
            nn.Conv2d(inputs, 48, 3), nn.ReLU(), nn.Dropout2d(), nn.Conv2d(48, 48, 1), nn.ReLU()
        )
        self.score = nn.ModuleList(nn.Conv2d(c, classes, 1) for c in (48, WIDTHS[3], WIDTHS[2]))
        self.twice = nn.ModuleList(
            nn.ConvTranspose2d(classes, classes, 4, 2, bias=False) for _ in range(2)
        )
        self.eight_times = nn.ConvTranspose2d(classes, classes, 16, 8, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x, maps = images, []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        y = self.score[0](self.fc(x))
        for grow, score, skip in zip(self.twice, self.score[1:], (maps[3], maps[2]), strict=True):
            y = grow(y)
            y = y + cropped(score(skip), y.shape[2], y.shape[3])
        return cropped(self.eight_times(y), images.shape[2], images.shape[3])


def cropped(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The middle of a map."""
    top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
    return x[:, :, top : top + height, left : left + width]
