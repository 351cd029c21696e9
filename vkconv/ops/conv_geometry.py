"""What Conv and ConvTranspose share: attributes per spatial axis, padding, output sizes."""

from __future__ import annotations

from collections.abc import Sequence

from vkconv.errors import InvalidModelError
from vkconv.ir import Value
from vkconv.ops.window import Axis, check_auto_pad, same_padding


def per_axis(
    name: str, values: Sequence[int] | None, count: int, default: int, least: int
) -> tuple[int, ...]:
    """An attribute with one number per axis; missing or empty means ``default`` everywhere."""
    if not values:
        return (default,) * count
    if len(values) != count or min(values) < least:
        raise InvalidModelError(
            f"attribute '{name}' is {list(values)}; expected {count} numbers >= {least}"
        )
    return tuple(values)


def check_operands(x: Value, weight: Value, kernel_shape: Sequence[int] | None) -> tuple[int, ...]:
    """Ranks and kernel_shape agree; returns the kernel's spatial shape."""
    if len(x.dims) < 3 or len(weight.dims) != len(x.dims):
        raise InvalidModelError(
            f"input of shape {x.dims} and weights of shape {weight.dims} do not fit each other"
        )
    if weight.dtype != x.dtype:
        raise InvalidModelError(f"input of {x.dtype} and weights of {weight.dtype} do not fit")
    kernel = weight.dims[2:]
    if kernel_shape and tuple(kernel_shape) != kernel:
        raise InvalidModelError(
            f"attribute 'kernel_shape' is {list(kernel_shape)}, the weights have {list(kernel)}"
        )
    if min(kernel) < 1 or min(weight.dims) < 1:
        raise InvalidModelError(f"weights of shape {weight.dims} are empty")
    return kernel


def conv_axes(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int] | None,
    pads: Sequence[int] | None,
    dilations: Sequence[int] | None,
    auto_pad: str,
) -> tuple[Axis, ...]:
    """Sizes: out = floor((in + pads - extent) / stride) + 1; SAME_*: ceil(in / stride). Raises
    InvalidModelError."""
    rank = len(sizes)
    stride = per_axis("strides", strides, rank, 1, 1)
    dilation = per_axis("dilations", dilations, rank, 1, 1)
    padding = per_axis("pads", pads, 2 * rank, 0, -(2**31))
    check_auto_pad(auto_pad)
    axes = []
    for i, size in enumerate(sizes):
        extent = (kernel[i] - 1) * dilation[i] + 1
        begin, end = (0, 0) if auto_pad == "VALID" else (padding[i], padding[rank + i])
        if auto_pad.startswith("SAME"):
            begin, end = same_padding(size, stride[i], extent, auto_pad)
        room = size + begin + end - extent
        if room < 0:
            raise InvalidModelError(
                f"a kernel of extent {extent} does not fit into size {size} padded by "
                f"({begin}, {end})"
            )
        axes.append(
            Axis(size, room // stride[i] + 1, kernel[i], stride[i], dilation[i], begin, end)
        )
    return tuple(axes)


def transpose_axes(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int] | None,
    pads: Sequence[int] | None,
    dilations: Sequence[int] | None,
    auto_pad: str,
    output_padding: Sequence[int] | None,
    output_shape: Sequence[int] | None,
) -> tuple[Axis, ...]:
    """Sizes: out = stride (in - 1) + output_padding + extent - pads, or pads from output_shape.

    As the standard's ConvTranspose says: with output_shape, total padding = stride (in - 1) +
    output_padding + extent - output_shape, the odd one at the end for SAME_UPPER and at the
    beginning otherwise; SAME_* without output_shape means output_shape = in * stride.
    """
    rank = len(sizes)
    stride = per_axis("strides", strides, rank, 1, 1)
    dilation = per_axis("dilations", dilations, rank, 1, 1)
    padding = per_axis("pads", pads, 2 * rank, 0, -(2**31))
    extra = per_axis("output_padding", output_padding, rank, 0, 0)
    check_auto_pad(auto_pad)
    wanted: Sequence[int] | None = output_shape or None
    if wanted is not None:
        wanted = tuple(wanted)[-rank:]
    elif auto_pad.startswith("SAME"):
        wanted = tuple(size * s for size, s in zip(sizes, stride, strict=True))
    axes = []
    for i, size in enumerate(sizes):
        extent = (kernel[i] - 1) * dilation[i] + 1
        full = stride[i] * (size - 1) + extra[i] + extent
        begin, end = (0, 0) if auto_pad == "VALID" else (padding[i], padding[rank + i])
        if wanted is not None:
            total = max(0, full - wanted[i])
            begin = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
            end = full - wanted[i] - begin
        out = full - begin - end
        if out < 1:
            raise InvalidModelError(
                f"padding ({begin}, {end}) leaves nothing of an output of size {full}"
            )
        axes.append(Axis(size, out, kernel[i], stride[i], dilation[i], begin, end))
    return tuple(axes)
