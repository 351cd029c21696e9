"""Factors of a pointwise convolution's input channels move into the convolution.

    W (x * s) + b,  s (N, C, 1...) computed by the model

The gate of a squeeze-and-excitation block or of a channel attention (J. Hu et al., "Squeeze-and-
Excitation Networks", 2018, eq. 4) scales a whole map that only a 1x1 convolution reads: multiplied
where the convolution loads it, the product is neither written nor read again. Constant factors go
into the weights instead (``fuse_linear_branches``). A kernel of more taps would multiply each
element once a tap, so its factors stay where they are.
"""

from __future__ import annotations

from vkconv.ir import Graph, Node, Value
from vkconv.passes.patterns import single_user

#: inputs of a fused Conv before its factors: x, weight, bias, residual
_BEFORE_SCALE = 4


def fuse_channel_scale(graph: Graph) -> None:
    uses = graph.uses()
    for node in list(graph.nodes):
        if node.op_type != "Mul" or node.domain or len(node.inputs) != 2:
            continue
        operands = _operands(node)
        reader = single_user(graph, node.outputs[0], uses)
        if operands is None or reader is None or not _can_scale(reader, node.outputs[0]):
            continue
        _fuse(graph, reader, *operands, node)


def _operands(mul: Node) -> tuple[Value, Value] | None:
    """(x, s) of a product where s has one element for each channel of each x of the batch."""
    for x, scale in (mul.inputs, mul.inputs[::-1]):
        if x is None or scale is None or x.is_constant or scale.is_constant:
            continue
        if x.type is None or scale.type is None or not (x.type.is_static and scale.type.is_static):
            continue
        if not 3 <= x.known_type.rank <= 5 or not x.dtype.startswith("float"):
            continue
        pixels = x.dims[2:]
        if scale.dims == (*x.dims[:2], *[1] * len(pixels)) and any(n > 1 for n in pixels):
            return x, scale
    return None


def _can_scale(conv: Node, x: Value) -> bool:
    """Whether ``conv`` reads ``x`` as the input of a 1x1 kernel without groups."""
    if conv.op_type != "Conv" or conv.domain not in ("", "vkconv") or conv.inputs[0] is not x:
        return False
    weight = conv.inputs[1]
    if weight is None or weight.type is None or not weight.type.is_static:
        return False
    scaled = len(conv.inputs) > _BEFORE_SCALE and conv.inputs[_BEFORE_SCALE] is not None
    pointwise = all(n == 1 for n in weight.dims[2:]) and conv.attributes.get("group", 1) == 1
    return pointwise and not scaled


def _fuse(graph: Graph, conv: Node, x: Value, scale: Value, mul: Node) -> None:
    rest = [*conv.inputs[1:], None, None][: _BEFORE_SCALE - 1]
    conv.inputs = [x, *rest, scale]
    conv.domain, conv.opset = "vkconv", 1
    conv.fused += [mul.name, *mul.fused]
    graph.remove([mul])
