"""The addition of a residual moves into the epilogue of the convolution that it follows.

    activation(conv(x) + r)     (ResNet)      residual first
    activation(conv(x)) + r     (CSP, ELAN)   residual last

Only between tensors of one shape, and only into the later of two convolutions: the other operand
must exist when the convolution runs, so it may not depend on the sum's own convolution.
"""

from __future__ import annotations

from vkconv.ir import Graph, Node, Value
from vkconv.passes.fuse_activation import absorb_activation
from vkconv.passes.patterns import single_user

#: by operator: where its bias stands among the inputs, and where its fused form has the residual
_POSITIONS = {"Conv": (2, 3), "DeformConv": (3, 5)}


def fuse_residual(graph: Graph) -> None:
    uses = graph.uses()
    # nodes are only removed below, which leaves the others in order
    order = {id(n): i for i, n in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if node.op_type != "Add" or node.domain or len(node.inputs) != 2:
            continue
        conv, residual = _operands(graph, node, uses, order)
        if conv is None or residual is None:
            continue
        _fuse(graph, conv, residual, node)
        reader = single_user(graph, node.outputs[0], uses)
        first = conv.attributes["residual"] == "first"
        if reader is not None and first and absorb_activation(conv, reader):
            graph.remove([reader])


def _operands(
    graph: Graph, add: Node, uses: dict[Value, list[Node]], order: dict[int, int]
) -> tuple[Node | None, Value | None]:
    """The convolution that takes the sum over (the later, when both could); the other operand."""
    best: tuple[Node | None, Value | None] = (None, None)
    for value, other in (add.inputs, add.inputs[::-1]):
        if value is None or other is None or other.is_constant or value is other:
            continue
        conv = value.producer
        if conv is None or conv.op_type not in _POSITIONS:
            continue
        if conv.domain not in ("", "vkconv") or single_user(graph, value, uses) is not add:
            continue
        known = value.type is not None and other.type is not None and value.type == other.type
        if not known or not value.known_type.is_static or value.known_type.rank not in (3, 4):
            continue
        if _has_residual(conv) or not _weights_known(conv):
            continue
        ready = other.producer is None or order[id(other.producer)] < order[id(conv)]
        if ready and (best[0] is None or order[id(conv)] > order[id(best[0])]):
            best = (conv, other)
    return best


def _has_residual(conv: Node) -> bool:
    _, position = _POSITIONS[conv.op_type]
    return len(conv.inputs) > position and conv.inputs[position] is not None


def _weights_known(conv: Node) -> bool:
    bias, _ = _POSITIONS[conv.op_type]
    weights = (conv.inputs[1], *conv.inputs[bias : bias + 1])
    return all(v is None or v.is_constant for v in weights)


def _fuse(graph: Graph, conv: Node, residual: Value, add: Node) -> None:
    _, position = _POSITIONS[conv.op_type]
    missing = [None] * max(0, position - len(conv.inputs))
    conv.inputs = [*conv.inputs[:position], *missing, residual, *conv.inputs[position + 1 :]]
    conv.domain, conv.opset = "vkconv", 1
    conv.attributes["residual"] = "last" if "activation" in conv.attributes else "first"
    conv.fused += [add.name, *add.fused]
    conv.outputs = add.outputs
    conv.outputs[0].producer = conv
    graph.remove([add])
