"""Blocks of parallel linear branches, each of which becomes one convolution.

Three families, told by the attributes they hold:

* RepVGG and RepConv (Ding et al., "RepVGG", 2021; Wang et al., "YOLOv7", 2022): ``rbr_dense`` (kxk
  and BN) + ``rbr_1x1`` + ``rbr_identity`` (BN alone, or None) -> ``rbr_reparam``.
* ACBlock (Ding et al., "ACNet", 2019): ``square_conv`` + ``ver_conv`` + ``hor_conv``, each with its
  ``*_bn``; where the padding is small the two others read a cropped input -> ``fused_conv``.
* DiverseBranchBlock (Ding et al., 2021): ``dbb_origin`` + ``dbb_1x1`` + ``dbb_1x1_kxk`` +
  ``dbb_avg`` -> ``dbb_reparam``. Its 1x1 stages pad *after* their BN, with what the BN makes of
  zero; so they act like a BN on a zero-padded input, and commute with the taps behind them.

What follows the sum (activation, squeeze-and-excitation) stays the block's own affair: the block
keeps its class, and its forward takes the deploy path. That it does, and that the numbers agree, is
tried on a random input before anything is changed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import nn

from vkconv.converters.blocks.affine_map import AffineMap, NotFusable, is_norm, norm_scale_shift
from vkconv.converters.blocks.proof import double_copy, prove_equal

__all__ = ["FAMILIES", "Family", "collapse", "family_of"]


@dataclass(frozen=True)
class Family:
    """One kind of block.

    marks      attributes that tell it
    branches   the maps whose sum it is, the one with the full kernel first
    result     the attribute that takes the one convolution
    discarded  attributes that go
    """

    name: str
    marks: tuple[str, ...]
    branches: Callable[[nn.Module], list[AffineMap]]
    result: str
    discarded: tuple[str, ...]


def family_of(block: nn.Module) -> Family | None:
    """The family whose marks ``block`` bears."""
    for family in FAMILIES:
        if all(isinstance(getattr(block, mark, None), nn.Module) for mark in family.marks):
            return family
    return None


@torch.no_grad()
def collapse(block: nn.Module, family: Family) -> None:
    """Replace the branches of ``block`` by their sum, in place; NotFusable leaves it untouched."""
    total = reduce(AffineMap.plus, family.branches(block))
    before = double_copy(block)
    after = copy.deepcopy(before)
    _install(after, family, total.layer(total.weight.cpu()))
    prove_equal(before, after, [_random_input(total)])
    kernel = next(part.weight for part in block.modules() if isinstance(part, nn.Conv2d))
    _install(block, family, total.layer(kernel))


def _install(block: nn.Module, family: Family, convolution: nn.Conv2d) -> None:
    setattr(block, family.result, convolution)
    for name in family.discarded:
        if hasattr(block, name):
            delattr(block, name)
    block.deploy = True


def _random_input(total: AffineMap) -> torch.Tensor:
    """Two pictures a little larger than the kernel, of unequal sides."""
    reach = [
        (size - 1) * step + 1
        for size, step in zip(total.weight.shape[2:], total.dilation, strict=True)
    ]
    channels = total.weight.shape[1] * total.groups
    generator = torch.Generator().manual_seed(0)
    size = (2, channels, reach[0] + 4, reach[1] + 5)
    return torch.randn(size, generator=generator, dtype=torch.float64)


def _sequence_map(parts: Iterable[nn.Module], start: AffineMap) -> AffineMap:
    """What the layers do one after another; ``start`` is the identity of the block's channels."""
    total = start
    for part in parts:
        norm = _padding_norm(part)
        if norm is not None:
            if bool(total.bias.any()):
                raise NotFusable("a shift precedes a BN that pads with its own constant")
            total = total.scaled(*norm_scale_shift(norm)).padded(part.pad_pixels)
        elif is_norm(part):
            total = total.scaled(*norm_scale_shift(part))
        elif isinstance(part, nn.AvgPool2d):
            mean = AffineMap.mean(part, len(total.weight), total.groups, total.weight)
            total = mean if total is start else total.then(mean)
        elif isinstance(part, nn.Conv2d) or hasattr(part, "id_tensor"):
            convolution = _convolution_map(part)
            total = convolution if total is start else total.then(convolution)
        elif not isinstance(part, nn.Identity):
            raise NotFusable(f"a branch holds a {type(part).__name__}, which is no linear layer")
    return total


def _padding_norm(part: nn.Module) -> nn.Module | None:
    """The norm inside a BNAndPadLayer: BN, then ``pad_pixels`` of BN(0) on each side."""
    norm = getattr(part, "bn", None)
    found = isinstance(getattr(part, "pad_pixels", None), int) and isinstance(norm, nn.Module)
    return norm if found else None


def _convolution_map(part: nn.Module) -> AffineMap:
    """A convolution; a 1x1 whose weight is kept as the difference from the identity, too."""
    convolution = part if isinstance(part, nn.Conv2d) else getattr(part, "conv", None)
    if not isinstance(convolution, nn.Conv2d):
        raise NotFusable("an identity-based branch without its convolution")
    plain = AffineMap.of(convolution)
    if not hasattr(part, "id_tensor"):
        return plain
    return plain.plus(AffineMap.identity(len(plain.weight), plain.groups, plain.weight))


def _start(convolution: nn.Conv2d) -> AffineMap:
    return AffineMap.identity(convolution.in_channels, convolution.groups, convolution.weight)


def _main_convolution(branch: nn.Module, name: str) -> nn.Conv2d:
    """The only convolution of a branch."""
    found = [part for part in branch.modules() if isinstance(part, nn.Conv2d)]
    if len(found) != 1:
        raise NotFusable(f"'{name}' holds {len(found)} convolutions, expected one")
    return found[0]


def _layers(branch: nn.Module) -> list[nn.Module]:
    """A branch's layers in order: itself, or what a sequence of named layers holds."""
    return list(branch.children()) or [branch]


def _rep_branches(block: nn.Module) -> list[AffineMap]:
    start = _start(_main_convolution(block.rbr_dense, "rbr_dense"))
    maps = [_sequence_map(_layers(block.rbr_dense), start)]
    for name in ("rbr_1x1", "rbr_identity"):
        branch = getattr(block, name, None)
        if branch is not None:
            maps.append(_sequence_map(_layers(branch), start))
    return maps


def _asymmetric_branches(block: nn.Module) -> list[AffineMap]:
    start = _start(block.square_conv)
    maps = [_sequence_map([block.square_conv, block.square_bn], start)]
    for name, axis in (("ver", 1), ("hor", 0)):
        parts = [getattr(block, f"{name}_conv"), getattr(block, f"{name}_bn")]
        branch = _sequence_map(parts, start)
        cut = [0, 0]
        crop_layer = getattr(block, f"{name}_conv_crop_layer", None)
        if crop_layer is not None:
            cut = _cut(crop_layer)
        else:
            cut[axis] = getattr(block, "crop", 0)
        padding = tuple(pad - rows for pad, rows in zip(branch.padding, cut, strict=True))
        maps.append(replace(branch, padding=padding))
    return maps


def _cut(layer: nn.Module) -> list[int]:
    """How many rows and columns a crop layer takes off each side."""
    canvas = torch.zeros(1, 1, 64, 64)
    lost = [64 - size for size in layer(canvas).shape[2:]]
    if any(amount % 2 for amount in lost):
        raise NotFusable("a branch is cropped unevenly")
    return [amount // 2 for amount in lost]


def _diverse_branches(block: nn.Module) -> list[AffineMap]:
    start = _start(_main_convolution(block.dbb_origin, "dbb_origin"))
    names = ("dbb_origin", "dbb_1x1", "dbb_1x1_kxk", "dbb_avg")
    branches = [getattr(block, name, None) for name in names]
    return [_sequence_map(_layers(branch), start) for branch in branches if branch is not None]


FAMILIES = (
    Family(
        "RepConv",
        ("rbr_dense", "rbr_1x1"),
        _rep_branches,
        "rbr_reparam",
        ("rbr_dense", "rbr_1x1", "rbr_identity", "id_tensor"),
    ),
    Family(
        "ACBlock",
        ("square_conv", "square_bn", "ver_conv", "ver_bn", "hor_conv", "hor_bn"),
        _asymmetric_branches,
        "fused_conv",
        (
            "square_conv", "square_bn", "ver_conv", "ver_bn", "hor_conv", "hor_bn",
            "ver_conv_crop_layer", "hor_conv_crop_layer",
        ),
    ),
    Family(
        "DiverseBranchBlock",
        ("dbb_origin",),
        _diverse_branches,
        "dbb_reparam",
        ("dbb_origin", "dbb_avg", "dbb_1x1", "dbb_1x1_kxk"),
    ),
)  # fmt: skip
