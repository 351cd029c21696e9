"""The addition of a vector behind a matrix product moves into the product's epilogue.

    a b + v    (a linear layer as exporters write it: MatMul, Add)

v has one element, or one per column, and exists before the product runs. A residual of the result's
own size stays an addition.
"""

from __future__ import annotations

from math import prod

from vkconv.ir import Graph, Node, Value, constant
from vkconv.ops.operator import FLOATS
from vkconv.passes.patterns import single_user


def fuse_bias(graph: Graph) -> None:
    """``MatMul + Add`` becomes the fused MatMul with a bias. Types must be known where it acts."""
    uses = graph.uses()
    order = {id(n): i for i, n in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if node.op_type != "MatMul" or node.domain or len(node.outputs) != 1:
            continue
        add = single_user(graph, node.outputs[0], uses)
        if add is None or add.op_type != "Add" or add.domain or len(add.inputs) != 2:
            continue
        bias = add.inputs[1] if add.inputs[0] is node.outputs[0] else add.inputs[0]
        if bias is None or not _fits(node, add, bias):
            continue
        ready = bias.producer is None or order[id(bias.producer)] < order[id(node)]
        vector = _vector(bias) if ready else None
        if vector is None:
            continue
        node.inputs = [*node.inputs, vector]
        node.domain, node.opset = "vkconv", 1
        node.fused += [add.name, *add.fused]
        node.outputs = add.outputs
        node.outputs[0].producer = node
        graph.remove([add])


def _fits(product: Node, add: Node, bias: Value) -> bool:
    """Whether ``bias`` is one number per column of the product, or one for all."""
    y, total, b = product.outputs[0].type, add.outputs[0].type, bias.type
    weight = product.inputs[1]
    if y is None or total is None or b is None or weight is None or weight.type is None:
        return False
    if not (y.is_static and b.is_static and weight.type.shape is not None) or y != total:
        return False
    if y.dtype not in FLOATS or b.dtype != y.dtype or 0 in b.dims:
        return False
    columns = 1 if len(weight.type.shape) == 1 else y.dims[-1]
    return prod(b.dims) == 1 or (prod(b.dims) == b.dims[-1] == columns)


def _vector(bias: Value) -> Value | None:
    """``bias`` with one dimension; None where the model computes it with more."""
    if len(bias.dims) == 1:
        return bias
    if bias.array is None:
        return None
    return constant(f"{bias.name}/vector", bias.array.reshape(-1))
