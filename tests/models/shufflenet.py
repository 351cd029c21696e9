"""ShuffleNetV2 (Ma et al. 2018), and as a searched net has it: the kernel differs between blocks.

Half of the channels pass a block unchanged; a shuffle mixes the halves for the next one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from tests.models.weights import build

#: channels of each stage and the kernels of its blocks, the first of which has stride 2
STAGES = ((48, (3, 5, 3, 7)), (96, (5, 3, 7, 3)), (192, (7, 3, 5)))


def shufflenet_v2(classes: int = 100, seed: int = 51) -> nn.Module:
    return build(lambda: ShuffleNetV2(classes), seed)


#: the published net of width 1: 3x3 kernels, 1024 channels before the classes
PUBLISHED = ((116, (3,) * 4), (232, (3,) * 8), (464, (3,) * 4))


def shufflenet_v2_published(classes: int = 1000, seed: int = 53) -> nn.Module:
    return build(lambda: ShuffleNetV2(classes, PUBLISHED, 1024), seed)


#: what a searched net may choose for a block: a kernel, or three small ones in a row
CHOICES = {"3": 3, "5": 5, "7": 7, "xception": None}
SEARCHED = ((24, ("5", "xception")), (40, ("7", "3", "xception")), (64, ("xception", "5")))


def searched_net(classes: int = 30, seed: int = 52) -> nn.Module:
    """A subnet of a net that holds every choice, as one-shot search trains it (Guo et al. 2020)."""
    return build(lambda: SearchedNet(classes, holds_all=True), seed)


def layer(inputs: int, outputs: int) -> list[nn.Module]:
    """A 1x1 with batch normalization and rectifier."""
    return [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def filtered(channels: int, kernel: int, stride: int) -> list[nn.Module]:
    """Each channel filtered on its own; no activation."""
    conv = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
    return [conv, nn.BatchNorm2d(channels)]


def shuffle(x: torch.Tensor, groups: int = 2) -> torch.Tensor:
    """Channels of the groups take turns."""
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).reshape(batch, channels, height, width)


class Block(nn.Module):
    """One half is worked on; with stride 2 both are, each from the whole input."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        entry = half if stride == 1 else inputs
        self.work = nn.Sequential(
            *layer(entry, half), *filtered(half, kernel, stride), *layer(half, half)
        )
        self.bypass: nn.Module | None = None
        if stride == 2:
            self.bypass = nn.Sequential(*filtered(inputs, kernel, 2), *layer(inputs, half))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.bypass is None:
            kept, x = x.chunk(2, 1)
        else:
            kept = self.bypass(x)
        return shuffle(torch.cat([kept, self.work(x)], 1))


class ShuffleNetV2(nn.Module):
    """``(batch, 3, h, w)`` to class logits."""

    def __init__(
        self,
        classes: int,
        stages: Sequence[tuple[int, Sequence[int]]] = STAGES,
        last: int = 256,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, 1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        blocks = []
        inputs = 24
        for channels, kernels in stages:
            for index, kernel in enumerate(kernels):
                blocks.append(Block(inputs, channels, kernel, 2 if index == 0 else 1))
                inputs = channels
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(*layer(inputs, last))
        self.classify = nn.Linear(last, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.last(self.blocks(self.stem(images)))
        return self.classify(features.mean((2, 3)))


class ThreeFilters(nn.Module):
    """The "xception" choice: 3x3 filters three times, each mixed by a 1x1."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        entry = half if stride == 1 else inputs
        self.work = nn.Sequential(
            *filtered(entry, 3, stride), *layer(entry, half),
            *filtered(half, 3, 1), *layer(half, half),
            *filtered(half, 3, 1), *layer(half, half),
        )  # fmt: skip
        self.bypass: nn.Module | None = None
        if stride == 2:
            self.bypass = nn.Sequential(*filtered(inputs, 3, 2), *layer(inputs, half))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Block.forward(self, x)


class Choice(nn.Module):
    """Candidates for one place, one of which is ``chosen``; the others hold weights and idle."""

    def __init__(self, inputs: int, outputs: int, stride: int, chosen: str, holds_all: bool):
        super().__init__()
        names = CHOICES if holds_all else {chosen: CHOICES[chosen]}
        self.candidates = nn.ModuleDict(
            {
                f"choice_{name}": ThreeFilters(inputs, outputs, stride)
                if kernel is None
                else Block(inputs, outputs, kernel, stride)
                for name, kernel in names.items()
            }
        )
        self.chosen = f"choice_{chosen}"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.candidates[self.chosen](x)


class SearchedNet(nn.Module):
    """``(batch, 3, h, w)`` to class logits."""

    def __init__(self, classes: int, holds_all: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        blocks, inputs = [], 16
        for channels, choices in SEARCHED:
            for index, chosen in enumerate(choices):
                blocks.append(Choice(inputs, channels, 2 if index == 0 else 1, chosen, holds_all))
                inputs = channels
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(*layer(inputs, 64))
        self.classify = nn.Linear(64, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classify(self.last(self.blocks(self.stem(images))).mean((2, 3)))
