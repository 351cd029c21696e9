"""Remove nodes that hand on their input unchanged.

Identity; Dropout in inference form; Concat, Sum, Max, Min of one input; Cast to the type the input has; Pad by nothing;
a Transpose that undoes the one before it, or keeps the order; a reshape of a reshape (only the last one counts).
"""

from __future__ import annotations

import numpy as np

from vkconv.ir import Graph, Node, Value

_VARIADIC = {"Concat", "Sum", "Max", "Min"}
_RESHAPES = {"Reshape", "Flatten", "Squeeze", "Unsqueeze"}


def eliminate_identities(graph: Graph) -> None:
    for node in list(graph.nodes):
        if node.domain:
            continue
        source = _same_as(node)
        if source is None:
            _shorten(node)
            continue
        result = node.outputs[0]
        if source.type is None:
            source.type = result.type
        graph.replace_value(result, source)
        graph.remove([node])
        graph.absorbed[node.name] = ("folded", "hands on its input")


def _same_as(node: Node) -> Value | None:
    """The input that the node's only used output equals, or None."""
    source = node.inputs[0] if node.inputs else None
    if source is None:
        return None
    kind = node.op_type
    if kind == "Identity" or (kind in _VARIADIC and len(node.inputs) == 1):
        return source
    if kind == "Dropout" and len(node.outputs) == 1 and not _is_training(node):
        return source
    if kind == "Cast" and source.type is not None and node.outputs[0].type is not None:
        return source if source.dtype == node.outputs[0].dtype else None
    if kind == "Pad" and len(node.inputs) > 1:
        pads = node.inputs[1]
        return (
            source
            if pads is not None and pads.array is not None and not np.any(pads.array)
            else None
        )
    if kind == "Transpose":
        return _undone_transpose(node, source)
    return None


def _is_training(node: Node) -> bool:
    mode = node.inputs[2] if len(node.inputs) > 2 else None
    return mode is not None and not (mode.array is not None and not mode.array.any())


def _undone_transpose(node: Node, source: Value) -> Value | None:
    order = node.attributes.get("perm")
    if order is None:
        return None
    if tuple(order) == tuple(range(len(order))):
        return source
    before = source.producer
    if (
        before is None
        or before.op_type != "Transpose"
        or before.domain
        or "perm" not in before.attributes
    ):
        return None
    first = before.attributes["perm"]
    return before.inputs[0] if tuple(first[i] for i in order) == tuple(range(len(order))) else None


def _shorten(node: Node) -> None:
    """A reshape reads through the reshapes before it: only the number of elements matters.

    Only where its own target is concrete: a 0 in a Reshape copies a dimension of its input, and Flatten, Squeeze and
    Unsqueeze read their input's dimensions.
    """
    if node.op_type != "Reshape" or node.inputs[0] is None or len(node.inputs) < 2:
        return
    shape = node.inputs[1]
    if shape is None or shape.array is None or np.any(shape.array == 0):
        return
    before = node.inputs[0].producer
    while before is not None and before.op_type in _RESHAPES and not before.domain:
        node.inputs[0] = before.inputs[0]
        before = None if node.inputs[0] is None else node.inputs[0].producer
