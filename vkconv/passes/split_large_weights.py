"""Convolutions whose weights exceed what a buffer may hold become several, of some outputs each.

maxStorageBufferRange is 128 MiB on many devices; a 3x3 convolution of 1,024 to 1,024 channels takes
151 MB in Winograd's form. The parts are joined by a Concat, which writes them in place. Matrix
products split their columns by themselves (``ops/matrix_product.py``).
"""

from __future__ import annotations

from math import prod

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import ELEMENT_BYTES
from vkconv.ir import Graph, Node, TensorType, Value, constant

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
        nodes += _parts(node, caps.max_storage_buffer_range)
    graph.nodes = nodes


def _parts(node: Node, limit: int) -> list[Node]:
    """The nodes to stand for ``node``, itself if it is small enough."""
    if node.op_type not in _WEIGHTS or node.attributes.get("group", 1) != 1:
        return [node]
    axis, bias_at = _WEIGHTS[node.op_type]
    weight = node.inputs[1]
    if weight is None or weight.array is None:
        return [node]
    outputs = weight.dims[axis]
    per_output = _bytes_per_output(weight, axis, node)
    most = limit // per_output // _TILE * _TILE
    if outputs <= most or most == 0:
        return [node]
    parts: list[Node] = []
    joined: list[Value | None] = []
    for first in range(0, outputs, most):
        last = min(first + most, outputs)
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


def _bytes_per_output(weight: Value, axis: int, node: Node) -> int:
    """What the packed weights of one output channel take, at most: channels in whole vec4s, the
    bias, and 36 numbers for the 9 of a 3x3 in Winograd's form."""
    taps = prod(weight.dims[2:])
    if node.op_type == "Conv" and weight.dims[2:] == (3, 3):
        taps = 36
    channels = -(-weight.dims[1 - axis] // 4) * 4
    return (channels * taps + 4) * ELEMENT_BYTES
