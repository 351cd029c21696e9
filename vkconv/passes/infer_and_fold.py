"""Concrete types for every value, and constants wherever the inputs' shapes and constants decide the result.

Nodes whose output shape depends on what a run computes stay without types; ``unresolved`` tells them apart, and the
session plans them once the shape is known.
"""

from __future__ import annotations

import numpy as np

from vkconv.errors import InvalidModelError, VkconvError
from vkconv.ir import Array, Graph, Node, Value, constant
from vkconv.ops.base import UnknownShapeError, as_tuple, create, infer_types

#: a folded result may not be larger than this, unless its inputs are: models are untrusted, and a short
#: model can ask for any size of constant
FOLD_LIMIT_BYTES = 64 << 20


def infer_and_fold(graph: Graph) -> None:
    """Types in place; nodes with known results leave the graph, noted in ``graph.absorbed``."""
    kept: list[Node] = []
    for node in graph.nodes:
        if any(v.type is None or not v.type.is_static for v in node.present_inputs):
            _forget_types(node)
            kept.append(node)
            continue
        op = create(node)
        try:
            types = infer_types(op, node)
        except UnknownShapeError:
            _forget_types(node)
            kept.append(node)
            continue
        if len(types) < len(node.outputs):
            raise InvalidModelError(
                f"{node} has {len(node.outputs)} outputs, {node.op_type} gives {len(types)}"
            )
        for value, type_ in zip(node.outputs, types, strict=False):
            value.type = type_
        if not _fold(node):
            kept.append(node)
    graph.nodes = kept


def unresolved(graph: Graph) -> list[Node]:
    """Nodes whose output types are not known yet, in order."""
    return [
        n for n in graph.nodes if any(v.type is None or not v.type.is_static for v in n.outputs)
    ]


def _forget_types(node: Node) -> None:
    for value in node.outputs:
        value.type = None


def _fold(node: Node) -> bool:
    op = create(node)
    if op.needs_types_only:
        # a broadcast zero has the shape and takes no memory
        arrays: list[Array | None] = [
            None if v is None else np.broadcast_to(np.zeros((), _numpy_dtype(v)), v.dims)
            for v in node.inputs
        ]
    elif all(v.is_constant for v in node.present_inputs):
        arrays = [None if v is None else v.array for v in node.inputs]
    else:
        return False
    wanted = sum(_bytes(v) for v in node.outputs)
    if wanted > max(FOLD_LIMIT_BYTES, 4 * sum(_bytes(v) for v in node.present_inputs)):
        return False
    try:
        with np.errstate(all="ignore"):
            results = as_tuple(op.reference(*arrays))
    except VkconvError as error:
        raise type(error)(f"{node}: {error}") from None
    except (ValueError, IndexError, TypeError, OverflowError) as error:
        raise InvalidModelError(
            f"{node} cannot be computed from its constant inputs: {error}"
        ) from None
    for value, array in zip(node.outputs, results, strict=False):
        made = constant(value.name, np.asarray(array))
        if made.type != value.type:
            raise InvalidModelError(f"{node}: computed {made.type} where {value.type} was inferred")
        value.type, value.array = made.type, made.array
        value.producer = None
    return True


def _numpy_dtype(value: Value) -> str:
    return "object" if value.dtype == "string" else value.dtype


def _bytes(value: Value) -> int:
    return value.known_type.size * (
        8 if value.dtype in ("string", "float64", "int64", "uint64") else 4
    )
