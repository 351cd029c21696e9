"""What single nodes compute, as linear maps: convolutions, products, normalisations, pools, crops.

``map_of`` answers for nodes that read one tensor and constants. Sums and concatenations of several
are the business of the search for regions.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from vkconv.errors import VkconvError
from vkconv.ir import Array, Node, Value
from vkconv.ops.average_pool import AveragePool
from vkconv.ops.batch_normalization import BatchNormalization
from vkconv.ops.conv_geometry import per_axis
from vkconv.ops.registry import check_inputs, create
from vkconv.passes.linear_map import InexactError, LinearMap, diagonal, moved
from vkconv.passes.linear_products import (
    Reading,
    conv_window,
    read_convolution,
    read_gemm,
    read_matmul,
)
from vkconv.passes.linear_spaces import Space
from vkconv.passes.linear_window import Taps, Window

#: those whose weights a fused layer can have
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
#: ends of a Slice from here on mean "to the end" whatever the size
_FAR = 2**31 - 1
_SCALINGS = ("Mul", "Div", "Add", "Sub")


def read(node: Node, spaces: dict[Value, Space]) -> Reading | None:
    """The node as a map; None when it is not one, or its weights are computed.

    Raises InexactError where it would be one but for its border.
    """
    reader = _READERS.get(node.op_type)
    if reader is None or node.domain or len(node.outputs) != 1:
        return None
    try:
        check_inputs(create(node), node)
        return reader(node, spaces)
    except VkconvError:  # attributes that do not fit: planning will say so
        return None


def read_scaling(node: Node, value: Value, space: Space) -> tuple[Array, Array] | None:
    """(factor, offset) of each channel, where that is all that ``node`` does to ``value``."""
    try:
        reading = read(node, {value: space})
    except InexactError:
        return None
    if reading is None or reading.x is not value or not reading.map.is_depthwise:
        return None
    if not reading.map.window.is_unit or reading.map.outside is not None:
        return None
    return reading.map.kernel.reshape(-1), reading.map.bias


def _normalisation(node: Node, spaces: dict[Value, Space]) -> Reading | None:
    """BatchNormalization in its inference form, of constants."""
    op = create(node)
    assert isinstance(op, BatchNormalization)
    x = node.inputs[0]
    space = None if x is None else spaces.get(x)
    arrays = [v.array for v in node.present_inputs[1:5] if v.array is not None]
    if x is None or space is None or space.channel_axis != 1 or len(arrays) != 4:
        return None
    if op.training_mode or op.spatial != 1 or any(a.shape != (space.channels,) for a in arrays):
        return None
    with np.errstate(all="ignore"):
        factor, offset = op.affine(*arrays)
    return Reading(x, diagonal(factor, offset, space.axes), "BN({})")


def _scaling(node: Node, spaces: dict[Value, Space]) -> Reading | None:
    """Mul, Div, Add, Sub of one number, or one number per channel."""
    if len(node.inputs) != 2:
        return None
    a, b = node.inputs
    if a is None or b is None or a.is_constant == b.is_constant:
        return None
    x, other = (b, a) if a.is_constant else (a, b)
    assert other.array is not None
    space = spaces.get(x)
    number = None if space is None else _per_channel(other.array, space)
    if space is None or number is None:
        return None
    one = np.ones(space.channels)
    if node.op_type == "Mul":
        return Reading(x, diagonal(number, None, space.axes), "s ({})")
    if node.op_type == "Add":
        return Reading(x, diagonal(one, number, space.axes), "({} + t)")
    if node.op_type == "Sub":
        if x is a:
            return Reading(x, diagonal(one, -number, space.axes), "({} - t)")
        return Reading(x, diagonal(-one, number, space.axes), "(t - {})")
    if x is not a or not number.all():
        return None
    return Reading(x, diagonal(1 / number, None, space.axes), "({}) / s")


def _per_channel(array: Array, space: Space) -> Array | None:
    """The constant as one float64 number per channel; None when it varies along anything else."""
    if array.ndim > space.rank or array.dtype.kind != "f":
        return None
    shape = [1] * (space.rank - array.ndim) + list(array.shape)
    size = shape[space.channel_axis]
    if size not in (1, space.channels) or array.size != size:
        return None
    return np.broadcast_to(array.reshape(-1).astype(np.float64), (space.channels,))


def _negation(node: Node, spaces: dict[Value, Space]) -> Reading | None:
    x = node.inputs[0]
    space = None if x is None else spaces.get(x)
    if x is None or space is None:
        return None
    return Reading(x, diagonal(-np.ones(space.channels), None, space.axes), "-({})")


def _pool(node: Node, spaces: dict[Value, Space]) -> Reading | None:
    """AveragePool, where every mean is over the whole window."""
    op = create(node)
    assert isinstance(op, AveragePool)
    x = node.inputs[0]
    space = None if x is None else spaces.get(x)
    if x is None or space is None or space.rows or len(op.kernel_shape) != space.axes:
        return None
    kernel, rank = tuple(op.kernel_shape), space.axes
    static = x.type is not None and x.type.is_static
    if op.ceil_mode or op.auto_pad.startswith("SAME"):
        if not static:
            return None
        axes = op.window.axes(x.dims)
        if any(a.padding[1] > a.end for a in axes):
            return None  # a last window that reaches beyond the padding
        pads = (*(a.begin for a in axes), *(a.end for a in axes))
    else:
        pads = per_axis("pads", op.pads, 2 * rank, 0, 0)
    if op.auto_pad == "VALID":
        pads = (0,) * (2 * rank)
    if any(pads) and not op.count_include_pad:
        raise InexactError("its means at the border are over fewer elements")
    like = Node(
        "Conv",
        [x],
        [],
        {"strides": op.strides, "dilations": op.dilations, "pads": pads},
    )
    channels, count = space.channels, prod(kernel)
    made = LinearMap(
        channels,
        channels,
        channels,
        conv_window(like, kernel),
        lambda: np.full((channels, 1, *kernel), 1 / count),
    )
    return Reading(x, made, f"mean{'x'.join(str(k) for k in kernel)}({{}})")


def _pad(node: Node, spaces: dict[Value, Space]) -> Reading | None:
    """Pad of spatial axes by a number: zeros, or what the layer before it makes of zeros."""
    x = node.inputs[0]
    space = None if x is None else spaces.get(x)
    if x is None or space is None or space.rows:
        return None
    if str(node.attributes.get("mode", "constant")) != "constant" or len(node.inputs) > 3:
        return None
    widths = _ints(node, 1, "pads", "paddings")
    value = float(node.attributes.get("value", 0.0))
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        array = node.inputs[2].array
        if array is None or array.size != 1:
            return None
        value = float(array.reshape(()))
    rank = space.rank
    if widths is None or len(widths) != 2 * rank or any((*widths[:2], *widths[rank : rank + 2])):
        return None
    pairs = zip(widths[2:rank], widths[rank + 2 :], strict=True)
    window = Window(tuple(Taps(-begin, rest=begin + end) for begin, end in pairs))
    outside = np.full(space.channels, value) if value else None
    return Reading(x, moved(space.channels, window, outside), "pad({})")


def _slice(node: Node, spaces: dict[Value, Space]) -> Reading | None:
    """Slice of spatial axes: a crop, or every s-th element."""
    x = node.inputs[0]
    space = None if x is None else spaces.get(x)
    starts, ends = _ints(node, 1, "starts"), _ints(node, 2, "ends")
    if x is None or space is None or space.rows or starts is None or ends is None:
        return None
    if x.type is not None and x.type.is_static and x.type.rank != space.rank:
        return None
    given = _ints(node, 3, "axes")
    axes = tuple(range(len(starts))) if given is None else given
    steps = _ints(node, 4) or (1,) * len(starts)
    if any(v is not None and v.array is None for v in node.inputs[3:5]):
        return None
    if not len(starts) == len(ends) == len(axes) == len(steps):
        return None
    taps = [Taps()] * space.axes
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis += space.rank if axis < 0 else 0
        if not 0 <= axis < space.rank:
            return None
        size = x.dims[axis] if x.type is not None and x.type.is_static else None
        span = _span(start, end, size)
        if span is None or step < 1:
            return None
        if axis < 2:
            if span != (0, 0) or step != 1:
                return None
            continue
        taps[axis - 2] = Taps(span[0], 1, 1, step, -sum(span))
    return Reading(x, moved(space.channels, Window(tuple(taps))), "crop({})")


def _span(start: int, end: int, size: int | None) -> tuple[int, int] | None:
    """How much a slice takes off the beginning and the end; None when that depends on the size."""
    if size is not None:
        begin, stop, _ = slice(start, end).indices(size)
        return (begin, size - stop) if stop > begin else None
    if start < 0 or 0 <= end < _FAR:
        return None
    return start, 0 if end >= _FAR else -end


def _ints(node: Node, index: int, *attributes: str) -> tuple[int, ...] | None:
    """Integers from an input, or in older versions an attribute; None when they are computed or
    missing."""
    value = node.inputs[index] if len(node.inputs) > index else None
    if value is not None:
        return None if value.array is None else tuple(int(i) for i in value.array.reshape(-1))
    found = next((node.attributes[a] for a in attributes if a in node.attributes), None)
    return None if found is None else tuple(int(i) for i in found)


_READERS: dict[str, Callable[[Node, dict[Value, Space]], Reading | None]] = {
    "Conv": read_convolution,
    "ConvTranspose": read_convolution,
    "Gemm": read_gemm,
    "MatMul": read_matmul,
    "BatchNormalization": _normalisation,
    "Neg": _negation,
    "AveragePool": _pool,
    "Pad": _pad,
    "Slice": _slice,
    **dict.fromkeys(_SCALINGS, _scaling),
}
