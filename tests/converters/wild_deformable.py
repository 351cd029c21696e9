"""Deformable convolutions as training code has them, computed by the operator's NumPy reference.

The operator ``torchvision::deform_conv2d`` is defined here with the schema of torchvision's own,
which need not be installed; mmcv's modules have its attributes and call the same.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tests.passes.plain_deform import PlainDeformConv2d
from vkconv.ops.deform_conv import DeformConv

LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
LIBRARY.define(
    "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, "
    "SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, "
    "SymInt dilation_w, SymInt groups, SymInt offset_groups, bool use_mask) -> Tensor"
)


@torch.library.impl(LIBRARY, "deform_conv2d", "CPU")
def _by_reference(x, weight, offset, mask, bias, sh, sw, ph, pw, dh, dw, groups, parts, use_mask):
    operator = DeformConv(
        strides=(sh, sw), pads=(ph, pw, ph, pw), dilations=(dh, dw), group=groups,
        offset_group=parts,
    )  # fmt: skip
    given = [t.detach().numpy() for t in (x, weight, offset, bias)]
    factors = mask.detach().numpy() if use_mask else None
    return torch.from_numpy(np.ascontiguousarray(operator.reference(*given, factors)))


@torch.library.impl(LIBRARY, "deform_conv2d", "Meta")
def _shape(x, weight, offset, mask, bias, *geometry):
    return x.new_empty(x.shape[0], weight.shape[0], offset.shape[2], offset.shape[3])


def deform_conv2d(x, offset, weight, bias, stride, padding, dilation, mask=None):
    """As torchvision.ops.deform_conv2d calls its operator."""
    use_mask = mask is not None
    if mask is None:
        mask = x.new_zeros(x.shape[0], 1)
    if bias is None:
        bias = x.new_zeros(weight.shape[0])
    parts = offset.shape[1] // (2 * weight.shape[2] * weight.shape[3])
    groups = x.shape[1] // weight.shape[1]
    return torch.ops.torchvision.deform_conv2d(
        x, weight, offset, mask, bias, *stride, *padding, *dilation, groups, parts, use_mask
    )


class _Deformable(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride=1, padding=0, dilation=1, groups=1):
        super().__init__()
        self.in_channels, self.out_channels, self.groups = inputs, outputs, groups
        self.kernel_size, self.stride = (kernel, kernel), (stride, stride)
        self.padding, self.dilation = (padding, padding), (dilation, dilation)
        shape = (outputs, inputs // groups, kernel, kernel)
        self.weight = nn.Parameter(torch.randn(shape) / kernel)
        self.bias = None

    def deform(self, x, offset, mask=None):
        return deform_conv2d(
            x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask
        )


class DeformConv2d(_Deformable):
    """torchvision's module."""

    def __init__(self, *args, bias=True, **kwargs):
        super().__init__(*args, **kwargs)
        self.bias = nn.Parameter(torch.randn(self.out_channels)) if bias else None

    def forward(self, input, offset, mask=None):
        return self.deform(input, offset, mask)


class MmcvDeformConv2dPack(_Deformable):
    """Version 1: offsets of a convolution of its own, no bias."""

    def __init__(self, *args, deform_groups=1, **kwargs):
        super().__init__(*args, **kwargs)
        self.deform_groups, self.im2col_step = deform_groups, 32
        self.conv_offset = self.told_by(2)

    def told_by(self, each):
        taps = self.kernel_size[0] * self.kernel_size[1]
        return nn.Conv2d(
            self.in_channels, self.deform_groups * each * taps, self.kernel_size, self.stride,
            self.padding, self.dilation,
        )  # fmt: skip

    def forward(self, x):
        return self.deform(x, self.conv_offset(x))


class MmcvModulatedDeformConv2dPack(MmcvDeformConv2dPack):
    """Version 2: offsets and masks of one convolution, and a bias."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.bias = nn.Parameter(torch.randn(self.out_channels))
        self.conv_offset = self.told_by(3)

    def forward(self, x):
        first, second, mask = torch.chunk(self.conv_offset(x), 3, dim=1)
        return self.deform(x, torch.cat((first, second), dim=1), torch.sigmoid(mask))


class MmcvModulatedDeformConv2d(_Deformable):
    """Version 2 with offsets and masks from outside."""

    def __init__(self, *args, deform_groups=1, **kwargs):
        super().__init__(*args, **kwargs)
        self.deform_groups = deform_groups

    def forward(self, x, offset, mask):
        return self.deform(x, offset, mask)


class Offsets(nn.Module):
    """Calls what is given with (x, offset, mask), as torchvision's users write it."""

    def __init__(self, deform, parts=1, modulated=True):
        super().__init__()
        taps = parts * deform.kernel_size[0] * deform.kernel_size[1]
        geometry = (deform.kernel_size, deform.stride, deform.padding, deform.dilation)
        self.offset = nn.Conv2d(deform.in_channels, 2 * taps, *geometry)
        self.mask = nn.Conv2d(deform.in_channels, taps, *geometry) if modulated else None
        self.deform = deform

    def forward(self, x):
        mask = None if self.mask is None else torch.sigmoid(self.mask(x))
        return self.deform(x, self.offset(x), mask)


class Functional(Offsets):
    """Calls the operator itself with a weight of its own."""

    def forward(self, x):
        d = self.deform
        mask = None if self.mask is None else torch.sigmoid(self.mask(x))
        return deform_conv2d(
            x, self.offset(x), d.weight, d.bias, d.stride, d.padding, d.dilation, mask
        )


class PlainDeformable(PlainDeformConv2d):
    """The gather-based module with ``bn`` and ``act``, as detectors hold it."""

    def __init__(self, inputs, outputs, kernel=3, padding=1, stride=1, modulated=False, norm=True):
        super().__init__(inputs, outputs, kernel, padding, stride, modulated)
        if not modulated:
            del self.m_conv
        self.act = nn.SiLU() if norm else nn.Identity()
        if not norm:
            del self.bn
        self.p_conv.register_full_backward_hook(lambda part, given, back: None)

    def forward(self, x):
        y = self.conv(self.patches(x))
        return self.act(self.bn(y) if hasattr(self, "bn") else y)
