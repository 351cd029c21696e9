"""Deformable convolution as a PyTorch module that trains anywhere and exports to ONNX DeformConv.

For an output pixel ``p`` (row, column), tap ``k`` of the kernel and offset group ``d`` of the input
channel ``i``::

    y[n, o, p] = b[o] + sum_{i, k} w[o, i, k] * m[n, d, k, p]
                        * x[n, i, p * stride - padding + k * dilation + offset[n, d, k, :, p]]

``x`` between pixels is bilinear, beyond the map it is zero. Dai et al., "Deformable Convolutional
Networks", 2017, eq. 2-4; Zhu et al., "Deformable ConvNets v2", 2018, eq. 1. Argument order, offset
order (row and column interleaved, tap by tap) and border rule are those of
``torchvision.ops.deform_conv2d`` and of ONNX's DeformConv (opset 19).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from vkconv.errors import InvalidInputError

__all__ = ["DeformConv2d", "deform_conv2d"]

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


def deform_conv2d(
    x: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair | Pads = 0,
    dilation: int | Pair = 1,
    mask: torch.Tensor | None = None,
    groups: int | None = None,
) -> torch.Tensor:
    """The formula above; differentiable in every tensor, and one DeformConv node in an export.

    x       (N, C, H, W), float32 or float64
    offset  (N, D * 2 * kh * kw, out_h, out_w) in pixels: row, column of tap 0, of tap 1, ...
    weight  (M, C / groups, kh, kw), bias (M,)
    mask    (N, D * kh * kw, out_h, out_w), the modulation, or None for all ones
    padding one number, (rows, columns), or ONNX's (above, left, below, right)

    The number of offset groups ``D`` follows from the offset's channels, and ``groups``, where not
    given, from the weight's. Returns (N, M, out_h, out_w). Raises InvalidInputError for shapes that
    do not fit.
    """
    stride, pads, dilation = _pair(stride), _pads(padding), _pair(dilation)
    kernel = _sizes(weight)[2:]
    offset_groups = _sizes(offset)[1] // (2 * kernel[0] * kernel[1])
    if groups is None:
        groups = _sizes(x)[1] // _sizes(weight)[1]
    _check_shapes(x, offset, weight, mask, groups, stride, pads, dilation)
    if torch.onnx.is_in_onnx_export():
        attributes = {
            "strides": stride,
            "pads": pads,
            "dilations": dilation,
            "kernel_shape": kernel,
            "group": groups,
            "offset_group": offset_groups,
        }
        return _onnx_node(x, weight, offset, bias, mask, attributes)
    columns = _sample(x, offset, kernel, stride, pads, dilation, offset_groups)
    batch, channels, taps, height, width = columns.shape
    if mask is not None:
        modulation = mask.reshape(batch, offset_groups, 1, taps, height, width)
        columns = columns.view(batch, offset_groups, -1, taps, height, width) * modulation
    # What the taps found are channels of their own now, and the kernel a 1x1 over them.
    columns = columns.reshape(batch, channels * taps, height, width)
    return F.conv2d(columns, weight.reshape(weight.shape[0], -1, 1, 1), bias, groups=groups)


def _sample(
    x: torch.Tensor,
    offset: torch.Tensor,
    kernel: Sequence[int],
    stride: Pair,
    pads: Pads,
    dilation: Pair,
    offset_groups: int,
) -> torch.Tensor:
    """``x`` at every displaced tap: (N, C, kh * kw, out_h, out_w).

    grid_sample, being vectorised and differentiable, does the interpolation. Its coordinates are
    relative: with align_corners=False, pixel p of n lies at (2 p + 1) / n - 1.
    """
    batch, channels, height, width = x.shape
    out_height, out_width = offset.shape[2:]
    taps = kernel[0] * kernel[1]

    def undisplaced(axis: int, count: int) -> torch.Tensor:
        """Positions (kernel[axis], count) in pixels of the taps along one axis."""
        start = torch.arange(count, dtype=offset.dtype, device=x.device) * stride[axis]
        tap = torch.arange(kernel[axis], dtype=offset.dtype, device=x.device) * dilation[axis]
        return start - pads[axis] + tap[:, None]

    moves = offset.reshape(batch * offset_groups, kernel[0], kernel[1], 2, out_height, out_width)
    rows = moves[:, :, :, 0] + undisplaced(0, out_height)[:, None, :, None]
    columns = moves[:, :, :, 1] + undisplaced(1, out_width)[None, :, None, :]
    places = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)
    sampled = F.grid_sample(
        x.reshape(batch * offset_groups, channels // offset_groups, height, width),
        places.reshape(batch * offset_groups, taps * out_height, out_width, 2),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    return sampled.reshape(batch, channels, taps, out_height, out_width)


def _onnx_node(
    x: torch.Tensor,
    weight: torch.Tensor,
    offset: torch.Tensor,
    bias: torch.Tensor | None,
    mask: torch.Tensor | None,
    attributes: dict[str, Any],
) -> torch.Tensor:
    """One ONNX DeformConv node, under either exporter; its value is never looked at."""
    if torch.compiler.is_exporting():
        shape = (x.shape[0], weight.shape[0], offset.shape[2], offset.shape[3])
        inputs = (x, weight, offset, bias, mask) if mask is not None else (x, weight, offset, bias)
        return torch.onnx.ops.symbolic(
            "DeformConv", inputs, attributes, dtype=x.dtype, shape=shape, version=19
        )
    return _LegacyNode.apply(x, weight, offset, bias, mask, attributes)


class _LegacyNode(torch.autograd.Function):
    """What the TorchScript exporter records as DeformConv instead of tracing through."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        offset: torch.Tensor,
        bias: torch.Tensor | None,
        mask: torch.Tensor | None,
        attributes: dict[str, Any],
    ) -> torch.Tensor:
        return x.new_zeros(x.shape[0], weight.shape[0], offset.shape[2], offset.shape[3])

    @staticmethod
    def symbolic(
        g: Any, x: Any, weight: Any, offset: Any, bias: Any, mask: Any, attributes: dict[str, Any]
    ) -> Any:
        return deform_conv_symbolic(g, x, weight, offset, bias, mask, attributes)


def deform_conv_symbolic(
    g: Any, x: Any, weight: Any, offset: Any, bias: Any, mask: Any, attributes: dict[str, Any]
) -> Any:
    """The TorchScript exporter's node; InvalidInputError before opset 19, which brought it."""
    if g.opset < 19:
        raise InvalidInputError(
            f"ONNX has DeformConv since opset 19; export with opset_version=19 or later, not "
            f"{g.opset}"
        )
    if mask is not None and bias is None:
        # this exporter cannot leave out an input that another one follows
        bias = g.op("Constant", value_t=torch.zeros(weight.type().sizes()[0]))
    inputs = [value for value in (x, weight, offset, bias, mask) if value is not None]
    return g.op("DeformConv", *inputs, **{f"{name}_i": value for name, value in attributes.items()})


class DeformConv2d(nn.Module):
    """Deformable convolution with torchvision's semantics: ``forward(x, offset, mask=None)``.

    ``offset_groups`` None takes the number from the offset's channels at each call.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair | Pads = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        offset_groups: int | None = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise InvalidInputError(
                f"groups={groups} does not divide {in_channels} input and {out_channels} output "
                f"channels"
            )
        if offset_groups is not None and (offset_groups < 1 or in_channels % offset_groups):
            raise InvalidInputError(
                f"offset_groups={offset_groups} does not divide {in_channels} input channels"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = _pair(kernel_size), _pair(stride)
        self.dilation = _pair(dilation)
        self.padding = (padding, padding) if isinstance(padding, int) else tuple(padding)
        self.groups, self.offset_groups = groups, offset_groups
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels // groups, *self.kernel_size)
        )
        self.register_parameter("bias", nn.Parameter(torch.empty(out_channels)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The initial values nn.Conv2d has."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(
        self, x: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(N, C, H, W), offsets and modulation as in :func:`deform_conv2d`, to (N, M, out...)."""
        taps = self.kernel_size[0] * self.kernel_size[1]
        found = _sizes(offset)[1]
        if self.offset_groups is not None and found != self.offset_groups * 2 * taps:
            raise InvalidInputError(
                f"the offset has {found} channels; {self.offset_groups} offset groups of "
                f"{taps} taps need {self.offset_groups * 2 * taps}"
            )
        return deform_conv2d(
            x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask,
            self.groups,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}, offset_groups={self.offset_groups}, "
            f"bias={self.bias is not None}"
        )


def _pair(value: int | Pair) -> Pair:
    """The same number for both axes, or the two given."""
    if isinstance(value, int):
        return value, value
    rows, columns = value
    return rows, columns


def _pads(padding: int | Pair | Pads) -> Pads:
    """Rows above, columns left, rows below, columns right."""
    if isinstance(padding, int):
        return padding, padding, padding, padding
    return (*padding, *padding) if len(padding) == 2 else padding


def _check_shapes(
    x: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    mask: torch.Tensor | None,
    groups: int,
    stride: Pair,
    pads: Pads,
    dilation: Pair,
) -> None:
    """InvalidInputError naming the tensor whose shape does not fit."""
    channels, *size = _sizes(x)[1:]
    offset_channels, *found = _sizes(offset)[1:]
    outputs, group_channels, *kernel = _sizes(weight)
    taps = kernel[0] * kernel[1]
    if channels != group_channels * groups or outputs % groups:
        raise InvalidInputError(
            f"an input of {channels} channels, a weight of shape {_sizes(weight)} and "
            f"groups={groups} do not fit"
        )
    parts, surplus = divmod(offset_channels, 2 * taps)
    if surplus or parts < 1 or channels % parts:
        raise InvalidInputError(
            f"the offset has {offset_channels} channels; a kernel of {taps} taps over {channels} "
            f"channels needs {2 * taps} for each offset group, and the groups to divide the "
            f"channels"
        )
    wanted = [
        (extent + before + after - step * (reach - 1) - 1) // move + 1
        for extent, before, after, step, reach, move in zip(
            size, pads[:2], pads[2:], dilation, kernel, stride, strict=True
        )
    ]
    # Sizes left open in an export would be compared as formulas, and pinned down by that.
    if not torch.compiler.is_exporting() and found != wanted:
        raise InvalidInputError(
            f"the offset has size {tuple(found)}; this convolution's output has {tuple(wanted)}"
        )
    if mask is not None and _sizes(mask)[1] * 2 != offset_channels:
        raise InvalidInputError(
            f"the mask has {_sizes(mask)[1]} channels; an offset of {offset_channels} channels "
            f"goes with {offset_channels // 2}"
        )


def _sizes(tensor: torch.Tensor) -> tuple[int, ...]:
    """The shape in plain numbers; under the TorchScript tracer it would be tensors."""
    if not torch.jit.is_tracing():
        return tuple(tensor.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return tuple(int(size) for size in tensor.shape)
