"""Convolutions whose weights exceed what a buffer may hold become several, of some outputs each.

maxStorageBufferRange is 128 MiB on many devices; a 3x3 convolution of 1,024 to 1,024 channels takes
151 MB in Winograd's form. A device that reads weights as texels may allow 65,536 of them, one MiB,
in a buffer (maxTexelBufferElements; SwiftShader), and beyond takes two to four times as long. The
parts are joined by a Concat, which writes them in place. Matrix products split their columns by
themselves (``ops/matrix_product.py``).
"""

from __future__ import annotations

from math import prod

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import ELEMENT_BYTES
from vkconv.ir import Graph, Node, TensorType, Value, constant
from vkconv.ops.shapes import ceil_div

#: by operator: the axis of its weights that runs over output channels, and where its bias stands
_WEIGHTS = {"Conv": (0, 2), "ConvTranspose": (1, 2), "DeformConv": (0, 3)}
#: outputs of a part are a multiple of the largest tile
_TILE = 16
_RESIDUAL = {"Conv": 3, "DeformConv": 5}


def split_large_weights(graph: Graph, caps: DeviceCaps) -> None:
    """Needs concrete shapes. A convolution in groups is left alone: its weights are small."""
    if caps.host_only:
        return
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes += _parts(node, caps)
    graph.nodes = nodes


def _parts(node: Node, caps: DeviceCaps) -> list[Node]:
    """The nodes to stand for ``node``, itself if it is small enough."""
    if node.op_type not in _WEIGHTS or node.attributes.get("group", 1) != 1:
        return [node]
    axis, bias_at = _WEIGHTS[node.op_type]
    weight = node.inputs[1]
    if weight is None or weight.array is None:
        return [node]
    outputs = weight.dims[axis]
    most = _most_outputs(weight, axis, node, caps)
    if outputs <= most or most == 0:
        return [node]
    parts: list[Node] = []
    joined: list[Value | None] = []
    count = ceil_div(outputs, most)
    each = ceil_div(outputs, count * _TILE) * _TILE
    for first in range(0, outputs, each):
        last = min(first + each, outputs)
        made = _part(node, first, last, axis, bias_at)
        parts += made
        joined.append(made[-1].outputs[0])
    result = node.outputs[0]
    names = [node.name, *node.fused]
    parts.append(Node("Concat", joined, [result], {"axis": 1}, f"{node.name}/joined", "", 13))
    parts[0].fused = [n for n in names if n != parts[0].name]
    return parts


def _part(node: Node, first: int, last: int, axis: int, bias_at: int) -> list[Node]:
    """``node`` for its output channels from ``first`` to ``last``; before it, what its residual
    has for them."""
    before: list[Node] = []
    inputs = list(node.inputs)
    own = (slice(None),) * axis + (slice(first, last),)
    for position, index in ((1, own), (bias_at, (slice(first, last),))):
        value = inputs[position] if position < len(inputs) else None
        if value is not None and value.array is not None:
            inputs[position] = constant(f"{value.name}/{first}:{last}", value.array[index])
    at = _RESIDUAL.get(node.op_type, len(inputs))
    residual = inputs[at] if node.domain and len(inputs) > at else None
    if residual is not None:
        before.append(_channels(residual, first, last))
        inputs[at] = before[0].outputs[0]
    name = node.name if first == 0 else f"{node.name}/{first}:{last}"
    n, _, *spatial = node.outputs[0].dims
    type_ = TensorType(node.outputs[0].dtype, (n, last - first, *spatial))
    result = Value(f"{node.outputs[0].name}/{first}:{last}", type_)
    twin = Node(
        node.op_type, inputs, [result], dict(node.attributes), name, node.domain, node.opset
    )
    return [*before, twin]


def _channels(value: Value, first: int, last: int) -> Node:
    """Some channels of a feature map: a view, as they are whole vec4s."""
    n, _, *spatial = value.dims
    result = Value(
        f"{value.name}/{first}:{last}", TensorType(value.dtype, (n, last - first, *spatial))
    )
    attributes = {"channels": tuple(range(first, last))}
    return Node("PermuteChannels", [value], [result], attributes, result.name, "vkconv", 1)


def _most_outputs(weight: Value, axis: int, node: Node, caps: DeviceCaps) -> int:
    """How many output channels' packed weights a buffer holds, in whole tiles: channels in whole
    vec4s, the bias, and in a storage buffer 36 numbers for the 9 of a 3x3 in Winograd's form."""
    channels = ceil_div(weight.dims[1 - axis], 4) * 4
    taps = prod(weight.dims[2:])
    largest = 36 if node.op_type == "Conv" and weight.dims[2:] == (3, 3) else taps
    stored = caps.max_storage_buffer_range // ((channels * largest + 4) * ELEMENT_BYTES)
    texels = caps.max_texel_buffer_elements * 4 // (channels * taps + 4)
    # each part of a deformable convolution would sample anew
    reads_texels = caps.access[0] != "ssbo" and node.op_type != "DeformConv"
    most = min(stored, texels) if reads_texels and texels >= _TILE else stored
    return most // _TILE * _TILE
