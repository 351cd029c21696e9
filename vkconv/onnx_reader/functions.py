"""Model-local functions (the dynamo exporter writes them) are expanded into the graph.

onnx's inliner does the work, but follows a function that calls itself for ever, and expands
functions that call each other several times each into any number of nodes; so both are counted
first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import onnx.inliner
from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto

from vkconv.errors import InvalidModelError

#: nodes after expansion, and calls inside calls: far beyond any exporter's
MAX_NODES = 1_000_000
MAX_DEPTH = 100

#: what a function of these domains is called may be an operator's name, but the function counts
_STANDARD = ("", "ai.onnx", "vkconv")

Key = tuple[str, str, str]


def inline_functions(
    model: ModelProto, label: str, is_known: Callable[[str, str], bool] | None = None
) -> ModelProto:
    """The model without its functions. Raises InvalidModelError.

    A function that ``is_known`` (domain, name) as an operator of a domain other than the standard's
    stays a node: its body is for runtimes that do not have the operator.
    """
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    if _size(model.graph.node, functions, {}, 0, label) > MAX_NODES:
        raise InvalidModelError(f"{label}: its functions expand to more than {MAX_NODES} nodes")
    others = {(f.domain, f.name) for f in model.functions if f.domain not in _STANDARD}
    # a name that is no UTF-8 is bytes, and no operator's
    named = sorted(key for key in others if all(isinstance(part, str) for part in key))
    kept = [key for key in named if is_known is not None and is_known(*key)]
    try:
        if kept:
            return onnx.inliner.inline_selected_functions(model, kept, exclude=True)
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:  # the C++ inliner raises several kinds
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InvalidModelError(f"{label}: its functions cannot be expanded: {why}") from None


def _size(
    nodes: Iterable[NodeProto],
    functions: Mapping[Key, FunctionProto],
    known: dict[Key, int],
    depth: int,
    label: str,
) -> int:
    """Nodes after expansion. A function that calls itself is as deep as one can go."""
    if depth > MAX_DEPTH:
        raise InvalidModelError(
            f"{label}: its functions call themselves, or each other more than {MAX_DEPTH} deep"
        )
    total = 0
    for node in nodes:
        key = (node.domain, node.op_type, node.overload)
        if key in functions and key not in known:
            known[key] = _size(functions[key].node, functions, known, depth + 1, label)
        total += known.get(key, 1)
        for item in node.attribute:
            graphs = [item.g] if item.type == AttributeProto.GRAPH else item.graphs
            for graph in graphs:
                total += _size(graph.node, functions, known, depth + 1, label)
    return total
