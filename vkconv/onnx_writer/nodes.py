"""A node and a constant of the graph as NodeProto and TensorProto."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

from vkconv.ir import Array, Graph, Node, Value

__all__ = ["held_graphs", "node_proto", "same", "tensor_proto"]

#: before this opset, Gemm broadcasts its last operand only where it is told to
_GEMM_BROADCASTS_BY_ITSELF = 7


def held_graphs(node: NodeProto) -> list[GraphProto]:
    """The graphs in the node's attributes."""
    return [item.g for item in node.attribute if item.type == AttributeProto.GRAPH]


def node_proto(
    node: Node,
    origin: NodeProto | None,
    attributes: Mapping[str, Any],
    name_of: Callable[[Value], str],
    opset: int,
) -> NodeProto:
    """The node, of standard operators, as it is written.

    origin: the node of the file that it was, with ``attributes`` as they were read from there;
    what a rewrite left as it was (the doc string, metadata, attributes) is kept byte for byte.
    opset: of the model, for the node's domain.
    """
    made = NodeProto()
    if origin is not None:
        made.CopyFrom(origin)
    made.name, made.op_type = node.name, node.op_type
    if node.domain or made.domain not in ("", "ai.onnx"):
        made.domain = node.domain
    wanted = dict(node.attributes)
    # what the graphs it holds capture, they find by name
    formal = len(node.inputs) - int(wanted.pop("captured", 0))
    made.input[:] = ["" if value is None else name_of(value) for value in node.inputs[:formal]]
    omitted = [not name for name in made.output] + [False] * len(node.outputs)
    made.output[:] = [
        "" if absent else name_of(value)
        for value, absent in zip(node.outputs, omitted, strict=False)
    ]
    if node.op_type == "Gemm" and not node.domain and opset < _GEMM_BROADCASTS_BY_ITSELF:
        wanted["broadcast"] = 1
    kept = [
        item
        for item in made.attribute
        if item.name in wanted and same(attributes.get(item.name), wanted[item.name])
    ]
    there = {item.name for item in kept}
    kept += [_attribute(key, value) for key, value in wanted.items() if key not in there]
    del made.attribute[:]
    made.attribute.extend(kept)
    return made


def tensor_proto(name: str, array: Array) -> TensorProto:
    """A constant under its name, in its own element type."""
    made: TensorProto = numpy_helper.from_array(np.ascontiguousarray(array), name)
    made.dims[:] = array.shape  # ascontiguousarray gives a scalar a dimension
    return made


def same(one: Any, other: Any) -> bool:
    """Whether two attributes of a node are the same."""
    if isinstance(one, np.ndarray | Graph) or isinstance(other, np.ndarray | Graph):
        return one is other
    return type(one) is type(other) and bool(one == other)


def _attribute(name: str, value: Any) -> AttributeProto:
    if isinstance(value, np.ndarray):
        value = tensor_proto(name, value)
    if isinstance(value, tuple):
        value = list(value)
    return helper.make_attribute(name, value)
