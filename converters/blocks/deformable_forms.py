"""The deformable convolutions met in trained models, brought to the one form that exports.

* torchvision's ``DeformConv2d``: called with (x, offset, mask). Its parameters are taken over.
* mmcv's ``DeformConv2d`` and ``ModulatedDeformConv2d``, told by ``deform_groups``: the same. Their
  ``...Pack`` forms hold ``conv_offset`` too (``conv_offset_mask`` in the original DCNv2): 2 D K
  channels of offsets, row and column interleaved, and where modulated D K more of masks, through
  a sigmoid (D offset groups, K taps).
* The plain module: ``p_conv`` tells 2 K offsets, *all rows and then all columns*, ``m_conv`` K
  masks before the sigmoid; four gathers make a map of (h k, w k) samples, which ``conv`` reads
  with stride k. Its positions begin at 1 in the map padded by ``zero_padding``, whatever the
  kernel: with taps from -(k // 2) on that is a padding of ``P - 1 + k // 2`` before, and behind of
  what the size of the offsets leaves. It clamps positions into the padded map, whose outermost ring
  is zero: samples beyond the map are zero, as DeformConv has it. Without padding it would clamp to
  pixels of the picture and count them twice; that is no deformable convolution, and stays as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from vkconv.converters.blocks.affine_map import NotFusable, is_norm, norm_scale_shift
from vkconv.converters.blocks.proof import double_copy, prove_equal
from vkconv.converters.deformable import DeformConv2d

Make = Callable[[nn.Module], nn.Module]

__all__ = ["DeformableBlock", "replacement"]


class DeformableBlock(nn.Module):
    """A deformable convolution with the layers that tell its offsets and masks.

    ``conv_offset`` gives (N, 2 D K, out_h, out_w), row and column of tap 0, of tap 1, ...;
    ``conv_mask``, unless None, (N, D K, out_h, out_w) before the sigmoid.
    """

    def __init__(
        self,
        conv_offset: nn.Module,
        conv_mask: nn.Module | None,
        deform: DeformConv2d,
        act: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.conv_offset, self.conv_mask, self.deform = conv_offset, conv_mask, deform
        self.act = nn.Identity() if act is None else act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, M, out_h, out_w)."""
        mask = None if self.conv_mask is None else self.conv_mask(x).sigmoid()
        return self.act(self.deform(x, self.conv_offset(x), mask))


@torch.no_grad()
def replacement(module: nn.Module) -> nn.Module | None:
    """What takes the place of ``module``; None where it is no deformable convolution.

    Raises NotFusable, with the reason, for one that cannot be expressed or proven.
    """
    if isinstance(module, DeformConv2d | DeformableBlock):
        return None
    if _is_plain(module):
        return _first_proven(module, _plain_variants(module))
    if not isinstance(getattr(module, "weight", None), nn.Parameter) or module.weight.dim() != 4:
        return None
    if _offset_groups(module) is not None:
        make = _from_mmcv
    elif type(module).__name__ == "DeformConv2d" and hasattr(module, "kernel_size"):
        make = _bare
    else:
        return None
    return _first_proven(module, [make])


def _plain_variants(module: nn.Module) -> list[Make]:
    """With what a plain module holds, and, as it may hold layers it does not use, without."""
    holds_mask = isinstance(getattr(module, "m_conv", None), nn.Conv2d)
    holds_norm = any(is_norm(part) for part in module.children())
    return [
        partial(_from_plain, has_mask=mask, has_norm=norm, has_act=act)
        for mask in ([True, False] if holds_mask else [False])
        for norm in ([True, False] if holds_norm else [False])
        for act in ([True, False] if hasattr(module, "act") else [False])
    ]


def _first_proven(module: nn.Module, makes: list[Make]) -> nn.Module:
    """What the first of ``makes`` that is proven makes; NotFusable with the first's reason."""
    reason: NotFusable | None = None
    for make in makes:
        try:
            _prove(module, make)
        except NotFusable as error:
            reason = reason or error
        else:
            return make(module)
    assert reason is not None
    raise reason


def _is_plain(module: nn.Module) -> bool:
    offsets, gathered = getattr(module, "p_conv", None), getattr(module, "conv", None)
    if not isinstance(offsets, nn.Conv2d) or not isinstance(gathered, nn.Conv2d):
        return False
    taps = gathered.kernel_size[0] * gathered.kernel_size[1]
    return gathered.stride == gathered.kernel_size and offsets.out_channels == 2 * taps


def _offset_groups(module: nn.Module) -> int | None:
    """mmcv's ``deform_groups``, in older code ``deformable_groups``."""
    for name in ("deform_groups", "deformable_groups"):
        if isinstance(getattr(module, name, None), int):
            return int(getattr(module, name))
    return None


def _bare(module: nn.Module) -> DeformConv2d:
    """The convolution itself, from a module that holds its attributes by nn.Conv2d's names."""
    groups = getattr(module, "groups", 1)
    return _deform(
        module.weight,
        getattr(module, "bias", None),
        module.stride,
        module.padding,
        module.dilation,
        groups,
        _offset_groups(module),
    )


def _deform(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    offset_groups: int | None,
) -> DeformConv2d:
    layer = DeformConv2d(
        weight.shape[1] * groups, len(weight), tuple(weight.shape[2:]), stride, padding, dilation,
        groups, offset_groups, bias is not None,
    )  # fmt: skip
    layer = layer.to(device=weight.device, dtype=weight.dtype)
    layer.weight.data.copy_(weight.detach())
    if layer.bias is not None and bias is not None:
        layer.bias.data.copy_(bias.detach())
    return layer.requires_grad_(False).eval()


def _from_mmcv(module: nn.Module) -> nn.Module:
    deform = _bare(module)
    for name in ("conv_offset", "conv_offset_mask"):
        told = getattr(module, name, None)
        if isinstance(told, nn.Conv2d):
            break
    else:
        return deform
    taps = deform.kernel_size[0] * deform.kernel_size[1] * (deform.offset_groups or 1)
    if told.out_channels not in (2 * taps, 3 * taps):
        raise NotFusable(
            f"its '{name}' has {told.out_channels} channels; {2 * taps} or, modulated, {3 * taps} "
            f"are expected"
        )
    offset = _channels_of(told, torch.arange(2 * taps))
    mask = None
    if told.out_channels == 3 * taps:
        mask = _channels_of(told, torch.arange(2 * taps, 3 * taps))
    return DeformableBlock(offset, mask, deform).eval()


def _from_plain(module: nn.Module, has_mask: bool, has_norm: bool, has_act: bool) -> nn.Module:
    told, gathered = module.p_conv, module.conv
    kernel, outputs = gathered.kernel_size, told.out_channels
    ring = getattr(getattr(module, "zero_padding", None), "padding", (0, 0, 0, 0))
    left, right, top, bottom = ring if isinstance(ring, tuple) else (ring,) * 4
    if min(left, right, top, bottom) < 1:
        raise NotFusable(
            "it samples an unpadded map, whose border pixels positions beyond it read (padding=0)"
        )
    if told.groups != 1 or isinstance(told.padding, str):
        raise NotFusable("its 'p_conv' has groups or a padding given as a word")
    before, after = [], []
    for axis, pad in ((0, top), (1, left)):
        first = pad - 1 + kernel[axis] // 2
        # as much behind as makes the output the size of the offsets
        reach = told.dilation[axis] * (told.kernel_size[axis] - 1) + 1
        last = 2 * told.padding[axis] - reach + kernel[axis] - first
        if last < 0:
            raise NotFusable(
                f"its map of samples reaches {-last} pixels less far than the picture, which "
                f"DeformConv expresses by no padding"
            )
        before.append(first)
        after.append(last)
    weight, bias = gathered.weight, gathered.bias
    if has_norm:
        norm = next(part for part in module.children() if is_norm(part))
        scale, shift = norm_scale_shift(norm)
        start = shift.new_zeros(len(weight)) if bias is None else bias.double()
        weight = (weight.double() * scale[:, None, None, None]).to(gathered.weight.dtype)
        bias = (start * scale + shift).to(gathered.weight.dtype)
    deform = _deform(weight, bias, told.stride, (*before, *after), (1, 1), gathered.groups, 1)
    # channel 2 k is the row of tap k, 2 k + 1 its column
    order = torch.arange(outputs).reshape(2, -1).t().flatten()
    masks = _channels_of(module.m_conv, torch.arange(outputs // 2)) if has_mask else None
    act = module.act if has_act else None
    return DeformableBlock(_channels_of(told, order), masks, deform, act).eval()


def _channels_of(convolution: nn.Conv2d, chosen: torch.Tensor) -> nn.Conv2d:
    """A frozen convolution that gives these output channels, in this order."""
    if convolution.groups != 1:
        raise NotFusable("the convolution that tells its offsets has groups")
    chosen = chosen.to(convolution.weight.device)
    picked = nn.Conv2d(
        convolution.in_channels,
        len(chosen),
        convolution.kernel_size,
        convolution.stride,
        convolution.padding,
        convolution.dilation,
        bias=convolution.bias is not None,
        padding_mode=convolution.padding_mode,
        device=convolution.weight.device,
        dtype=convolution.weight.dtype,
    )
    picked.weight.data.copy_(convolution.weight[chosen])
    if picked.bias is not None:
        picked.bias.data.copy_(convolution.bias[chosen])
    return picked.requires_grad_(False).eval()


def _prove(module: nn.Module, make: Make) -> None:
    """Try the replacement on random numbers and random offsets.

    Offsets are commonly initialised to zero, which would prove nothing of their order: the
    convolutions that tell them get random weights here. mmcv's and torchvision's modules may lack
    their compiled operator on this machine, or its float64; their structure must do then, which,
    unlike the plain module's, leaves no choice.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    before = double_copy(module)
    for part in before.modules():
        if isinstance(part, nn.Conv2d) and part is not getattr(before, "conv", None):
            part.weight.copy_(random(*part.weight.shape) * 2 / part.weight[0].numel() ** 0.5)
    after = make(before)
    deform = after.deform if isinstance(after, DeformableBlock) else after
    reach = [
        (size - 1) * step + 1
        for size, step in zip(deform.kernel_size, deform.dilation, strict=True)
    ]
    size = [max(reach[0], 3) + 4, max(reach[1], 3) + 5]
    inputs = [random(2, deform.in_channels, *size)]
    if isinstance(after, DeformConv2d):
        out = [
            (extent + 2 * pad - far) // move + 1
            for extent, pad, far, move in zip(
                size, deform.padding, reach, deform.stride, strict=True
            )
        ]
        taps = (deform.offset_groups or 1) * deform.kernel_size[0] * deform.kernel_size[1]
        inputs.append(random(2, 2 * taps, *out) * 2)
        if "mask" in inspect.signature(before.forward).parameters:
            inputs.append(random(2, taps, *out))
    try:
        inspect.signature(before.forward).bind(*inputs)
    except TypeError as error:
        raise NotFusable(f"its forward takes other arguments ({error})") from error
    if not _is_plain(module):
        try:
            before(*inputs)
        except Exception:
            return
    prove_equal(before, after, inputs)
