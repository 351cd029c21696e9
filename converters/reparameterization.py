"""Training-time structure collapsed into plain convolutions.

A block trains as a sum of branches, each with its batch norm; once the statistics are frozen all of
it is linear, and a sum of convolutions of one geometry is one convolution::

    y = act(BN_d(Conv_kxk(x)) + BN_1(Conv_1x1(x)) + BN_id(x))   ->   y = act(Conv_kxk(x))

Blocks are told by their structure and attribute names, whatever package they come from
(:mod:`vkconv.converters.blocks`). Nothing is replaced on its looks alone: a block of branches is
run before and after on random numbers, a batch norm is folded into a layer it is seen to follow.
What stays as it is, is told by one warning naming it. Arithmetic is float64, rounded once to the
dtype of the weights.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import nn

from vkconv.converters.blocks.affine_map import NotFusable, identity_kernel, is_norm
from vkconv.converters.blocks.branches import collapse, family_of
from vkconv.converters.blocks.chains import fold_chains, fold_implicit_heads, folded
from vkconv.converters.blocks.deformable_forms import replacement
from vkconv.errors import InvalidInputError

__all__ = ["fuse_conv_norm", "identity_kernel", "reparameterize"]


def reparameterize(
    module: nn.Module, *, inplace: bool = False, example_inputs: Any = None
) -> nn.Module:
    """``module`` with its branches, batch norms and implicit layers folded into convolutions.

    * RepConv, RepVGGBlock, ACBlock and DiverseBranchBlock take the deploy form their code knows:
      ``rbr_reparam``, ``fused_conv``, ``dbb_reparam``, with ``deploy = True``.
    * A batch norm or implicit layer goes into the convolution, transposed convolution, deformable
      convolution or linear layer beside it, and an ``nn.Identity`` is left in its place. A linear
      layer before a batch norm is taken to be fed (batch, features).
    * Deformable convolutions of torchvision, mmcv and the plain gather-based module become
      :class:`vkconv.converters.DeformConv2d`, which exports.

    Works on a copy unless ``inplace``; use what is returned in any case (a module that is itself a
    deformable convolution cannot be changed where it is). Idempotent. ``example_inputs``, a tensor,
    a tuple of arguments or a dict of named ones, are run where the code of a forward is too
    dynamic to tell which module follows which. A block that cannot be folded exactly stays, with a
    RuntimeWarning naming it and the reason.

    Raises InvalidInputError for a module in training mode, for a batch norm without running
    statistics and for a module that cannot be copied.
    """
    module, notes = reparameterized(module, inplace=inplace, example_inputs=example_inputs)
    for note in notes:
        warnings.warn(f"reparameterize: {note}", RuntimeWarning, stacklevel=2)
    return module


@torch.no_grad()
def reparameterized(
    module: nn.Module, *, inplace: bool = False, example_inputs: Any = None
) -> tuple[nn.Module, list[str]]:
    """The same, with what would be warned of: one line for everything left as it is."""
    check_frozen(module, "reparameterize")
    if not inplace:
        module = copied(module)
    notes = []
    for path, block in module.named_modules():
        family = family_of(block)
        if family is not None:
            try:
                collapse(block, family)
            except NotFusable as reason:
                notes.append(f"{family.name} {_called(path)} left as it is: {reason}")
    module, left = _exchange_deformable(module)
    notes += [*left, *fold_chains(module, example_inputs), *fold_implicit_heads(module)]
    return module, notes


def fuse_conv_norm(convolution: nn.Module, norm: nn.Module) -> nn.Module:
    """One biased, frozen layer equal to ``norm(convolution(x))``; its arguments stay as they are.

    ``convolution`` is a (transposed, deformable) convolution or a linear layer in eval mode. Raises
    InvalidInputError where that cannot be.
    """
    check_frozen(convolution, "fuse_conv_norm")
    check_frozen(norm, "fuse_conv_norm")
    try:
        return folded(convolution, [], [norm])
    except NotFusable as reason:
        raise InvalidInputError(f"fuse_conv_norm: {reason}") from None


def check_frozen(module: nn.Module, caller: str) -> None:
    """InvalidInputError unless the module computes the same whatever else is in the batch."""
    training = [path for path, part in module.named_modules() if part.training]
    if training:
        raise InvalidInputError(
            f"{caller} needs a module in eval mode; call .eval() first ({len(training)} of its "
            f"modules are in training mode, the first is {_called(training[0])})"
        )
    for path, part in module.named_modules():
        if is_norm(part) and (part.running_mean is None or part.running_var is None):
            raise InvalidInputError(
                f"{_called(path)} is a batch norm without running statistics "
                f"(track_running_stats=False): its output depends on the batch; train it with "
                f"statistics, or replace it by a GroupNorm"
            )


def _called(path: str) -> str:
    return f"'{path}'" if path else "(the module itself)"


def copied(module: nn.Module) -> nn.Module:
    """A deep copy; InvalidInputError, naming the cause, where the module allows none."""
    try:
        return copy.deepcopy(module)
    except Exception as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InvalidInputError(
            f"{type(module).__name__} cannot be copied ({cause}); call reparameterize with "
            f"inplace=True"
        ) from error


def _exchange_deformable(module: nn.Module) -> tuple[nn.Module, list[str]]:
    """Replace every deformable convolution; the module, and what was left, one line each."""
    made: dict[int, nn.Module] = {}
    notes = []
    for path, part in module.named_modules():
        try:
            new = replacement(part)
        except NotFusable as reason:
            notes.append(f"deformable convolution {_called(path)} left as it is: {reason}")
            continue
        if new is not None:
            made[id(part)] = new
    if id(module) in made:
        return made[id(module)], notes
    for owner in list(module.modules()):
        for name, part in list(owner._modules.items()):
            if part is not None and id(part) in made:
                setattr(owner, name, made[id(part)])
    return module, notes
