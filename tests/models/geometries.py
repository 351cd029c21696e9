"""Convolutions of every geometry: what is left out elsewhere. One row of layers for each rank."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.models.weights import build


def geometries(seed: int = 75) -> nn.Module:
    return build(Geometries, seed)


def volumes(seed: int = 76) -> nn.Module:
    return build(Volumes, seed)


def words(seed: int = 77) -> nn.Module:
    return build(DeepText, seed)


def separable(inputs: int, outputs: int, kernel: int, **geometry: object) -> nn.Sequential:
    """Each channel filtered on its own, then mixed."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, kernel, groups=inputs, bias=False, **geometry),
        nn.BatchNorm2d(inputs),
        nn.ReLU6(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


class Geometries(nn.Module):
    """``(batch, 3, h, w)`` to two maps: stride, padding, dilation, groups and output_padding, by
    rows and by columns."""

    def __init__(self) -> None:
        super().__init__()
        self.uneven = nn.Sequential(
            nn.Conv2d(3, 12, (5, 3), (2, 1), (2, 0), bias=False), nn.BatchNorm2d(12), nn.ReLU()
        )
        # as large as what it reads: auto_pad, with one row more below than above
        self.same = nn.Sequential(
            nn.Conv2d(12, 12, (4, 3), padding="same", dilation=(1, 2), groups=3),
            nn.BatchNorm2d(12),
            nn.SiLU(),
        )
        self.valid = nn.Conv2d(12, 15, 3, padding="valid", groups=3)
        self.separable = separable(15, 20, 5, stride=2, padding=2)
        self.dilated = nn.Sequential(
            nn.Conv2d(20, 20, 3, padding=(3, 2), dilation=(3, 2), bias=False), nn.BatchNorm2d(20)
        )
        self.mirrored = nn.Conv2d(20, 16, 3, padding=1, padding_mode="reflect")
        self.strided = nn.Conv2d(16, 18, 1, stride=(1, 2))
        self.grown = nn.Sequential(
            nn.ConvTranspose2d(18, 12, 3, (2, 3), (1, 0), (1, 2), groups=3, dilation=(2, 1)),
            nn.BatchNorm2d(12),
            nn.ReLU(),
        )
        self.last = nn.ConvTranspose2d(12, 7, 2, 2, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.separable(F.relu(self.valid(self.same(self.uneven(x)))))
        x = F.leaky_relu(self.mirrored(self.dilated(x)), 0.1)
        return x, self.last(self.grown(F.relu(self.strided(x))))


class Volumes(nn.Module):
    """``(batch, 2, depth, h, w)`` to class logits and a volume: 3-D, one of them transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(2, 8, 3, (1, 2, 2), 1, bias=False),
            nn.BatchNorm3d(8),
            nn.ReLU(),
            nn.Conv3d(8, 8, (3, 1, 1), padding=(2, 0, 0), dilation=(2, 1, 1), groups=4),
            nn.BatchNorm3d(8),
            nn.ReLU(),
            nn.MaxPool3d((1, 2, 2)),
            nn.Conv3d(8, 16, 1),
            nn.ReLU(),
        )
        self.grow = nn.Sequential(
            nn.ConvTranspose3d(16, 4, (1, 2, 2), (1, 2, 2), bias=False), nn.BatchNorm3d(4)
        )
        self.classify = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.body(x)
        return self.classify(x.mean((2, 3, 4))), self.grow(x)


class DeepText(nn.Module):
    """Letters to class logits by stacked 1-D convolutions (Conneau et al. 2017), with a residual,
    and to one number for each letter, by a transposed one."""

    def __init__(self, letters: int = 70, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(letters, width)
        self.first = nn.Conv1d(width, 32, 3, padding=1)
        self.block = nn.Sequential(
            *self.layer(32, 3), nn.ReLU(), *self.layer(32, 5, dilation=2), nn.ReLU()
        )
        self.narrow = nn.Sequential(
            nn.Conv1d(32, 48, 3, 2, 1, groups=2, bias=False), nn.BatchNorm1d(48), nn.ReLU()
        )
        self.separable = nn.Sequential(*self.layer(48, 7, groups=48), nn.Conv1d(48, 24, 1))
        self.tag = nn.ConvTranspose1d(24, 3, 4, 2, 1)
        self.classify = nn.Sequential(
            nn.Linear(24, 40, bias=False), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 6)
        )

    @staticmethod
    def layer(channels: int, kernel: int, **geometry: int) -> list[nn.Module]:
        pad = geometry.get("dilation", 1) * (kernel // 2)
        conv = nn.Conv1d(channels, channels, kernel, padding=pad, bias=False, **geometry)
        return [conv, nn.BatchNorm1d(channels)]

    def forward(self, letters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = F.relu(self.first(self.embed(letters).transpose(1, 2)))
        x = self.narrow(F.max_pool1d(x + self.block(x), 3, 2, 1))
        x = F.relu(self.separable(x))
        return self.classify(x.max(2)[0]), self.tag(x)
