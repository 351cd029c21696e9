"""Small questions that fusion passes ask of the graph."""

from __future__ import annotations

import numpy as np

from vkconv.ir import Graph, Node, Value
from vkconv.ops.activation_codes import Activation
from vkconv.ops.registry import create, find_operator


def single_user(graph: Graph, value: Value, uses: dict[Value, list[Node]]) -> Node | None:
    """The only node that reads ``value``; None when several do, or the caller gets it."""
    readers = uses.get(value, [])
    return readers[0] if len(readers) == 1 and not graph.is_output(value) else None


def scalar(value: Value | None) -> float | None:
    """The number a constant of one element holds."""
    if (
        value is None
        or value.array is None
        or value.array.size != 1
        or value.array.dtype.kind not in "fiu"
    ):
        return None
    return float(value.array.reshape(()))


def close(value: float | None, wanted: float) -> bool:
    """Equal up to float32 rounding of a constant that an exporter wrote."""
    return value is not None and bool(np.isclose(value, wanted, rtol=1e-4, atol=0))


def produced_by(value: Value | None, op_type: str) -> Node | None:
    """The node of that type that computes ``value``."""
    node = None if value is None else value.producer
    return node if node is not None and node.op_type == op_type and node.domain == "" else None


def split_scalar(node: Node) -> tuple[Value, float] | None:
    """(tensor, number) of a two-input node with one scalar constant, whichever side it is on."""
    if len(node.inputs) != 2:
        return None
    for tensor, number in (node.inputs, node.inputs[::-1]):
        found = scalar(number)
        if tensor is not None and not tensor.is_constant and found is not None:
            return tensor, found
    return None


def activation_of(node: Node) -> tuple[Activation, float, float] | None:
    """(code, alpha, beta) of an element-wise y = f(x) that a convolution's epilogue can apply."""
    cls = find_operator(node)
    if cls is None or not hasattr(cls, "activation") or len(node.outputs) != 1:
        return None
    # bounds of Clip: absent, or a constant number each
    if any(v is not None and (v.array is None or v.array.size != 1) for v in node.inputs[1:]):
        return None
    bounds = [None if v is None else v.array for v in node.inputs[1:]]
    found: tuple[Activation, float, float] = create(node).activation(*bounds)  # type: ignore[attr-defined]
    return found
