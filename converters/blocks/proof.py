"""Two modules compared on random numbers, in float64."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from vkconv.converters.blocks.affine_map import NotFusable

__all__ = ["LARGEST_NMSE", "double_copy", "nmse", "prove_equal"]

# What float64 leaves of a rewriting that is exact: rounding errors of about 1e-16, squared, times
# the cancellation that extreme statistics bring about.
LARGEST_NMSE = 1e-18


def double_copy(module: nn.Module) -> nn.Module:
    """A copy of its own in float64 on the CPU."""
    return copy.deepcopy(module).double().cpu()


def nmse(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Mean squared error over the mean square of ``wanted``; infinite for unlike shapes."""
    if found.shape != wanted.shape:
        return float("inf")
    found, wanted = found.double(), wanted.double()
    error = float((found - wanted).square().sum())
    return error / max(float(wanted.square().sum()), 1e-300) if error else 0.0


@torch.no_grad()
def prove_equal(before: nn.Module, after: nn.Module, inputs: Sequence[torch.Tensor]) -> None:
    """NotFusable, with the reason, unless both give the same on ``inputs`` (all float64)."""
    try:
        wanted = before(*(x.clone() for x in inputs))
    except Exception as error:
        raise NotFusable(f"it cannot be run on a random input ({_brief(error)})") from error
    try:
        found = after(*(x.clone() for x in inputs))
    except Exception as error:
        raise NotFusable(f"it does not run in its fused form ({_brief(error)})") from error
    if not isinstance(wanted, torch.Tensor) or not isinstance(found, torch.Tensor):
        raise NotFusable("it does not return one tensor")
    error = nmse(found, wanted)
    if not error <= LARGEST_NMSE:
        raise NotFusable(f"its fused form does not compute the same (NMSE {error:.1e})")


def _brief(error: Exception) -> str:
    """An error in one line of bearable length."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 160 else text[:157] + "..."
