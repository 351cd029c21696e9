"""One net with deformable convolutions of all forms, versions 1 and 2, one behind the other.

torchvision   module and function: grouped, several offset groups, strided, dilated
mmcv          ``conv_offset`` packs of both versions, and one told from outside
plain         gathers by hand, with and without ``m_conv``
vkconv        the converter's own, which trains anywhere
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.converters import wild_deformable as wild
from tests.converters.frozen import scramble
from vkconv.converters import DeformConv2d

FORMS = ("torchvision", "mmcv", "plain", "vkconv")


def deformable(form: str, seed: int = 95) -> nn.Module:
    """``(batch, 3, h, w)`` to a map of 6 channels, a quarter as large."""
    torch.manual_seed(seed)
    layers = {"torchvision": _torchvision, "mmcv": _mmcv, "plain": _plain, "vkconv": _vkconv}
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    net = nn.Sequential(stem, *layers[form](), nn.Conv2d(8, 6, 1))
    return scramble(net.requires_grad_(False), seed)


class Normalized(nn.Module):
    """Under the names that detectors have for them."""

    def __init__(self, conv: nn.Module, channels: int) -> None:
        super().__init__()
        self.conv, self.bn = conv, nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x)))


def _torchvision() -> list[nn.Module]:
    version1 = wild.DeformConv2d(8, 12, 3, 2, 1, groups=2, bias=False)
    version2 = wild.DeformConv2d(12, 8, 3, 1, 2, 2, groups=4)
    by_function = wild.DeformConv2d(8, 8, 1, bias=False)
    return [
        Normalized(wild.Offsets(version1, modulated=False), 12),
        wild.Offsets(version2, parts=2),
        Normalized(wild.Functional(by_function), 8),
    ]


def _mmcv() -> list[nn.Module]:
    outside = wild.MmcvModulatedDeformConv2d(8, 8, 3, padding=1, groups=2, deform_groups=2)
    return [
        wild.MmcvDeformConv2dPack(8, 8, 3, 2, 1, deform_groups=2),
        Normalized(wild.MmcvModulatedDeformConv2dPack(8, 8, 3, 1, 2, 2, groups=2), 8),
        wild.Offsets(outside, parts=2),
    ]


def _plain() -> list[nn.Module]:
    return [
        wild.PlainDeformable(8, 8, 3, 1, 2),
        wild.PlainDeformable(8, 8, 3, 1, 1, modulated=True),
        wild.PlainDeformable(8, 8, 5, 2, 1, modulated=True, norm=False),
    ]


def _vkconv() -> list[nn.Module]:
    return [
        wild.Offsets(DeformConv2d(8, 8, 3, 2, 1, groups=2, offset_groups=2), parts=2),
        Normalized(wild.Offsets(DeformConv2d(8, 8, 3, 1, 1, bias=False), modulated=False), 8),
    ]
