"""Types of a graph's values, for a graph that may hold operators which cannot be run here."""

from __future__ import annotations

from collections.abc import Mapping

from vkconv.errors import InvalidModelError, UnsupportedModelError
from vkconv.ir import Graph, Node, Opaque, TensorType, Value
from vkconv.ops.registry import check_inputs, create, find_operator
from vkconv.passes import infer_and_fold
from vkconv.placement import problems

__all__ = ["Shapes", "annotate", "check_nodes", "flops_of", "typed"]

#: concrete shapes of inputs, by name
Shapes = Mapping[str, tuple[int, ...]]


def typed(graph: Graph, shapes: Shapes | None = None, *, strict: bool = False) -> Graph:
    """A copy with types and constants as far as they follow, at these shapes of the inputs.

    Nodes that cannot be run here are not in it, and the types of what they compute stay open.
    strict: raises InvalidModelError where the graph and the shapes do not fit.
    """
    return _typed(graph, shapes, strict)[0]


def annotate(graph: Graph) -> None:
    """Gives the graph's values the types and constants that follow from what it declares.

    Nodes stay, except those of which every output is such a constant.
    """
    twin, values = _typed(graph, None, False)
    found = {value.name: value for value in (*values, *twin.values())}
    for value in graph.values():
        known = found.get(value.name)
        if known is None:
            continue
        if known.type is not None:
            value.type = known.type
        if known.array is not None and value.array is None:
            value.array, value.producer = known.array, None
    graph.nodes = [n for n in graph.nodes if any(v.array is None for v in n.outputs)]


def check_nodes(graph: Graph) -> None:
    """Raises InvalidModelError where a node of an operator known here has attributes or inputs
    that the operator does not: passes take them for granted."""
    for node in graph.nodes:
        if node.domain not in ("", "ai.onnx") or find_operator(node) is None:
            continue
        opaque = [name for name, v in node.attributes.items() if isinstance(v, Opaque)]
        if opaque:
            raise InvalidModelError(f"{node}: attribute '{opaque[0]}' has a type it cannot have")
        check_inputs(create(node), node)


def flops_of(graph: Graph) -> int:
    """Floating-point operations of the nodes of a ``typed`` graph."""
    return sum(_flops(node) for node in graph.nodes)


def _typed(graph: Graph, shapes: Shapes | None, strict: bool) -> tuple[Graph, list[Value]]:
    """``typed``, with the values of all nodes, folded ones included."""
    unknown: set[str] = set()
    while True:
        twin = _known_part(graph, unknown)
        values = list(twin.values())
        for value in twin.inputs:
            if shapes is not None and value.name in shapes and value.type is not None:
                value.type = TensorType(value.type.dtype, tuple(shapes[value.name]))
        try:
            infer_and_fold(twin)
        except UnsupportedModelError as error:
            found = {problem.node for problem in error.nodes}
        except InvalidModelError as error:
            if strict:
                raise
            # every message of a node begins with it
            found = {node.name for node in twin.nodes if str(error).startswith(str(node))}
        else:
            return twin, values
        found &= {node.name for node in twin.nodes}
        if not found:
            return twin, values
        unknown |= found


def _known_part(graph: Graph, unknown: set[str]) -> Graph:
    """A copy without the nodes that cannot be run here, and those named ``unknown``."""
    twin = graph.copy()
    twin.nodes = [
        node
        for node in twin.nodes
        if node.name not in unknown and not problems(Graph("", [], [], [node], graph.opsets))
    ]
    return twin


def _flops(node: Node) -> int:
    values = [*node.present_inputs, *node.outputs]
    if not all(value.type is not None and value.type.is_static for value in values):
        return 0
    return create(node).flops(node.inputs, node.outputs)
