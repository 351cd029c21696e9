"""Where the cells of a detection head lie in the picture, and boxes around them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["Normalized", "boxes_around", "cells", "rows_of"]


def cells(height: int, width: int) -> torch.Tensor:
    """``(height, width, 2)``: x and y of every cell of a map, counted from 0."""
    rows, columns = torch.arange(height), torch.arange(width)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], -1)


def boxes_around(sides: torch.Tensor, stride: int, offset: float) -> torch.Tensor:
    """Boxes from the distances of a cell's point to their sides.

    sides:   (b, 4, h, w) in pixels: to the left, upper, right and lower side.
    offset:  where in its cell the point lies, 0 (corner) to 1.

    Returns (b, 4, h, w): cx, cy, w, h in pixels.
    """
    before, after = sides.split((2, 2), 1)
    points = (cells(sides.shape[2], sides.shape[3]).permute(2, 0, 1) + offset) * stride
    return torch.cat([points.to(sides) + 0.5 * (after - before), before + after], 1)


def rows_of(*maps: torch.Tensor) -> torch.Tensor:
    """Maps (b, c, h, w) side by side, one row for each cell: (b, h * w, sum of c)."""
    joined = torch.cat(maps, 1) if len(maps) > 1 else maps[0]
    return joined.flatten(2).transpose(1, 2)


class Normalized(nn.Module):
    """``(255 * x - mean) / deviation`` for each channel: pictures in 0..1 to what training saw.

    mean, deviation:  one for each channel, of pixels in 0..255.
    """

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        # plain numbers: an export holds them as constants, and weights do not bring them
        self.factor = tuple(255.0 / d for d in deviation)
        self.shift = tuple(-m / d for m, d in zip(mean, deviation, strict=True))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """``(b, channels, h, w)`` to the same."""
        factor = torch.tensor(self.factor).to(images).view(1, -1, 1, 1)
        shift = torch.tensor(self.shift).to(images).view(1, -1, 1, 1)
        return images * factor + shift
