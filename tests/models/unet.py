"""U-Net (Ronneberger, Fischer, Brox 2015), half as wide: 12 GFLOP at 256 x 256.

Its images are normalised by a batch normalization with no convolution before it to be fused into.
The last way up has overlapping taps (kernel 4, stride 2), the others have not (kernel 2).
"""

from __future__ import annotations

import torch
from torch import nn

from tests.models.weights import build

WIDTHS = (32, 64, 128, 256, 512)


def unet(classes: int = 5, seed: int = 256, widths: tuple[int, ...] = WIDTHS) -> nn.Module:
    """The net with weights of its own, ready to run."""
    return build(lambda: UNet(classes, widths), seed)


class UNet(nn.Module):
    """``(batch, 3, h, w)`` to ``(batch, classes, h, w)``; h and w are multiples of 16, or of 2 for
    each width but the first."""

    def __init__(self, classes: int = 5, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm2d(3)
        self.down = nn.ModuleList(
            double(inputs, outputs)
            for inputs, outputs in zip((3, *widths[:-1]), widths, strict=True)
        )
        self.shrink = nn.MaxPool2d(2)
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, 2) for coarse, fine in pairs[:-1]
        )
        self.grow.append(nn.ConvTranspose2d(*pairs[-1], 4, 2, 1))
        self.up = nn.ModuleList(double(2 * fine, fine) for _, fine in pairs)
        self.classify = nn.Conv2d(widths[0], classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.down[0](self.normalise(images))
        skipped = []
        for step in self.down[1:]:
            skipped.append(x)
            x = step(self.shrink(x))
        for grow, step, skip in zip(self.grow, self.up, reversed(skipped), strict=True):
            x = step(torch.cat([skip, grow(x)], 1))
        return self.classify(x)


def double(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions, each with batch normalization and rectifier."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
