"""Convolutions as data: what branches of linear layers add up and compose to.

An :class:`AffineMap` is ``y = W * x + b`` with ``*`` a convolution of given geometry. Notation for
a batch norm with scale ``gamma``, shift ``beta`` and frozen statistics ``mean``, ``var``::

    BN(x) = x s + t,   s = gamma / sqrt(var + eps),   t = beta - mean s
    BN(W * x + b) = (W s) * x + (b s + t)

All numbers are float64; who writes them into a layer rounds once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vkconv.errors import InvalidInputError

__all__ = ["AffineMap", "NotFusable", "identity_kernel", "is_norm", "norm_scale_shift"]


class NotFusable(Exception):
    """Why a block stays as it is; a report names the block and this reason."""


def is_norm(module: nn.Module) -> bool:
    """Whether this is a batch norm (SyncBatchNorm and frozen ones too), by what it holds."""
    if isinstance(module, _BatchNorm):
        return True
    held = ("weight", "bias", "running_mean", "running_var")
    return "BatchNorm" in type(module).__name__ and all(hasattr(module, name) for name in held)


def norm_scale_shift(norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """``s`` and ``t`` of the formula above, float64 ``(channels,)``.

    Raises InvalidInputError for a norm without running statistics.
    """
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise InvalidInputError(
            "a batch norm without running statistics (track_running_stats=False) cannot be folded: "
            "its output depends on the batch"
        )
    mean, variance = mean.detach().double(), variance.detach().double()
    eps = getattr(norm, "eps", 1e-5)
    gamma = torch.ones_like(mean) if norm.weight is None else norm.weight.detach().double()
    beta = torch.zeros_like(mean) if norm.bias is None else norm.bias.detach().double()
    scale = gamma / torch.sqrt(variance + eps)
    return scale, beta - mean * scale


def identity_kernel(
    channels: int, groups: int, kernel_size: tuple[int, ...], like: torch.Tensor
) -> torch.Tensor:
    """The kernel ``(channels, channels / groups, *kernel_size)`` that returns its input.

    Output channel ``i`` reads input channel ``i``, which inside its group has the index
    ``i mod (channels / groups)``; the 1 sits at the centre tap, everything else is 0.
    """
    per_group = channels // groups
    kernel = torch.zeros((channels, per_group, *kernel_size), dtype=like.dtype, device=like.device)
    index = torch.arange(channels, device=like.device)
    kernel[(index, index % per_group, *(size // 2 for size in kernel_size))] = 1.0
    return kernel


@dataclass(frozen=True)
class AffineMap:
    """A convolution over two axes.

    weight   (out, in / groups, kh, kw), float64; bias (out,)
    padding  may be negative: that many rows or columns of the input are cut off instead
    """

    weight: torch.Tensor
    bias: torch.Tensor
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1
    padding_mode: str = "zeros"

    @classmethod
    def of(cls, convolution: nn.Conv2d) -> AffineMap:
        """The map an nn.Conv2d applies; NotFusable for padding given as a word."""
        if isinstance(convolution.padding, str):
            raise NotFusable(f"its padding is given as {convolution.padding!r}, not as numbers")
        weight = convolution.weight.detach().double()
        bias = convolution.bias
        return cls(
            weight,
            weight.new_zeros(len(weight)) if bias is None else bias.detach().double(),
            convolution.stride,
            convolution.padding,
            convolution.dilation,
            convolution.groups,
            convolution.padding_mode,
        )

    @classmethod
    def identity(cls, channels: int, groups: int, like: torch.Tensor) -> AffineMap:
        """``y = x`` as a 1x1 convolution."""
        kernel = identity_kernel(channels, groups, (1, 1), like.new_zeros(0).double())
        return cls(kernel, kernel.new_zeros(channels), groups=groups)

    @classmethod
    def mean(cls, pool: nn.AvgPool2d, channels: int, groups: int, like: torch.Tensor) -> AffineMap:
        """Average pooling: each channel's own taps all ``1 / taps``."""
        height, width = _pair(pool.kernel_size)
        padding = _pair(pool.padding)
        if any(padding) and not pool.count_include_pad:
            raise NotFusable("its average pooling does not count the padding, so borders differ")
        if pool.ceil_mode:
            raise NotFusable("its average pooling rounds sizes up (ceil_mode)")
        kernel = identity_kernel(channels, groups, (1, 1), like.new_zeros(0).double())
        kernel = kernel.expand(-1, -1, height, width) / (pool.divisor_override or height * width)
        return cls(kernel, kernel.new_zeros(channels), _pair(pool.stride), padding, groups=groups)

    def scaled(self, scale: torch.Tensor, shift: torch.Tensor) -> AffineMap:
        """``self`` followed by ``y s + t`` for each output channel."""
        weight = self.weight * scale[:, None, None, None]
        return replace(self, weight=weight, bias=self.bias * scale + shift)

    def padded(self, pixels: int) -> AffineMap:
        """``self`` applied to a zero-padded input, ``pixels`` more on each side."""
        return replace(self, padding=tuple(pad + pixels for pad in self.padding))

    def then(self, second: AffineMap) -> AffineMap:
        """``second(self(x))`` for a 1x1 ``self``: the channels mix first, the taps follow.

        W[o, i] = sum over m of W2[o, m] W1[m, i];  b = b2 + sum over taps and m of W2[o, m] b1[m]
        """
        if tuple(self.weight.shape[2:]) != (1, 1) or self.stride != (1, 1):
            raise NotFusable("its first convolution is not 1x1 with stride 1")
        if any(second.padding) and bool(self.bias.any()):
            # the padding of the second is 0, the first would have made it its bias
            raise NotFusable("its padding lies behind a shift, so borders differ")
        if self.groups != second.groups:
            raise NotFusable("its convolutions have different groups")
        groups, outputs = self.groups, len(second.weight)
        first = self.weight.reshape(groups, -1, self.weight.shape[1])
        taps = second.weight.reshape(
            groups, outputs // groups, first.shape[1], *second.weight.shape[2:]
        )
        weight = torch.einsum("gomyx,gmi->goiyx", taps, first).flatten(0, 1)
        shift = torch.einsum("gomyx,gm->go", taps, self.bias.reshape(groups, -1)).flatten()
        padding = tuple(a + b for a, b in zip(self.padding, second.padding, strict=True))
        return replace(second, weight=weight, bias=second.bias + shift, padding=padding)

    def embedded(self, frame: AffineMap) -> AffineMap:
        """The same map with the kernel size and padding of ``frame``, zeros around its taps.

        A tap at index ``t`` reads ``t dilation - padding``, so inside the frame's kernel it has the
        index ``t + (frame.padding - padding) / dilation``. NotFusable where that does not fit.
        """
        if self.stride != frame.stride or self.groups != frame.groups:
            raise NotFusable("its branches differ in stride or groups")
        if self.padding_mode != frame.padding_mode and any(self.padding):
            raise NotFusable("its branches differ in padding mode")
        kernel = torch.zeros_like(frame.weight[:, : self.weight.shape[1]])
        places = []
        for axis in (0, 1):
            size, room = self.weight.shape[2 + axis], frame.weight.shape[2 + axis]
            step = frame.dilation[axis]
            start, rest = divmod(frame.padding[axis] - self.padding[axis], step)
            lost = 2 * (frame.padding[axis] - self.padding[axis]) != step * (room - size)
            if (size > 1 and self.dilation[axis] != step) or rest or lost or start < 0:
                raise NotFusable(
                    f"its branches do not line up: kernel {tuple(self.weight.shape[2:])} with "
                    f"padding {self.padding} against kernel {tuple(frame.weight.shape[2:])} with "
                    f"padding {frame.padding}"
                )
            places.append(slice(start, start + size))
        kernel[:, :, places[0], places[1]] = self.weight
        return replace(frame, weight=kernel, bias=self.bias)

    def plus(self, other: AffineMap) -> AffineMap:
        """``self(x) + other(x)``; ``other`` is embedded in the kernel of ``self``."""
        other = other.embedded(self)
        return replace(self, weight=self.weight + other.weight, bias=self.bias + other.bias)

    def layer(self, like: torch.Tensor) -> nn.Conv2d:
        """The map as a frozen layer, rounded once to the dtype of ``like``."""
        outputs, per_group, *kernel_size = self.weight.shape
        layer = nn.Conv2d(
            per_group * self.groups,
            outputs,
            tuple(kernel_size),
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            bias=True,
            padding_mode=self.padding_mode,
            device=like.device,
            dtype=like.dtype,
        )
        layer.weight.data.copy_(self.weight)
        layer.bias.data.copy_(self.bias)
        return layer.requires_grad_(False).eval()


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
