"""LayerNormalization that exporters spell out, as before opset 17, becomes one operator.

    d = x - mean(x),  y = d / sqrt(mean(d^2) + epsilon) [* scale] [+ bias]

with both means over the same trailing axes. d^2 may be Pow or Mul, the division a product with a
reciprocal, and d computed twice. Scale and bias must be constants that are the same for all rows.
Not where anything else reads what lies between: it would have to be computed as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vkconv.ir import Array, Graph, Node, Value, constant
from vkconv.ops.operator import FLOATS
from vkconv.passes.patterns import produced_by, scalar, single_user, split_scalar

Uses = dict[Value, list[Node]]


def fuse_layer_normalization(graph: Graph) -> None:
    uses = graph.uses()
    for node in list(graph.nodes):
        match = _match(node)
        if match is None or not _is_private(graph, match, node, uses):
            continue
        scale = _factor(graph, node, "Mul", match, uses)
        last = scale[0] if scale else node
        bias = _factor(graph, last, "Add", match, uses)
        last = bias[0] if bias else last
        dtype = np.dtype(match.x.dtype)
        factor = scale[1] if scale else constant(f"{node.name}/scale", np.ones(1, dtype))
        last.op_type, last.domain, last.opset = "LayerNormalization", "", 17
        parts = [*match.parts, node, *([scale[0]] if scale else []), last]
        last.fused = [
            name for part in parts if part is not last for name in (part.name, *part.fused)
        ] + last.fused
        last.inputs = [match.x, factor, *([bias[1]] if bias else [])]
        last.attributes = {"axis": -match.axes, "epsilon": match.epsilon, "stash_type": 1}
        graph.remove([part for part in parts if part is not last])
        uses = graph.uses()


@dataclass
class _Match:
    """The normalisation of ``x`` over its last ``axes`` dimensions that a node and its ``parts``
    spell out."""

    x: Value
    axes: int
    epsilon: float
    parts: list[Node]


def _match(node: Node) -> _Match | None:
    """Find d / sqrt(...), or d * reciprocal(sqrt(...))."""
    if node.domain or node.op_type not in ("Div", "Mul") or len(node.present_inputs) != 2:
        return None
    operands = node.present_inputs
    orders = [operands] if node.op_type == "Div" else [operands, operands[::-1]]
    for distance, size in orders:
        inverse = produced_by(size, "Reciprocal") if node.op_type == "Mul" else None
        if node.op_type == "Mul" and inverse is None:
            continue
        root = produced_by(size if inverse is None else inverse.inputs[0], "Sqrt")
        total = produced_by(root.inputs[0], "Add") if root is not None else None
        pair = split_scalar(total) if total is not None else None
        variance = produced_by(pair[0], "ReduceMean") if pair is not None else None
        if root is None or total is None or pair is None or variance is None:
            continue
        square = _square(variance.inputs[0])
        if square is None:
            continue
        found = _distance(distance, square[0])
        if found is None:
            continue
        x, mean, subtractions = found
        axes = _trailing_axes(mean, x)
        if axes is None or axes != _trailing_axes(variance, x) or pair[1] < 0:
            continue
        parts = [mean, *subtractions, square[1], variance, total, root]
        return _Match(x, axes, pair[1], parts + ([inverse] if inverse is not None else []))
    return None


def _square(value: Value | None) -> tuple[Value, Node] | None:
    """The d of d^2, and the node."""
    node = None if value is None else value.producer
    if node is None or node.domain or len(node.present_inputs) != 2:
        return None
    a, b = node.present_inputs
    squared = node.op_type == "Pow" and scalar(b) == 2.0 and b.dims in ((), (1,))
    return (a, node) if squared or (node.op_type == "Mul" and a is b) else None


def _distance(one: Value, other: Value) -> tuple[Value, Node, list[Node]] | None:
    """The x and the mean of d = x - mean(x), which may have been written twice; and the nodes that
    subtract."""
    first, second = produced_by(one, "Sub"), produced_by(other, "Sub")
    if first is None or second is None:
        return None
    x, mean = first.present_inputs
    same = first is second or all(a is b for a, b in zip(first.inputs, second.inputs, strict=True))
    node = produced_by(mean, "ReduceMean")
    if not same or node is None or node.inputs[0] is not x:
        return None
    return x, node, [first] if first is second else [first, second]


def _trailing_axes(node: Node, x: Value) -> int | None:
    """How many last dimensions a ReduceMean that keeps dimensions is over; None for other axes."""
    if x.type is None or not x.type.is_static or x.dtype not in FLOATS:
        return None
    given: Array | None = None
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        given = node.inputs[1].array
    elif "axes" in node.attributes:
        given = np.asarray(node.attributes["axes"])
    if given is None or not given.size or not node.attributes.get("keepdims", 1):
        return None
    rank = x.type.rank
    axes = sorted({int(a) + rank if a < 0 else int(a) for a in given.reshape(-1)})
    return len(axes) if axes == list(range(rank - len(axes), rank)) else None


def _is_private(graph: Graph, match: _Match, node: Node, uses: Uses) -> bool:
    """Whether only the parts, and ``node``, read what the parts compute; and nothing changes the
    shape of x."""
    inside = {id(part) for part in (*match.parts, node)}
    for part in match.parts:
        for value in part.outputs:
            if graph.is_output(value) or any(id(n) not in inside for n in uses.get(value, [])):
                return False
    return node.outputs[0].type == match.x.type


def _factor(
    graph: Graph, node: Node, op_type: str, match: _Match, uses: Uses
) -> tuple[Node, Value] | None:
    """The only reader of ``node``, when it multiplies by (or adds) a constant that all rows
    share."""
    reader = single_user(graph, node.outputs[0], uses)
    if reader is None or reader.op_type != op_type or reader.domain or len(reader.inputs) != 2:
        return None
    others = [v for v in reader.present_inputs if v is not node.outputs[0]]
    if len(others) != 1 or not others[0].is_constant or reader.outputs[0].type != match.x.type:
        return None
    leading = others[0].dims[: max(len(others[0].dims) - match.axes, 0)]
    return (reader, others[0]) if all(d == 1 for d in leading) else None
