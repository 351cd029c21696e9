"""Blocks as training code has them, by the attribute names their published weights carry.

Written from their algebra; they import nothing but torch, and know nothing of vkconv.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def conv_bn(inputs: int, outputs: int, kernel: int, **geometry: object) -> nn.Sequential:
    """Children named ``conv`` and ``bn``."""
    parts = nn.Sequential()
    parts.add_module("conv", nn.Conv2d(inputs, outputs, kernel, bias=False, **geometry))
    parts.add_module("bn", nn.BatchNorm2d(outputs))
    return parts


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, max(channels // 4, 1), 1)
        self.up = nn.Conv2d(max(channels // 4, 1), channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = F.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.up(F.relu(self.down(pooled))))


class RepVGGBlock(nn.Module):
    """The RepVGG form: an SE after the sum, ``nonlinearity``; deploy told by the attribute."""

    def __init__(self, inputs, outputs, kernel=3, stride=1, dilation=1, groups=1, use_se=False):
        super().__init__()
        padding = dilation * (kernel // 2)
        self.nonlinearity = nn.ReLU()
        self.se = SqueezeExcite(outputs) if use_se else nn.Identity()
        fits = inputs == outputs and stride == 1
        self.rbr_identity = nn.BatchNorm2d(inputs) if fits else None
        geometry = {"stride": stride, "groups": groups}
        self.rbr_dense = conv_bn(
            inputs, outputs, kernel, padding=padding, dilation=dilation, **geometry
        )
        self.rbr_1x1 = conv_bn(inputs, outputs, 1, **geometry)

    def forward(self, x):
        if hasattr(self, "rbr_reparam"):
            return self.nonlinearity(self.se(self.rbr_reparam(x)))
        identity = 0 if self.rbr_identity is None else self.rbr_identity(x)
        return self.nonlinearity(self.se(self.rbr_dense(x) + self.rbr_1x1(x) + identity))


class ACBlock(nn.Module):
    """``crop`` as a number, or with ``layers`` as crop layers."""

    def __init__(
        self, inputs, outputs, kernel=3, stride=1, padding=1, dilation=1, groups=1, layers=False
    ):
        super().__init__()
        self.deploy = False
        shared = {"stride": stride, "dilation": dilation, "groups": groups, "bias": False}
        self.square_conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, **shared)
        self.square_bn = nn.BatchNorm2d(outputs)
        beside = padding - dilation * (kernel // 2)
        cut, rest = max(-beside, 0), max(beside, 0)
        if layers:
            self.ver_conv_crop_layer = Crop(0, cut) if cut else nn.Identity()
            self.hor_conv_crop_layer = Crop(cut, 0) if cut else nn.Identity()
        else:
            self.crop = cut
        self.ver_conv = nn.Conv2d(inputs, outputs, (kernel, 1), padding=(padding, rest), **shared)
        self.hor_conv = nn.Conv2d(inputs, outputs, (1, kernel), padding=(rest, padding), **shared)
        self.ver_bn, self.hor_bn = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)

    def forward(self, x):
        if self.deploy:
            return self.fused_conv(x)
        square = self.square_bn(self.square_conv(x))
        if hasattr(self, "crop"):
            inside = slice(self.crop, -self.crop) if self.crop else slice(None)
            ver, hor = x[:, :, :, inside], x[:, :, inside, :]
        else:
            ver, hor = self.ver_conv_crop_layer(x), self.hor_conv_crop_layer(x)
        return square + self.ver_bn(self.ver_conv(ver)) + self.hor_bn(self.hor_conv(hor))


class Crop(nn.Module):
    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows_to_crop, self.cols_to_crop = rows, columns

    def forward(self, x):
        rows, columns = self.rows_to_crop, self.cols_to_crop
        return x[:, :, rows : x.shape[2] - rows, columns : x.shape[3] - columns]


class IdentityBasedConv1x1(nn.Conv2d):
    """The weight is the difference from the identity."""

    def __init__(self, channels: int, groups: int = 1) -> None:
        super().__init__(channels, channels, 1, groups=groups, bias=False)
        per_group = channels // groups
        value = torch.zeros(channels, per_group, 1, 1)
        for channel in range(channels):
            value[channel, channel % per_group] = 1
        self.id_tensor = value
        nn.init.normal_(self.weight)

    def forward(self, x):
        return F.conv2d(x, self.weight + self.id_tensor.type_as(self.weight), groups=self.groups)


class BNAndPadLayer(nn.Module):
    """BN, then a border of what it makes of zero."""

    def __init__(self, pad_pixels: int, channels: int) -> None:
        super().__init__()
        self.bn, self.pad_pixels = nn.BatchNorm2d(channels), pad_pixels

    def forward(self, x):
        pad = self.pad_pixels
        y = F.pad(self.bn(x), [pad] * 4)
        if pad:
            factor = self.bn.weight / torch.sqrt(self.bn.running_var + self.bn.eps)
            border = (self.bn.bias - self.bn.running_mean * factor).view(1, -1, 1, 1)
            y[:, :, :pad], y[:, :, -pad:] = border, border
            y[:, :, :, :pad], y[:, :, :, -pad:] = border, border
        return y


class DiverseBranchBlock(nn.Module):
    """Depthwise blocks average without a 1x1 before, as the published ones do."""

    def __init__(
        self, inputs, outputs, kernel=3, stride=1, groups=1, internal=None, nonlinear=None
    ):
        super().__init__()
        padding = kernel // 2
        self.nonlinear = nn.Identity() if nonlinear is None else nonlinear
        geometry = {"stride": stride, "groups": groups}
        self.dbb_origin = conv_bn(inputs, outputs, kernel, padding=padding, **geometry)
        self.dbb_avg = nn.Sequential()
        if groups < outputs:
            self.dbb_avg.add_module(
                "conv", nn.Conv2d(inputs, outputs, 1, groups=groups, bias=False)
            )
            self.dbb_avg.add_module("bn", BNAndPadLayer(padding, outputs))
            self.dbb_avg.add_module("avg", nn.AvgPool2d(kernel, stride, 0))
            self.dbb_1x1 = conv_bn(inputs, outputs, 1, **geometry)
        else:
            self.dbb_avg.add_module("avg", nn.AvgPool2d(kernel, stride, padding))
        self.dbb_avg.add_module("avgbn", nn.BatchNorm2d(outputs))
        internal = inputs if internal is None else internal
        self.dbb_1x1_kxk = nn.Sequential()
        if internal == inputs:
            self.dbb_1x1_kxk.add_module("idconv1", IdentityBasedConv1x1(inputs, groups))
        else:
            first = nn.Conv2d(inputs, internal, 1, groups=groups, bias=False)
            self.dbb_1x1_kxk.add_module("conv1", first)
        self.dbb_1x1_kxk.add_module("bn1", BNAndPadLayer(padding, internal))
        second = nn.Conv2d(internal, outputs, kernel, bias=False, **geometry)
        self.dbb_1x1_kxk.add_module("conv2", second)
        self.dbb_1x1_kxk.add_module("bn2", nn.BatchNorm2d(outputs))

    def forward(self, x):
        if hasattr(self, "dbb_reparam"):
            return self.nonlinear(self.dbb_reparam(x))
        y = self.dbb_origin(x) + self.dbb_avg(x) + self.dbb_1x1_kxk(x)
        if hasattr(self, "dbb_1x1"):
            y = y + self.dbb_1x1(x)
        return self.nonlinear(y)


class ConvModule(nn.Module):
    """mmcv's: the norm by its name, steps in a given order."""

    def __init__(self, inputs, outputs, kernel, order=("conv", "norm", "act"), **geometry):
        super().__init__()
        self.order = order
        self.conv = nn.Conv2d(inputs, outputs, kernel, bias=False, **geometry)
        self.norm_name = "bn"
        self.add_module("bn", nn.BatchNorm2d(outputs if order[0] == "conv" else inputs))
        self.activate = nn.ReLU()

    @property
    def norm(self):
        return getattr(self, self.norm_name)

    def forward(self, x, activate=True, norm=True):
        for step in self.order:
            if step == "conv":
                x = self.conv(x)
            elif step == "norm" and norm:
                x = self.norm(x)
            elif step == "act" and activate:
                x = self.activate(x)
        return x


class BasicBlock(nn.Module):
    """ResNet's: conv1/bn1, conv2/bn2; with ``pre_activation`` the norms come first."""

    def __init__(self, channels: int, pre_activation: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.pre_activation = pre_activation

    def forward(self, x):
        if self.pre_activation:
            y = self.conv1(self.relu(self.bn1(x)))
            return x + self.conv2(self.relu(self.bn2(y)))
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(x + self.bn2(self.conv2(y)))


class ImplicitA(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.implicit = nn.Parameter(torch.randn(1, channels, 1, 1) * 0.3)

    def forward(self, x):
        return self.implicit + x


class ImplicitM(ImplicitA):
    def forward(self, x):
        return self.implicit * x


class IDetect(nn.Module):
    """Assigns into its list of inputs, and keeps grids: nothing a tracer could follow."""

    def __init__(self, outputs: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.grid = [torch.zeros(1)] * len(channels)
        self.m = nn.ModuleList(nn.Conv2d(c, outputs, 1) for c in channels)
        self.ia = nn.ModuleList(ImplicitA(c) for c in channels)
        self.im = nn.ModuleList(ImplicitM(outputs) for _ in channels)

    def forward(self, x):
        x = list(x)
        for i in range(len(self.m)):
            x[i] = self.im[i](self.m[i](self.ia[i](x[i])))
            if self.grid[i].shape[2:4] != x[i].shape[2:4]:
                self.grid[i] = torch.zeros_like(x[i][:1, :1])
        return [y + g for y, g in zip(x, self.grid, strict=True)]
