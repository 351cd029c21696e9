"""Transposes that cancel disappear, also where functions of single elements stand between them.

    Transpose(q) of Transpose(p)                 ->  Transpose(p then q), or nothing
    Transpose(q) of f(... Transpose(p) of x)     ->  f(... x) when q undoes p

f: any function of one element, or one of an element and a constant number. Values in between that
others read stop it.
"""

from __future__ import annotations

from vkconv.ir import Graph, Node, TensorType, Value
from vkconv.passes.patterns import activation_of, produced_by, scalar, single_user

#: functions of one element that are no activations
_ELEMENTWISE = {
    "Sin",
    "Cos",
    "Tan",
    "Asin",
    "Acos",
    "Atan",
    "Sinh",
    "Cosh",
    "Asinh",
    "Acosh",
    "Atanh",
    "Cast",
    "Not",
}
_WITH_NUMBER = {"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"}

Uses = dict[Value, list[Node]]


def cancel_transposes(graph: Graph) -> None:
    for node in list(graph.nodes):
        order = _order(node) if node.op_type == "Transpose" and not node.domain else None
        if order is None or all(node is not n for n in graph.nodes):
            continue
        uses = graph.uses()
        chain, first = _chain(graph, node, uses)
        before = None if first is None else _order(first)
        if first is None or before is None or len(before) != len(order):
            continue
        combined = tuple(before[i] for i in order)
        if combined == tuple(range(len(order))):
            _cancel(graph, node, chain, first)
        elif not chain:
            node.inputs = [first.inputs[0]]
            node.attributes["perm"] = combined
            node.fused += [first.name, *first.fused]
            graph.keep_live()


def _chain(graph: Graph, node: Node, uses: Uses) -> tuple[list[Node], Node | None]:
    """The functions before ``node``, last first, and the Transpose that they start from."""
    chain: list[Node] = []
    value = node.inputs[0]
    while value is not None:
        transpose = produced_by(value, "Transpose")
        if transpose is not None:
            # without functions between them, other readers may keep the first one
            private = not chain or single_user(graph, value, uses) is not None
            return chain, transpose if private else None
        producer = value.producer
        if (
            producer is None
            or single_user(graph, value, uses) is None
            or not _is_elementwise(producer)
        ):
            break
        chain.append(producer)
        value = _operand(producer)
    return chain, None


def _is_elementwise(node: Node) -> bool:
    if node.domain or len(node.outputs) != 1 or _operand(node) is None:
        return False
    if node.op_type in _WITH_NUMBER:
        return len(node.present_inputs) == 2 and _keeps_shape(node)
    return node.op_type in _ELEMENTWISE or activation_of(node) is not None


def _operand(node: Node) -> Value | None:
    """The tensor that the function is of."""
    if node.op_type in _WITH_NUMBER:
        tensors = [v for v in node.present_inputs if scalar(v) is None]
        return tensors[0] if len(tensors) == 1 and not tensors[0].is_constant else None
    return node.inputs[0]


def _keeps_shape(node: Node) -> bool:
    """False where a constant of one element adds dimensions."""
    x, y = _operand(node), node.outputs[0]
    return (
        x is not None and x.type is not None and y.type is not None and x.type.shape == y.type.shape
    )


def _order(node: Node) -> tuple[int, ...] | None:
    x = node.inputs[0]
    order = node.attributes.get("perm")
    if order is None:
        shape = None if x is None or x.type is None else x.type.shape
        return None if shape is None else tuple(reversed(range(len(shape))))
    return tuple(order) if sorted(order) == list(range(len(order))) else None


def _cancel(graph: Graph, node: Node, chain: list[Node], first: Node) -> None:
    """Let the chain start from what ``first`` transposed, and take the place of ``node``."""
    source, result = first.inputs[0], node.outputs[0]
    if source is None:
        return
    if not chain:
        if graph.is_output(result):
            return
        graph.replace_value(result, source)
        graph.remove([node])
        graph.absorbed[node.name] = ("folded", "undoes the transpose before it")
        graph.keep_live()
        return
    start, end = chain[-1], chain[0]
    start.inputs = [source if v is first.outputs[0] else v for v in start.inputs]
    for function in chain:
        value = function.outputs[0]
        if value.type is not None and source.type is not None:
            value.type = TensorType(value.type.dtype, source.type.shape)
    end.outputs = [result]
    result.producer = end
    end.fused += [first.name, node.name]
    graph.remove([first, node])
