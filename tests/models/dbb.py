"""The diverse branch block (Ding et al. 2021): in training four branches stand for one convolution.

    k x k - BN,   1 x 1 - BN,   1 x 1 - BN - k x k - BN,   1 x 1 - BN - average pool - BN

summed. Where a branch pads between its layers, it pads with what the normalisation makes of 0, so
that the two layers commute. With ``deploy`` each block is one convolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.models.acnet import BlockResNet18
from tests.models.weights import build


def dbb_resnet18(deploy: bool = False, seed: int = 44) -> nn.Module:
    """The 3 x 3 layers are blocks; the stem stays a convolution, as in the paper's models."""
    return build(lambda: BlockResNet18(_layer(deploy), deploy), seed)


def dbb_small(deploy: bool = False, seed: int = 45) -> nn.Module:
    """The first two of its four stages, thinner: it takes milliseconds."""
    return build(lambda: BlockResNet18(_layer(deploy), deploy, (8, 12), 10), seed)


def _layer(deploy: bool):
    def make(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
        if kernel == 3:
            return DiverseBranchBlock(inputs, outputs, kernel, stride, kernel // 2, deploy=deploy)
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=deploy)
        return conv if deploy else nn.Sequential(conv, nn.BatchNorm2d(outputs))

    return make


class BNAndPadLayer(nn.Module):
    """Batch normalization, then a border of what it makes of 0."""

    def __init__(self, pad_pixels: int, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.pad_pixels = pad_pixels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn(x)
        pad = self.pad_pixels
        if not pad:
            return y
        scale = self.bn.weight / torch.sqrt(self.bn.running_var + self.bn.eps)
        border = (self.bn.bias - self.bn.running_mean * scale).view(1, -1, 1, 1)
        y = F.pad(y, [pad] * 4)
        y[:, :, 0:pad, :] = border
        y[:, :, -pad:, :] = border
        y[:, :, :, 0:pad] = border
        y[:, :, :, -pad:] = border
        return y


class DiverseBranchBlock(nn.Module):
    """The four branches. ``inner``: channels between the layers of the third."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        padding: int = 1,
        groups: int = 1,
        inner: int | None = None,
        deploy: bool = False,
    ) -> None:
        super().__init__()
        self.deploy = deploy
        geometry = {"stride": stride, "groups": groups}
        if deploy:
            self.dbb_reparam = nn.Conv2d(inputs, outputs, kernel, padding=padding, **geometry)
            return
        inner = inputs if inner is None else inner
        self.dbb_origin = nn.Sequential()
        self.dbb_origin.add_module(
            "conv", nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False, **geometry)
        )
        self.dbb_origin.add_module("bn", nn.BatchNorm2d(outputs))
        self.dbb_1x1 = nn.Sequential()
        self.dbb_1x1.add_module(
            "conv",
            nn.Conv2d(inputs, outputs, 1, padding=padding - kernel // 2, bias=False, **geometry),
        )
        self.dbb_1x1.add_module("bn", nn.BatchNorm2d(outputs))
        self.dbb_avg = nn.Sequential()
        self.dbb_avg.add_module("conv", nn.Conv2d(inputs, outputs, 1, groups=groups, bias=False))
        self.dbb_avg.add_module("bn", BNAndPadLayer(padding, outputs))
        self.dbb_avg.add_module("avg", nn.AvgPool2d(kernel, stride, 0))
        self.dbb_avg.add_module("avgbn", nn.BatchNorm2d(outputs))
        self.dbb_1x1_kxk = nn.Sequential()
        self.dbb_1x1_kxk.add_module(
            "idconv1", nn.Conv2d(inputs, inner, 1, groups=groups, bias=False)
        )
        self.dbb_1x1_kxk.add_module("bn1", BNAndPadLayer(padding, inner))
        self.dbb_1x1_kxk.add_module(
            "conv2", nn.Conv2d(inner, outputs, kernel, bias=False, **geometry)
        )
        self.dbb_1x1_kxk.add_module("bn2", nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.deploy:
            return self.dbb_reparam(x)
        parts = (self.dbb_origin, self.dbb_1x1, self.dbb_avg, self.dbb_1x1_kxk)
        result = parts[0](x)
        for part in parts[1:]:
            result = result + part(x)
        return result
