"""Collapse training-time structure into plain convolutions (RepVGG, Ding et al. 2021).

A RepConv block trains as a sum of up to three branches, each ending in its own batch norm::

    y = act(BN_d(Conv_kxk(x)) + BN_1(Conv_1x1(x)) + BN_id(x))

Every branch is linear once the batch statistics are frozen, and a sum of convolutions with the
same stride and groups is one convolution, so at inference the block is ``act(Conv_kxk(x))``.

Notation, for one output channel ``o`` with batch-norm scale ``gamma``, shift ``beta``, running
mean ``mean`` and variance ``var``::

    BN(W x + b) = (W x + b - mean) * gamma / sqrt(var + eps) + beta
                =  W' x + b'
    W' = W * gamma / sqrt(var + eps)
    b' = beta + (b - mean) * gamma / sqrt(var + eps)

All arithmetic runs in float64 and is rounded once, to the dtype of the original weights.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

__all__ = ["fuse_conv_norm", "identity_kernel", "reparameterize"]


def _folded(
    weight: torch.Tensor, bias: torch.Tensor | None, norm: nn.BatchNorm2d
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fold ``norm`` into a kernel ``(out, in / groups, kh, kw)`` and bias ``(out,)``, in float64.

    Implements ``W' = W * gamma / sqrt(var + eps)`` and
    ``b' = beta + (b - mean) * gamma / sqrt(var + eps)``.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError(
            "cannot fold a batch norm without running statistics (track_running_stats=False): "
            "its output depends on the batch"
        )
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    gamma = torch.ones_like(mean) if norm.weight is None else norm.weight.double()
    beta = torch.zeros_like(mean) if norm.bias is None else norm.bias.double()
    scale = gamma / torch.sqrt(variance + norm.eps)
    offset = torch.zeros_like(mean) if bias is None else bias.double()
    return weight.double() * scale[:, None, None, None], beta + (offset - mean) * scale


def identity_kernel(
    channels: int, groups: int, kernel_size: tuple[int, int], like: torch.Tensor
) -> torch.Tensor:
    """The kernel ``(channels, channels / groups, kh, kw)`` whose convolution returns its input.

    Output channel ``i`` reads input channel ``i``, which inside its group has the index
    ``i mod (channels / groups)``; the 1 sits at the centre tap, everything else is 0.
    """
    per_group = channels // groups
    height, width = kernel_size
    kernel = torch.zeros((channels, per_group, height, width), dtype=like.dtype, device=like.device)
    index = torch.arange(channels, device=like.device)
    kernel[index, index % per_group, height // 2, width // 2] = 1.0
    return kernel


def _plain_copy(source: nn.Conv2d, weight: torch.Tensor, bias: torch.Tensor) -> nn.Conv2d:
    """A biased convolution with the geometry of ``source`` and the given parameters."""
    convolution = nn.Conv2d(
        source.in_channels,
        source.out_channels,
        source.kernel_size,
        source.stride,
        source.padding,
        source.dilation,
        source.groups,
        bias=True,
        padding_mode=source.padding_mode,
        device=source.weight.device,
        dtype=source.weight.dtype,
    )
    convolution.weight.data.copy_(weight)
    convolution.bias.data.copy_(bias)
    return convolution.requires_grad_(False).eval()


def fuse_conv_norm(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """One biased convolution equal to ``norm(convolution(x))`` with frozen statistics."""
    if convolution.training or norm.training:
        raise ValueError("fusing needs frozen batch statistics: call .eval() on the module first")
    return _plain_copy(convolution, *_folded(convolution.weight, convolution.bias, norm))


def _is_rep_conv(module: nn.Module) -> bool:
    """Whether ``module`` follows the RepConv layout, by its attributes rather than its class."""
    return all(hasattr(module, name) for name in ("rbr_dense", "rbr_1x1", "rbr_identity"))


def _collapse_rep_conv(block: nn.Module) -> None:
    """Replace the branches of one RepConv by the single convolution ``rbr_reparam``.

    The 1x1 kernel is a kxk kernel that is zero but at its centre, and the identity is the kernel
    of :func:`identity_kernel`; after folding each branch's batch norm the kernels and biases of
    the branches simply add up.
    """
    dense, dense_norm = block.rbr_dense
    point, point_norm = block.rbr_1x1
    height, width = dense.kernel_size
    if dense.padding != (height // 2, width // 2) or height % 2 == 0 or width % 2 == 0:
        raise ValueError(
            f"a RepConv needs an odd kernel with 'same' padding so that its branches line up, "
            f"got kernel {dense.kernel_size} with padding {dense.padding}"
        )
    weight, bias = _folded(dense.weight, dense.bias, dense_norm)
    point_weight, point_bias = _folded(point.weight, point.bias, point_norm)
    weight[:, :, height // 2, width // 2] += point_weight[:, :, 0, 0]
    bias = bias + point_bias
    if block.rbr_identity is not None:
        kernel = identity_kernel(dense.in_channels, dense.groups, dense.kernel_size, weight)
        identity_weight, identity_bias = _folded(kernel, None, block.rbr_identity)
        weight, bias = weight + identity_weight, bias + identity_bias
    block.rbr_reparam = _plain_copy(dense, weight, bias)
    del block.rbr_dense, block.rbr_1x1, block.rbr_identity
    block.deploy = True


@torch.no_grad()
def reparameterize(module: nn.Module, *, inplace: bool = False) -> nn.Module:
    """Return ``module`` with every RepConv and every conv + batch-norm pair made one convolution.

    * A RepConv is any submodule with ``rbr_dense``, ``rbr_1x1`` and ``rbr_identity``; it ends up
      with ``rbr_reparam`` and ``deploy = True``.
    * A pair is any submodule with a Conv2d ``conv`` and a BatchNorm2d ``bn``; ``conv`` becomes
      the fused convolution and ``bn`` an ``nn.Identity``.

    The module must be in eval mode: with batch statistics still moving there is no constant
    kernel to fold them into. Works on a copy unless ``inplace``; calling it again on a collapsed
    module changes nothing.

    Raises:
        ValueError: a submodule is in training mode.
    """
    training = [name or "<root>" for name, part in module.named_modules() if part.training]
    if training:
        raise ValueError(
            f"reparameterize needs a module in eval mode; call .eval() first "
            f"({len(training)} submodules are in training mode, the first is {training[0]!r})"
        )
    if not inplace:
        module = copy.deepcopy(module)
    for block in list(module.modules()):
        if _is_rep_conv(block):
            _collapse_rep_conv(block)
        elif isinstance(getattr(block, "conv", None), nn.Conv2d) and isinstance(
            getattr(block, "bn", None), nn.BatchNorm2d
        ):
            block.conv = fuse_conv_norm(block.conv, block.bn)
            block.bn = nn.Identity().eval()
    return module
