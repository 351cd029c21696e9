"""Modules as after training, and how far two of them are apart."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vkconv.converters.blocks.proof import nmse

__all__ = ["apart", "convolutions", "norms", "scramble"]


def scramble(module: nn.Module, seed: int) -> nn.Module:
    """Random batch-norm statistics and scales, as after training; eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            size = part.running_mean.shape
            part.running_mean.copy_(torch.randn(size, generator=generator))
            part.running_var.copy_(torch.rand(size, generator=generator) * 3 + 0.05)
            if part.weight is not None:
                part.weight.data.copy_(torch.randn(size, generator=generator))
                part.bias.data.copy_(torch.randn(size, generator=generator))
    return module.eval()


@torch.no_grad()
def apart(found: nn.Module, trained: nn.Module, *inputs: torch.Tensor) -> float:
    """NMSE of the float32 form against the trained form in float64."""
    wanted = copy.deepcopy(trained).double()(*(x.double() for x in inputs))
    return nmse(found(*inputs), wanted)


def convolutions(module: nn.Module) -> int:
    return sum(isinstance(part, nn.Conv2d) for part in module.modules())


def norms(module: nn.Module) -> int:
    return sum(isinstance(part, _BatchNorm) for part in module.modules())
