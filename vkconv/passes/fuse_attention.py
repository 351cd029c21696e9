"""Attention that exporters spell out becomes one node.

    softmax(scale q k^T [+ mask], -1) v   ->   vkconv.Attention(q, k, v [, mask])

The scale may stand on q, on k, on their product, or be shared out among them; k may come transposed
or be transposed by a Transpose that then disappears. One batch for all three: products that
broadcast are left alone, and so is everything that another node reads in between.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vkconv.errors import InvalidModelError
from vkconv.ir import Graph, Node, TensorType, Value
from vkconv.ops.operator import FLOATS
from vkconv.ops.registry import create
from vkconv.ops.shapes import broadcast_shapes
from vkconv.passes.patterns import produced_by, single_user, split_scalar

Uses = dict[Value, list[Node]]


def fuse_attention(graph: Graph) -> None:
    uses = graph.uses()
    for node in list(graph.nodes):
        match = _match(graph, node, uses)
        if match is None:
            continue
        node.op_type, node.domain, node.opset = "Attention", "vkconv", 1
        node.inputs = [match.q, match.k, match.v, *([match.mask] if match.mask is not None else [])]
        node.attributes = {"scale": match.scale, "keys_are_rows": int(match.keys_are_rows)}
        node.fused += [name for part in match.parts for name in (part.name, *part.fused)]
        graph.remove(match.parts)
        uses = graph.uses()


@dataclass
class _Match:
    """The operands of the fused node, and the nodes that it replaces."""

    q: Value
    k: Value
    v: Value
    mask: Value | None
    scale: float
    keys_are_rows: bool
    parts: list[Node] = field(default_factory=list)


def _match(graph: Graph, node: Node, uses: Uses) -> _Match | None:
    if node.op_type != "MatMul" or node.domain or len(node.present_inputs) != 2:
        return None
    weights, v = node.present_inputs
    softmax = _private(graph, weights, "Softmax", uses)
    if softmax is None or not _is_last(softmax):
        return None
    parts = [softmax]
    scores = softmax.present_inputs[0]
    mask: Value | None = None
    add = _private(graph, scores, "Add", uses)
    if add is not None and len(add.present_inputs) == 2:
        for one, other in (add.present_inputs, add.present_inputs[::-1]):
            if _ends_in_product(graph, one, uses) and _fits(other, one):
                scores, mask = one, other
                parts.append(add)
                break
        else:
            return None
    scores, scale, scaling = _unscaled(graph, scores, uses)
    product = _private(graph, scores, "MatMul", uses)
    if product is None or len(product.present_inputs) != 2:
        return None
    parts += [*scaling, product]
    q, q_scale, scaling = _unscaled(graph, product.present_inputs[0], uses)
    parts += scaling
    k, k_scale, scaling = _unscaled(graph, product.present_inputs[1], uses)
    parts += scaling
    rows = False
    transpose = _private(graph, k, "Transpose", uses)
    if transpose is not None and _swaps_last_two(transpose):
        rows = True
        parts.append(transpose)
        k, inner_scale, scaling = _unscaled(graph, transpose.present_inputs[0], uses)
        k_scale *= inner_scale
        parts += scaling
    match = _Match(q, k, v, mask, scale * q_scale * k_scale, rows, parts)
    return match if _is_sound(match, node) else None


def _private(graph: Graph, value: Value, op_type: str, uses: Uses) -> Node | None:
    """The node of that type that computes ``value``, when only one other reads it."""
    node = produced_by(value, op_type)
    return node if node is not None and single_user(graph, value, uses) is not None else None


def _unscaled(graph: Graph, value: Value, uses: Uses) -> tuple[Value, float, list[Node]]:
    """What is multiplied or divided by numbers to give ``value``, their product, and the nodes that
    do it."""
    scale = 1.0
    nodes: list[Node] = []
    while True:
        node = _private(graph, value, "Mul", uses) or _private(graph, value, "Div", uses)
        pair = split_scalar(node) if node is not None else None
        if node is None or pair is None or pair[0].type != value.type:
            return value, scale, nodes
        if node.op_type == "Div" and (pair[0] is not node.inputs[0] or pair[1] == 0):
            return value, scale, nodes
        scale = scale / pair[1] if node.op_type == "Div" else scale * pair[1]
        value = pair[0]
        nodes.append(node)


def _ends_in_product(graph: Graph, value: Value, uses: Uses) -> bool:
    return _private(graph, _unscaled(graph, value, uses)[0], "MatMul", uses) is not None


def _fits(mask: Value, scores: Value) -> bool:
    """Whether the sum has the shape, and the type, of the scores."""
    if (
        mask.type is None
        or scores.type is None
        or not (mask.type.is_static and scores.type.is_static)
    ):
        return False
    try:
        fits = broadcast_shapes(mask.dims, scores.dims) == scores.dims
    except InvalidModelError:
        return False
    return fits and mask.dtype == scores.dtype


def _is_last(softmax: Node) -> bool:
    """Over the last axis; before version 13 over it alone only when it is the first that counts."""
    x = softmax.inputs[0]
    if x is None or x.type is None or not x.type.is_static:
        return False
    axis = int(softmax.attributes.get("axis", -1 if softmax.opset >= 13 else 1))
    return axis in (-1, x.type.rank - 1)


def _swaps_last_two(transpose: Node) -> bool:
    x = transpose.inputs[0]
    if x is None or x.type is None or x.type.shape is None:
        return False
    rank = len(x.type.shape)
    order = transpose.attributes.get("perm") or tuple(reversed(range(rank)))
    return rank >= 2 and tuple(order) == (*range(rank - 2), rank - 1, rank - 2)


def _is_sound(match: _Match, node: Node) -> bool:
    """Whether the fused node takes these operands and gives what the last product gave."""
    values = [match.q, match.k, match.v]
    if any(v.type is None or not v.type.is_static or v.dtype not in FLOATS for v in values):
        return False
    made = Node(
        "Attention",
        [match.q, match.k, match.v, match.mask],
        [],
        {"scale": match.scale, "keys_are_rows": int(match.keys_are_rows)},
        domain="vkconv",
        opset=1,
    )
    try:
        found = create(made).infer(*made.inputs)
    except InvalidModelError:
        return False
    return isinstance(found, TensorType) and found == node.outputs[0].type
