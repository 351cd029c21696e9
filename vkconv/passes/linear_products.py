"""Convolutions and matrix products of constants, as linear maps; and where a window lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from vkconv.ir import Array, Node, Value
from vkconv.ops.conv_geometry import conv_axes, per_axis
from vkconv.passes.linear_map import LinearMap, largest
from vkconv.passes.linear_spaces import Space
from vkconv.passes.linear_window import Taps, Window, unit_window


@dataclass(frozen=True)
class Reading:
    """A node as a map of one of its inputs. ``text``: what it does to {}, in a formula."""

    x: Value
    map: LinearMap
    text: str


def read_convolution(node: Node, spaces: dict[Value, Space]) -> Reading | None:
    given = _weights(node)
    if given is None or node.inputs[0] is None:
        return None
    weights, bias = given
    group = int(node.attributes.get("group", 1))
    kernel_shape = tuple(weights.shape[2:])
    if weights.ndim < 3 or weights.size == 0 or group < 1 or weights.shape[0] % group:
        return None
    if tuple(node.attributes.get("kernel_shape") or kernel_shape) != kernel_shape:
        return None
    transposed = node.op_type == "ConvTranspose"
    inputs, outputs = weights.shape[1] * group, weights.shape[0]
    if transposed:
        inputs, outputs = outputs, inputs
    if bias is not None and bias.shape != (outputs,):
        return None
    if transposed:
        window = _transposed_window(node, kernel_shape)
    else:
        window = conv_window(node, kernel_shape)
    shape = (group, inputs // group, outputs // group, *kernel_shape)

    def weigh() -> Array:
        wide = weights.astype(np.float64)
        if not transposed:
            return wide
        swapped = wide.reshape(shape).swapaxes(1, 2)
        return swapped.reshape(outputs, inputs // group, *kernel_shape)

    made = LinearMap(
        inputs,
        outputs,
        group,
        window,
        weigh,
        _wide(bias),
        lambda: (largest(weights), largest(bias)),
    )
    size = "x".join(str(k) for k in kernel_shape)
    depthwise = "depthwise " if group == inputs > 1 else ""
    name = "transposed conv" if transposed else "conv"
    return Reading(node.inputs[0], made, f"{depthwise}{name}{size}({{}})")


def conv_window(node: Node, kernel: Sequence[int]) -> Window:
    attributes, rank = node.attributes, len(kernel)
    strides = per_axis("strides", attributes.get("strides"), rank, 1, 1)
    dilations = per_axis("dilations", attributes.get("dilations"), rank, 1, 1)
    pads = per_axis("pads", attributes.get("pads"), 2 * rank, 0, -(2**31))
    auto_pad, opaque = str(attributes.get("auto_pad", "NOTSET")), ""
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if auto_pad == "VALID":
        pads = (0,) * (2 * rank)
    elif auto_pad.startswith("SAME"):
        x = node.inputs[0]
        if x is not None and x.type is not None and x.type.is_static:
            axes = conv_axes(x.dims[2:], kernel, strides, None, dilations, auto_pad)
            pads = (*(a.begin for a in axes), *(a.end for a in axes))
        elif prod(strides) == 1:
            small = [(e - 1) // 2 for e in extents]
            large = [e - 1 - s for e, s in zip(extents, small, strict=True)]
            pads = (*small, *large) if auto_pad == "SAME_UPPER" else (*large, *small)
        else:
            opaque = auto_pad
    if opaque:
        pads = (0,) * (2 * rank)
    ends = zip(kernel, strides, dilations, pads[:rank], pads[rank:], extents, strict=True)
    axes_ = [Taps(-b, k, d if k > 1 else 1, s, e + b - x + 1) for k, s, d, b, e, x in ends]
    return Window(tuple(axes_), opaque=opaque)


def _transposed_window(node: Node, kernel: Sequence[int]) -> Window:
    attributes, rank = node.attributes, len(kernel)
    strides = per_axis("strides", attributes.get("strides"), rank, 1, 1)
    dilations = per_axis("dilations", attributes.get("dilations"), rank, 1, 1)
    pads = per_axis("pads", attributes.get("pads"), 2 * rank, 0, -(2**31))
    extra = per_axis("output_padding", attributes.get("output_padding"), rank, 0, 0)
    auto_pad = str(attributes.get("auto_pad", "NOTSET"))
    opaque = ""
    if attributes.get("output_shape") or auto_pad.startswith("SAME"):
        opaque = f"{auto_pad}{attributes.get('output_shape') or ''}{extra}"
    if opaque or auto_pad == "VALID":
        pads = (0,) * (2 * rank)
    axes = []
    ends = zip(kernel, strides, dilations, pads[:rank], pads[rank:], extra, strict=True)
    for k, s, d, begin, end, more in ends:
        last = (k - 1) * d - begin
        axes.append(Taps(-begin, k, d if k > 1 else 1, s, more + last - end))
    return Window(tuple(axes), True, opaque)


def read_gemm(node: Node, spaces: dict[Value, Space]) -> Reading | None:
    given = _weights(node)
    if given is None or node.attributes.get("transA", 0) or node.inputs[0] is None:
        return None
    weights, bias = given
    alpha, beta = (float(node.attributes.get(n, 1.0)) for n in ("alpha", "beta"))
    matrix = weights if node.attributes.get("transB", 0) else weights.T
    # one number, or one row of them for all
    if matrix.ndim != 2 or not matrix.size:
        return None
    if bias is not None and bias.size != 1 and bias.size != bias.shape[-1]:
        return None
    if bias is not None and bias.size not in (1, matrix.shape[0]):
        return None

    def shift() -> Array:
        assert bias is not None
        return beta * np.broadcast_to(bias.astype(np.float64).reshape(-1), (matrix.shape[0],))

    made = LinearMap(
        matrix.shape[1],
        matrix.shape[0],
        1,
        unit_window(0),
        lambda: alpha * matrix.astype(np.float64),
        None if bias is None else shift,
        lambda: (abs(alpha) * largest(matrix), abs(beta) * largest(bias)),
    )
    return Reading(node.inputs[0], made, "W ({})")


def read_matmul(node: Node, spaces: dict[Value, Space]) -> Reading | None:
    given = _weights(node)
    x = node.inputs[0]
    if given is None or x is None or given[0].ndim != 2 or not given[0].size or x not in spaces:
        return None
    matrix = given[0]
    inputs, outputs = matrix.shape
    made = LinearMap(
        inputs,
        outputs,
        1,
        unit_window(0),
        lambda: matrix.T.astype(np.float64),
        bound=lambda: (largest(matrix), 0.0),
    )
    return Reading(x, made, "W ({})")


def _weights(node: Node) -> tuple[Array, Array | None] | None:
    """Weights and bias, where both are constants of a floating type."""
    weights = node.inputs[1] if len(node.inputs) > 1 else None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if weights is None or weights.array is None or weights.array.dtype.kind != "f":
        return None
    if bias is not None and (bias.array is None or bias.array.dtype.kind != "f"):
        return None
    return weights.array, None if bias is None else bias.array


def _wide(bias: Array | None) -> Callable[[], Array] | None:
    return None if bias is None else lambda: bias.astype(np.float64)
