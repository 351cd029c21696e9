"""Layers that scale and shift channels, folded into the convolution or linear layer beside them.

After a layer ``y = W x + b`` a batch norm or a learned factor or summand multiplies by ``s`` and
adds ``t``, one of each for a channel::

    W' = W s;   b' = b s + t                      (s along the output channels)

Before it, YOLOv7's ImplicitA adds a learned ``a`` to each input channel, ImplicitM multiplies::

    W (x + a) + b:  b' = b + sum over taps and i of W[o, i] a[i]     (only where nothing is padded)
    W (x m) + b:    W'[o, i] = W[o, i] m[i]

The arithmetic is float64, rounded once to the layer's dtype.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils import parametrize

from vkconv.converters.blocks.affine_map import NotFusable, is_norm, norm_scale_shift
from vkconv.converters.blocks.call_order import CallOrder, Slot, call_order
from vkconv.converters.blocks.deformable_forms import DeformableBlock
from vkconv.converters.blocks.proof import double_copy, prove_equal
from vkconv.converters.deformable import DeformConv2d

__all__ = ["fold_chains", "fold_implicit_heads", "folded"]

_EXACT = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.Linear, DeformConv2d,
)  # fmt: skip


def is_layer(module: nn.Module) -> bool:
    """Whether scale and shift can be folded into ``module``: it is affine in weight and bias."""
    if isinstance(module, DeformableBlock):
        return isinstance(module.act, nn.Identity)
    return isinstance(module, _EXACT)


def is_scale_shift(module: nn.Module) -> bool:
    """Whether ``module`` is a batch norm or an implicit layer."""
    return is_norm(module) or isinstance(getattr(module, "implicit", None), nn.Parameter)


@torch.no_grad()
def folded(layer: nn.Module, before: Sequence[nn.Module], after: Sequence[nn.Module]) -> nn.Module:
    """A frozen layer equal to ``after(layer(before(x)))``; its arguments stay as they are.

    Raises NotFusable with the reason where the algebra does not hold.
    """
    if isinstance(layer, DeformableBlock):
        result = copy.copy(layer)
        result._modules = dict(layer._modules)
        result.deform = folded(layer.deform, _none_before(before), after)
        return result
    for part in (layer, *before, *after):
        _refuse_hooks(part)
    weight = layer.weight.detach().double()
    channel = _output_axis(layer)
    outputs = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    bias = weight.new_zeros(outputs) if layer.bias is None else layer.bias.detach().double()
    for part in reversed(before):
        scale, shift = _scale_shift(part, _inputs(layer))
        if bool(shift.any()):
            bias = bias + _shift_through(layer, weight, shift)
        weight = weight * _along_inputs(layer, weight, scale)
    for part in after:
        scale, shift = _scale_shift(part, outputs)
        weight = weight * _along_outputs(layer, weight, scale, channel)
        bias = bias * scale + shift
    return _with_parameters(layer, weight, bias)


def fold_chains(module: nn.Module, example_inputs: Any = None) -> list[str]:
    """Fold every chain of ``module`` in place; what was left alone, one line each."""
    order = call_order(module, example_inputs)
    notes: list[str] = []
    parts = {
        (path, name): part
        for path, owner in module.named_modules()
        for name, part in owner.named_children()
    }
    leading = {after: before for before, after in order.following.items()}
    for slot, layer in parts.items():
        if not is_layer(layer):
            continue
        behind = []
        for following in order.chain(slot):
            if not is_scale_shift(parts[following]):
                break
            behind.append(following)
        ahead = []
        previous = leading.get(slot)
        if previous is not None and isinstance(
            getattr(parts[previous], "implicit", None), nn.Parameter
        ):
            ahead.append(previous)
        if behind or ahead:
            notes += _fold_one(module, parts, order, slot, ahead, behind)
    return notes + _unseen_notes(module, order)


def _fold_one(
    module: nn.Module,
    parts: dict[Slot, nn.Module],
    order: CallOrder,
    slot: Slot,
    ahead: Sequence[Slot],
    behind: Sequence[Slot],
) -> list[str]:
    names = ", ".join(f"'{_join(part)}'" for part in (*ahead, *behind))
    repeated = [part for part in (slot, *ahead, *behind) if order.calls[part] != 1]
    try:
        if repeated:
            raise NotFusable(
                f"'{_join(repeated[0])}' is used {order.calls[repeated[0]]} times in one pass"
            )
        before = [parts[part] for part in ahead]
        after = [parts[part] for part in behind]
        layer = folded(parts[slot], before, after)
        if type(layer) not in (*_EXACT, DeformableBlock):
            _prove_folded(parts[slot], before, after)
    except NotFusable as reason:
        return [f"{names} left beside '{_join(slot)}': {reason}"]
    _set(module, slot, layer)
    for part in (*ahead, *behind):
        _set(module, part, nn.Identity().eval())
    return []


def fold_implicit_heads(module: nn.Module) -> list[str]:
    """Fold YOLOv7's heads: lists ``ia`` (before), ``m`` (1x1 convolutions) and ``im`` (after).

    Their forward assigns into a list and branches on sizes, so it cannot be traced; the names say
    the order. Returns what was left alone, one line each.
    """
    notes = []
    for path, head in module.named_modules():
        lists = [getattr(head, name, None) for name in ("ia", "m", "im")]
        if not all(isinstance(parts, nn.ModuleList) for parts in lists):
            continue
        for index, (add, layer, multiply) in enumerate(zip(*lists, strict=False)):
            if not (is_layer(layer) and is_scale_shift(add) and is_scale_shift(multiply)):
                continue
            try:
                head.m[index] = folded(layer, [add], [multiply])
            except NotFusable as reason:
                notes.append(
                    f"implicit layers left beside '{_join((path, f'm.{index}'))}': {reason}"
                )
                continue
            head.ia[index] = nn.Identity().eval()
            head.im[index] = nn.Identity().eval()
    return notes


def _unseen_notes(module: nn.Module, order: CallOrder) -> list[str]:
    """Modules whose order of calls stayed unknown although something could have been folded."""
    notes = []
    for path, reason in order.unseen.items():
        own = list(module.get_submodule(path).named_children())
        norms = [name for name, part in own if is_norm(part) and order.calls[path, name] == 0]
        if norms and any(is_layer(part) for _, part in own):
            notes.append(
                f"'{_join((path, norms[0]))}' left alone: the forward of "
                f"{type(module.get_submodule(path)).__name__} cannot be followed ({reason}); pass "
                f"example_inputs"
            )
    return notes


def _scale_shift(part: nn.Module, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``s`` and ``t`` of a norm or an implicit layer, float64 ``(channels,)``."""
    if is_norm(part):
        scale, shift = norm_scale_shift(part)
    else:
        scale, shift = _implicit_scale_shift(part)
    if scale.numel() not in (1, channels):
        raise NotFusable(f"{scale.numel()} channels do not fit {channels}")
    return scale.expand(channels), shift.expand(channels)


def _implicit_scale_shift(part: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """What a layer with a learned ``implicit`` does, told by trying it."""
    plain = double_copy(part)
    implicit = plain.implicit.detach()
    channels = implicit.numel()
    if implicit.shape not in ((1, channels, 1, 1), (channels, 1, 1)):
        raise NotFusable(f"its 'implicit' of shape {tuple(implicit.shape)} is not per channel")
    x = torch.randn(1, channels, 2, 2, dtype=torch.float64, generator=_generator())
    factor = implicit.reshape(1, -1, 1, 1)
    y = plain(x)
    value = part.implicit.detach().double().flatten()
    if torch.allclose(y, x + factor, rtol=1e-12, atol=1e-12):
        return torch.ones_like(value), value
    if torch.allclose(y, x * factor, rtol=1e-12, atol=1e-12):
        return value, torch.zeros_like(value)
    raise NotFusable("its 'implicit' is neither added nor multiplied")


def _inputs(layer: nn.Module) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def _output_axis(layer: nn.Module) -> int:
    return 1 if isinstance(layer, _ConvTransposeNd) else 0


def _along_outputs(
    layer: nn.Module, weight: torch.Tensor, scale: torch.Tensor, axis: int
) -> torch.Tensor:
    """``scale`` by output channel, shaped to multiply ``weight``.

    A transposed convolution's weight is (in, out / groups, taps...), its groups one after another
    along the inputs.
    """
    ones = [1] * (weight.dim() - 2)
    if axis == 0:
        return scale.reshape(-1, 1, *ones)
    rows = scale.reshape(layer.groups, -1).repeat_interleave(len(weight) // layer.groups, dim=0)
    return rows.reshape(len(weight), -1, *ones)


def _along_inputs(layer: nn.Module, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """``scale`` by input channel, shaped to multiply ``weight`` (out, in / groups, taps...)."""
    _refuse_transposed(layer)
    groups = getattr(layer, "groups", 1)
    rows = scale.reshape(groups, -1).repeat_interleave(len(weight) // groups, dim=0)
    return rows.reshape(len(weight), -1, *[1] * (weight.dim() - 2))


def _shift_through(layer: nn.Module, weight: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """What a constant added to the input channels becomes at the output, ``(out,)``."""
    padding = getattr(layer, "padding", 0)
    is_padded = padding != "valid" and any(padding if isinstance(padding, tuple) else (padding,))
    if is_padded or isinstance(layer, DeformConv2d):
        raise NotFusable("what it adds would not reach the padding, so borders differ")
    return (weight * _along_inputs(layer, weight, shift)).flatten(1).sum(1)


def _refuse_transposed(layer: nn.Module) -> None:
    if isinstance(layer, _ConvTransposeNd):
        raise NotFusable("a layer before a transposed convolution is not folded")


def _none_before(before: Sequence[nn.Module]) -> Sequence[nn.Module]:
    if before:
        raise NotFusable("a deformable convolution reads its input twice")
    return before


def _refuse_hooks(part: nn.Module) -> None:
    """Hooks may change what a module computes; weight_norm and spectral_norm are such."""
    if parametrize.is_parametrized(part) or part._forward_hooks or part._forward_pre_hooks:
        raise NotFusable(
            f"{type(part).__name__} has hooks or a parametrization; remove them first "
            f"(torch.nn.utils.remove_weight_norm, torch.nn.utils.parametrize)"
        )


def _with_parameters(layer: nn.Module, weight: torch.Tensor, bias: torch.Tensor) -> nn.Module:
    """A frozen twin of ``layer`` with these parameters, rounded to its dtype."""
    twin = copy.copy(layer)
    # a bias set to None before it was a parameter is an attribute, which would hide the parameter
    twin.__dict__.pop("bias", None)
    twin._parameters = {
        name: nn.Parameter(value.to(layer.weight.dtype), requires_grad=False)
        for name, value in (("weight", weight), ("bias", bias))
    }
    return twin


def _prove_folded(
    layer: nn.Module, before: Iterable[nn.Module], after: Iterable[nn.Module]
) -> None:
    """A subclass may use its weight in ways of its own, so the outcome is tried."""
    lead, tail = [double_copy(part) for part in before], [double_copy(part) for part in after]
    double = double_copy(layer)
    chain = nn.Sequential(*lead, double, *tail)
    exact = folded(double, lead, tail)
    axes = layer.weight.dim() - 2
    reach = [
        (size - 1) * step + 5 + axis
        for axis, (size, step) in enumerate(
            zip(layer.weight.shape[2:], getattr(layer, "dilation", ()), strict=False)
        )
    ][:axes]
    x = torch.randn(2, _inputs(layer), *reach, dtype=torch.float64, generator=_generator())
    prove_equal(chain, exact, [x])


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _join(slot: Slot) -> str:
    return ".".join(part for part in slot if part)


def _set(module: nn.Module, slot: Slot, part: nn.Module) -> None:
    setattr(module.get_submodule(slot[0]), slot[1], part)
