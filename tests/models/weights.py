"""Random weights under which activations keep their size, whatever the depth."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


def build(make: Callable[[], nn.Module], seed: int, slope: float = 0.0) -> nn.Module:
    """``make()`` in evaluation mode with weights drawn from ``seed``, the same in every process.

    ``slope`` is that of the (leaky) rectifiers behind the layers. The module is made without
    memory first: the initial weights that torch would draw cost seconds in a large net.
    """
    with torch.device("meta"):
        module = make()
    module = module.to_empty(device="cpu").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            _fill_norm(part, generator)
        elif isinstance(part, nn.GroupNorm | nn.LayerNorm):
            part.weight.uniform_(0.5, 1.1, generator=generator)
            part.bias.normal_(0, 0.2, generator=generator)
        elif isinstance(part, nn.Embedding):
            part.weight.normal_(0, 1, generator=generator)
        elif isinstance(part, nn.MultiheadAttention):
            # queries and keys large enough for the attention to choose
            part.in_proj_weight.normal_(0, 1.5 / math.sqrt(part.embed_dim), generator=generator)
            part.in_proj_bias.normal_(0, 0.1, generator=generator)
        elif isinstance(part, Drawn):
            part.draw(generator)
        elif isinstance(part, _ConvNd | nn.Linear):
            deviation = math.sqrt(2 / (1 + slope**2) / _terms(part))
            part.weight.normal_(0, deviation, generator=generator)
            if part.bias is not None:
                part.bias.normal_(0, 0.1, generator=generator)
    return module


class Drawn(nn.Module):
    """A module with parameters of its own, which it fills itself."""

    def draw(self, generator: torch.Generator) -> None:
        raise NotImplementedError


def _terms(layer: _ConvNd | nn.Linear) -> float:
    """How many products are summed into one output (He et al. 2015)."""
    if isinstance(layer, _ConvTransposeNd):
        inputs, _, *kernel = layer.weight.shape
        return inputs / layer.groups * math.prod(kernel) / math.prod(layer.stride)
    return float(math.prod(layer.weight.shape[1:]))


def _fill_norm(norm: _BatchNorm, generator: torch.Generator) -> None:
    """Every one of the four vectors moves the result: none is at a value that hides a mistake."""
    norm.running_mean.normal_(0, 0.3, generator=generator)
    norm.running_var.uniform_(0.5, 1.5, generator=generator)
    norm.weight.uniform_(0.5, 1.1, generator=generator)
    norm.bias.normal_(0, 0.2, generator=generator)
    norm.num_batches_tracked.zero_()
