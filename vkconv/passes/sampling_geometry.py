"""Where traced deformable sampling looks, as stride, padding and dilation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vkconv.ir import Array, Node, Value
from vkconv.passes.patterns import produced_by


class NotSampling(Exception):
    """Why nodes that look like sampling by hand cannot be replaced."""


@dataclass(frozen=True)
class Geometry:
    """The attributes of the DeformConv that samples at the same places; pads as ONNX has them."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]


def margins_of(pad: Node) -> tuple[int, int]:
    """Rows above and columns left of the map that Pad adds (it takes an input since version 11)."""
    amounts = pad.attributes.get("pads", pad.attributes.get("paddings"))
    axes = [0, 1, 2, 3]
    if len(pad.inputs) > 1 and pad.inputs[1] is not None:
        amounts = pad.inputs[1].array
    if len(pad.inputs) > 3 and pad.inputs[3] is not None:
        given = pad.inputs[3].array
        axes = [] if given is None else [int(a) % 4 for a in given.reshape(-1)]
    if amounts is None or len(amounts) != 2 * len(axes):
        raise NotSampling("how much the map is padded is not known")
    begin = dict(zip(axes, (int(a) for a in amounts), strict=False))
    return begin.get(2, 0), begin.get(3, 0)


def sampling_geometry(
    grid: Array,
    margins: tuple[int, int],
    kernel: tuple[int, int],
    x: tuple[int, ...],
    offset: Value,
) -> Geometry:
    """Stride, padding and dilation of the grid (2 K, h, w) of positions in the padded map.

    Along an axis position = start + i stride + k dilation; the padding before is margin - start.
    Behind, as much as gives h outputs: as the convolution that made the offsets has it, where it
    can be told, so that it holds for maps of other sizes too.
    """
    split = grid.reshape(2, *kernel, *grid.shape[1:])
    found = []
    for axis in (0, 1):
        line = np.moveaxis(split[axis], (axis, 2 + axis), (0, 1))[:, :, 0, 0]  # (k, out)
        start = line[0, 0]
        dilation = line[1, 0] - start if line.shape[0] > 1 else 1.0
        made = _window_of(offset, axis)
        stride = line[0, 1] - start if line.shape[1] > 1 else float(made[1]) if made else 1.0
        if (
            not all(float(v).is_integer() for v in (start, stride, dilation))
            or min(stride, dilation) < 1
        ):
            raise NotSampling("the positions lie on no regular grid of pixels")
        extent = (line.shape[0] - 1) * int(dilation) + 1
        before = margins[axis] - int(start)
        least = (line.shape[1] - 1) * int(stride) + extent - x[2 + axis] - before
        behind = made[0] + extent - before if made and made[1] == stride else least
        if not least <= behind < least + stride:
            behind = max(least, 0)
        if before < 0 or behind < 0 or behind >= least + stride:
            raise NotSampling(
                "the positions begin inside the map: DeformConv pads, it does not cut"
            )
        found.append((int(stride), before, behind, int(dilation)))
    (sy, top, bottom, dy), (sx, left, right, dx) = found
    return Geometry(kernel, (sy, sx), (top, left, bottom, right), (dy, dx))


def _window_of(offset: Value, axis: int) -> tuple[int, int] | None:
    """(padding - extent, stride) of the convolution that computes the offsets: out = (size +
    padding - extent) // stride + 1."""
    conv = produced_by(offset, "Conv")
    if conv is None or conv.attributes.get("auto_pad", "NOTSET") != "NOTSET":
        return None
    weight = conv.inputs[1]
    if weight is None or weight.type is None or not weight.type.is_static or len(weight.dims) != 4:
        return None
    pads = conv.attributes.get("pads", (0, 0, 0, 0))
    dilation = conv.attributes.get("dilations", (1, 1))[axis]
    extent = (weight.dims[2 + axis] - 1) * dilation + 1
    return pads[axis] + pads[2 + axis] - extent, conv.attributes.get("strides", (1, 1))[axis]
