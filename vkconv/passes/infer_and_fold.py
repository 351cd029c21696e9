"""Concrete types for every value, and constants where shapes and constants decide the result.

Nodes whose output shape depends on what a run computes stay without types; ``unresolved`` tells
them apart, and the session plans them once the shape is known.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from vkconv.errors import InvalidModelError, NodeProblem, UnsupportedModelError, VkconvError
from vkconv.ir import Array, Graph, Node, TensorType, Value, constant, type_of
from vkconv.ops.control_flow import If, Repeated
from vkconv.ops.operator import Operator, UnknownShapeError, as_tuple
from vkconv.ops.registry import create, infer_types
from vkconv.passes.align_operands import align_operands
from vkconv.passes.inline_control_flow import CONTROL_FLOW, Inliner
from vkconv.passes.resolve_sequences import Sequences

#: a folded result may not be larger than this, unless its inputs are: models are untrusted, and a
#: short model can ask for any size of constant. The largest matrix of VGG has 411 MB
FOLD_LIMIT_BYTES = 512 << 20
#: nor may all of them together, unless the model's constants are
FOLD_TOTAL_BYTES = 1 << 30
#: elements of one tensor: no device has memory for more, and sums of what is below do not overflow
LARGEST_TENSOR = 1 << 38


def infer_and_fold(graph: Graph) -> None:
    """Types in place; nodes with known results leave the graph, decided control flow gives way."""
    folding = _Folding(graph)
    graph.nodes = folding.left_of(graph.nodes)
    # what took the place of control flow is part of the model from here on
    listed = {name for name, _ in graph.source_nodes}
    new = [n for n in graph.nodes if n.name in folding.inlined and n.name not in listed]
    graph.source_nodes += [(n.name, n.op_type) for n in new]


class _Folding:
    """One walk over a graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        constants = (v for v in graph.values() if v.is_constant)
        self._budget = max(FOLD_TOTAL_BYTES, 4 * sum(_bytes(v) for v in constants))
        self._sequences = Sequences()
        #: names of the nodes that took the place of others
        self.inlined: set[str] = set()

    def left_of(self, nodes: list[Node]) -> list[Node]:
        """The nodes that are left, with types where these are known."""
        kept: list[Node] = []
        for node in nodes:
            aligned = align_operands(node)
            if aligned is not None and not self._folded(aligned):
                kept.append(aligned)
            inlined = self._inlined(node) if node.op_type in CONTROL_FLOW else None
            if inlined is not None:
                kept += inlined
            elif self._sequences.concerns(node):
                kept += self._resolved(node)
            elif not self._folded(node):
                kept.append(node)
        return kept

    def _folded(self, node: Node) -> bool:
        types = _types(node)
        for index, value in enumerate(node.outputs):
            value.type = types[index] if types else None
        wanted = sum(_bytes(v) for v in node.outputs) if types else 0
        if not types or wanted > self._budget or not _fold(node, wanted):
            return False
        self._budget -= wanted
        return True

    @cached_property
    def _inliner(self) -> Inliner:
        return Inliner(self._graph, self.left_of)

    def _resolved(self, node: Node) -> list[Node]:
        """What is left of a node that reads or makes a sequence of tensors."""
        nodes = self._sequences.resolve(node, self._inliner.names)
        self.inlined.update(n.name for n in nodes if n is not node)
        for value in node.outputs if node in nodes else ():
            value.type = None  # what the model declares may be an int64, but nothing computes it
        return [n for n in nodes if n is node or not self._folded(n)]

    def _inlined(self, node: Node) -> list[Node] | None:
        """What takes the place of an If, Loop or Scan; None when that stays."""
        nodes = self._inliner.nodes_for(node)
        if nodes is not None:
            self._graph.absorbed[node.name] = ("folded", "its graph's nodes are in its place")
            self.inlined.update(n.name for n in nodes)
        return nodes


def unresolved(graph: Graph) -> list[Node]:
    """Nodes whose output types are not known yet, in order."""
    return [
        n for n in graph.nodes if any(v.type is None or not v.type.is_static for v in n.outputs)
    ]


def _types(node: Node) -> tuple[TensorType, ...]:
    """The types of the outputs; none when an input's, or what decides them, is not known yet."""
    if any(v.type is None or not v.type.is_static for v in node.present_inputs):
        return ()
    op = create(node)
    try:
        types = infer_types(op, node)
    except UnknownShapeError as error:
        return _computed_types(op, node) if error.value is None else ()
    except UnsupportedModelError as error:
        if error.nodes:
            raise
        problem = NodeProblem(node.name, node.op_type, str(error), node.opset, "", node.domain)
        raise UnsupportedModelError.from_nodes([problem]) from None
    except VkconvError:
        raise
    except Exception as error:  # shapes that no model has, which an operator does not foresee
        raise InvalidModelError(
            f"{node}: its inputs do not fit: {type(error).__name__}: {error}"
        ) from error
    if len(types) < len(node.outputs):
        raise InvalidModelError(
            f"{node} has {len(node.outputs)} outputs, {node.op_type} gives {len(types)}"
        )
    for type_ in types:
        if type_.is_static and type_.size > LARGEST_TENSOR:
            raise InvalidModelError(
                f"{node}: its output of shape {type_.shape} is larger than any memory; check the "
                "shapes of the model's inputs"
            )
    return types


def _computed_types(op: Operator, node: Node) -> tuple[TensorType, ...]:
    """The types of outputs whose shapes only computing tells; none unless all inputs are known."""
    if isinstance(op, (If, Repeated)) or not all(v.is_constant for v in node.present_inputs):
        return ()
    return tuple(type_of(np.asarray(array)) for array in _computed(op, node))


def _fold(node: Node, wanted: int) -> bool:
    """Replace the outputs by constants when everything they depend on is known."""
    op = create(node)
    known = all(v.is_constant for v in node.present_inputs)
    if not known and not op.needs_types_only:
        return False
    if wanted > max(FOLD_LIMIT_BYTES, 4 * sum(_bytes(v) for v in node.present_inputs)):
        return False
    for value, array in zip(node.outputs, _computed(op, node), strict=False):
        made = constant(value.name, np.asarray(array))
        if made.type != value.type:
            raise InvalidModelError(f"{node}: computed {made.type}, {value.type} was inferred")
        value.type, value.array = made.type, made.array
        value.producer = None
    return True


def _computed(op: Operator, node: Node) -> tuple[Array, ...]:
    try:
        arrays = [None if v is None else _array(v) for v in node.inputs]
        with np.errstate(all="ignore"):
            return as_tuple(op.reference(*arrays))
    except VkconvError as error:
        raise type(error)(f"{node}: {error}") from None
    except Exception as error:
        raise InvalidModelError(
            f"{node} cannot be computed from its constant inputs: {type(error).__name__}: {error}"
        ) from error


def _array(value: Value) -> Array:
    """The constant; where only types are asked for, a broadcast zero, which takes no memory."""
    if value.array is not None:
        return np.asarray(value.array)
    dtype = "object" if value.dtype == "string" else value.dtype
    return np.broadcast_to(np.zeros((), dtype), value.dims)


def _bytes(value: Value) -> int:
    return value.known_type.size * (8 if value.dtype in ("string", "float64", "int64") else 4)
