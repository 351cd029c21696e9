"""Deformable convolution as training code writes it by hand: the module that exporters trace.

Positions are counted in the zero-padded map and start at 1; offsets come as the rows of all taps,
then the columns. Nothing here is imported from anywhere: the module is written from its algebra.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PlainDeformConv2d(nn.Module):
    """y = conv(patches): bilinear samples of the padded map, laid out k x k for every pixel."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        padding: int = 1,
        stride: int = 1,
        modulated: bool = False,
        normalized: bool = False,
    ) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.zero_padding = nn.ZeroPad2d(padding)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=kernel, bias=False)
        self.p_conv = nn.Conv2d(inputs, 2 * kernel**2, 3, padding=1, stride=stride)
        self.m_conv = nn.Conv2d(inputs, kernel**2, 3, padding=1, stride=stride)
        self.bn = nn.BatchNorm2d(outputs)
        self.modulated, self.normalized = modulated, normalized

    def offsets(self, x: Tensor) -> Tensor:
        return self.p_conv(x)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.patches(x))
        return nn.functional.silu(self.bn(y)) if self.normalized else y

    def patches(self, x: Tensor) -> Tensor:
        offset = self.offsets(x)
        padded = self.zero_padding(x)
        p = (self.grid(offset) + offset).contiguous().permute(0, 2, 3, 1)
        low = p.detach().floor()
        high = self.clamped(low + 1, padded).long()
        low = self.clamped(low, padded).long()
        p = self.clamped(p, padded)
        n = self.kernel**2
        sampled: Tensor | None = None
        for rows, columns in ((low, low), (high, high), (low, high), (high, low)):
            weight = _nearness(rows[..., :n], p[..., :n], rows is low) * _nearness(
                columns[..., n:], p[..., n:], columns is low
            )
            corner = torch.cat([rows[..., :n], columns[..., n:]], -1)
            part = weight.unsqueeze(1) * self.gathered(padded, corner)
            sampled = part if sampled is None else sampled + part
        assert sampled is not None
        if self.modulated:
            mask = torch.sigmoid(self.m_conv(x)).contiguous().permute(0, 2, 3, 1).unsqueeze(1)
            sampled = sampled * torch.cat([mask for _ in range(sampled.size(1))], 1)
        batch, channels, h, w, _ = sampled.size()
        k = self.kernel
        lines = [
            sampled[..., start : start + k].contiguous().view(batch, channels, h, w * k)
            for start in range(0, n, k)
        ]
        return torch.cat(lines, -1).contiguous().view(batch, channels, h * k, w * k)

    def grid(self, offset: Tensor) -> Tensor:
        """Where each tap looks without its offset (1, 2 n, h, w)."""
        h, w = offset.shape[2:]
        half, n, s = (self.kernel - 1) // 2, self.kernel**2, self.stride
        taps = torch.arange(-half, half + 1)
        ty, tx = torch.meshgrid(taps, taps, indexing="ij")
        tap = torch.cat([ty.flatten(), tx.flatten()]).view(1, 2 * n, 1, 1).to(offset.dtype)
        y, x = torch.arange(1, h * s + 1, s), torch.arange(1, w * s + 1, s)
        py, px = torch.meshgrid(y, x, indexing="ij")
        places = [p.flatten().view(1, 1, h, w).repeat(1, n, 1, 1) for p in (py, px)]
        return torch.cat(places, 1).to(offset.dtype) + tap

    def clamped(self, p: Tensor, padded: Tensor) -> Tensor:
        n = self.kernel**2
        rows = torch.clamp(p[..., :n], 0, padded.size(2) - 1)
        return torch.cat([rows, torch.clamp(p[..., n:], 0, padded.size(3) - 1)], -1)

    def gathered(self, padded: Tensor, corner: Tensor) -> Tensor:
        """padded[b, c, row, column] for the rows and columns in ``corner`` (b, h, w, 2 n)."""
        batch, h, w, _ = corner.size()
        channels, n = padded.size(1), self.kernel**2
        index = corner[..., :n] * padded.size(3) + corner[..., n:]
        index = index.contiguous().unsqueeze(1).expand(-1, channels, -1, -1, -1)
        flat = padded.contiguous().view(batch, channels, -1)
        found = flat.gather(-1, index.contiguous().view(batch, channels, -1))
        return found.contiguous().view(batch, channels, h, w, n)


def _nearness(corner: Tensor, p: Tensor, is_low: bool) -> Tensor:
    """1 - |corner - p| along one axis, as the published modules write it."""
    distance = corner.type_as(p) - p
    return 1 + distance if is_low else 1 - distance
