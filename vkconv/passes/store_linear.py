"""A convolution whose result nobody wants in C4 stores it in LINEAR.

    ToLinear(Conv(x))  =  Conv(x), its output in LINEAR

A detector's last maps are its largest outputs, and what decodes them in the model reshapes and
transposes, which C4 cannot. The convolution writes every element anyway: a dispatch less, and a
write and a read of the whole map.

Runs behind ``assign_layouts``, which inserts the conversions.
"""

from __future__ import annotations

from vkconv.ir import Graph, Value
from vkconv.ops.registry import create
from vkconv.passes.patterns import single_user


def store_linear(graph: Graph) -> None:
    uses = graph.uses()
    stored: dict[Value, Value] = {}
    for node in graph.nodes:
        source = node.inputs[0] if node.inputs else None
        if (node.domain, node.op_type) != ("vkconv", "ToLinear") or source is None:
            continue
        if single_user(graph, source, uses) is node and _stores_linear(source):
            source.layout = "linear"
            stored[node.outputs[0]] = source
    for old, new in stored.items():
        for reader in uses.get(old, []):
            reader.inputs = [new if v is old else v for v in reader.inputs]
    graph.outputs = [stored.get(v, v) for v in graph.outputs]
    graph.remove(old.producer for old in stored if old.producer is not None)


def _stores_linear(value: Value) -> bool:
    node = value.producer
    return node is not None and node.host_reason is None and create(node).stores_linear
