"""Remove nodes that hand on their input unchanged.

Identity; Dropout in inference form whose mask nothing reads; Concat, Sum, Max, Min of one input;
Cast to the type the input has; Pad by nothing; a Transpose that undoes the one before it, or keeps
the order; a reshape of a reshape (only the last one counts).
"""

from __future__ import annotations

import numpy as np

from vkconv.ir import Array, Graph, Node, Value

_VARIADIC = {"Concat", "Sum", "Max", "Min"}
_RESHAPES = {"Reshape", "Flatten", "Squeeze", "Unsqueeze"}


def eliminate_identities(graph: Graph) -> None:
    read = set(graph.uses()) | set(graph.outputs)
    for node in list(graph.nodes):
        if node.domain or any(v in read for v in node.outputs[1:]):
            continue
        source = _same_as(node)
        if source is None:
            _shorten(node)
            _classify_as_computed(node)
            continue
        graph.replace_value(node.outputs[0], source)
        graph.remove([node])
        graph.absorbed[node.name] = ("folded", "hands on its input")


def _same_as(node: Node) -> Value | None:
    """The input that the node's first output equals, or None."""
    source = node.inputs[0] if node.inputs else None
    if source is None:
        return None
    kind = node.op_type
    same = (
        kind == "Identity"
        or (kind in _VARIADIC and len(node.inputs) == 1)
        or (kind == "Dropout" and not _is_training(node))
        or (kind == "Cast" and _keeps_dtype(node, source))
        or (kind == "Pad" and _pads_nothing(node))
    )
    if same:
        return source
    return _undone_transpose(node, source) if kind == "Transpose" else None


def _is_training(node: Node) -> bool:
    """``training_mode`` is an input since version 12; one that is computed may be true."""
    mode = node.inputs[2] if len(node.inputs) > 2 else None
    return mode is not None and not (mode.array is not None and not mode.array.any())


def _keeps_dtype(node: Node, source: Value) -> bool:
    result = node.outputs[0].type
    return source.type is not None and result is not None and source.dtype == result.dtype


def _pads_nothing(node: Node) -> bool:
    """``pads`` is an attribute before version 11, an input since."""
    amounts: Array | None = None
    if len(node.inputs) > 1:
        amounts = node.inputs[1].array if node.inputs[1] is not None else None
    elif "pads" in node.attributes:
        amounts = np.asarray(node.attributes["pads"])
    return amounts is not None and not np.any(amounts)


def _undone_transpose(node: Node, source: Value) -> Value | None:
    order = _order(node)
    if order is None:
        return None
    if order == tuple(range(len(order))):
        return source
    before = source.producer
    if before is None or before.op_type != "Transpose" or before.domain:
        return None
    first = _order(before)
    if first is None or len(first) != len(order):
        return None
    undone = tuple(first[i] for i in order) == tuple(range(len(order)))
    return before.inputs[0] if undone else None


def _order(node: Node) -> tuple[int, ...] | None:
    """The permutation; None when it is not known or none."""
    order: tuple[int, ...] | None = node.attributes.get("perm")
    if order is None:
        shape = node.inputs[0].type.shape if node.inputs[0] and node.inputs[0].type else None
        return None if shape is None else tuple(range(len(shape)))[::-1]
    return tuple(order) if sorted(order) == list(range(len(order))) else None


def _shorten(node: Node) -> None:
    """A Reshape reads through the reshapes before it: only the number of elements matters.

    Not where its target has a 0, which copies a dimension of its input; and Flatten, Squeeze and
    Unsqueeze read their input's dimensions.
    """
    if node.op_type != "Reshape" or len(node.inputs) < 2:
        return
    shape = node.inputs[1]
    if shape is None or shape.array is None or np.any(shape.array == 0):
        return
    source = node.inputs[0]
    while source is not None and source.producer is not None:
        before = source.producer
        if before.op_type not in _RESHAPES or before.domain:
            break
        source = before.inputs[0]
        node.inputs[0] = source if source is not None else node.inputs[0]


def _classify_as_computed(node: Node) -> None:
    """IsInf and IsNaN say of a float what they say of it in a wider type (exporters ask in
    float64)."""
    source = node.inputs[0] if node.inputs else None
    cast = None if source is None else source.producer
    if node.op_type not in ("IsInf", "IsNaN") or cast is None or cast.op_type != "Cast":
        return
    narrow = cast.inputs[0]
    if cast.domain or narrow is None or narrow.type is None or source is None or not source.type:
        return
    widths = {"float16": 2, "float32": 4, "float64": 8}
    if narrow.dtype in widths and widths[narrow.dtype] <= widths.get(source.dtype, 0):
        node.inputs[0] = narrow
