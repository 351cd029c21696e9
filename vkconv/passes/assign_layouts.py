"""Where each node runs, and the layout of each value.

Conversions become nodes (ToC4, ToLinear) of the graph. Greedy in topological order: a node says
which layout it wants, given those its inputs have (but for what ``keep_linear`` finds); a value is
converted at most once in each direction, however many readers want the other layout.
"""

from __future__ import annotations

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import ELEMENT_BYTES
from vkconv.ir import Graph, Layout, Node, Value
from vkconv.ops.operator import DEVICE_DTYPES, Operator, has_method
from vkconv.ops.registry import create
from vkconv.passes.bound_integers import interval
from vkconv.passes.keep_linear import keep_linear


def assign_layouts(graph: Graph, caps: DeviceCaps) -> None:
    """Set ``Node.host_reason`` and ``Value.layout``, inserting conversions.

    Types must be concrete.
    """
    converted: dict[tuple[Value, Layout], Value] = {}
    nodes: list[Node] = []

    def in_layout(value: Value, layout: Layout) -> Value:
        if value.is_constant or value.layout == layout:
            return value
        key = (value, layout)
        if key not in converted:
            node = conversion(value, layout)
            nodes.append(node)
            converted[key] = node.outputs[0]
            converted[(node.outputs[0], value.layout)] = value
        return converted[key]

    operators = {node: create(node) for node in graph.nodes}
    for node, op in operators.items():
        node.host_reason = host_reason(op, node, caps)
    linear = keep_linear(graph, operators)
    for node, op in operators.items():
        kept = node.host_reason is not None or node in linear
        layout: Layout = "linear" if kept else op.layout(node.inputs, node.outputs)
        node.inputs = [
            None if v is None else in_layout(v, "linear" if i in op.linear_inputs else layout)
            for i, v in enumerate(node.inputs)
        ]
        for value in node.outputs:
            value.layout = layout
        nodes.append(node)
    graph.outputs = [in_layout(v, "linear") for v in graph.outputs]
    graph.nodes = nodes


def conversion(value: Value, layout: Layout) -> Node:
    """A node that copies ``value`` into ``layout``."""
    name = f"{value.name}/{layout}"
    op_type = "ToC4" if layout == "c4" else "ToLinear"
    return Node(op_type, [value], [Value(name, value.type, layout=layout)], {}, name, "vkconv", 1)


def host_reason(op: Operator, node: Node, caps: DeviceCaps) -> str | None:
    """Why the node cannot run on the device, or None."""
    cls = type(op)
    if caps.host_only:
        return "the reference device computes everything with numpy"
    if not has_method(cls, "lower") and not has_method(cls, "view"):
        return f"{node.op_type} has no kernel"
    for position, value in enumerate(node.inputs):
        if value is None or value.is_constant:
            continue
        if position in op.constant_inputs:
            return f"its input '{value.name}' is computed by the model"
        allowed = DEVICE_DTYPES if position in op.linear_inputs else op.device_dtypes
        if value.dtype not in allowed and not _fits_int32(op, value):
            return f"{node.op_type} has no kernel for {value.dtype}"
    if (large := _too_large(op, node, caps)) is not None:
        return (
            f"its constant '{large.name}' exceeds the device's maxStorageBufferRange of "
            f"{caps.max_storage_buffer_range} bytes"
        )
    for value in node.outputs:
        known = value.dtype in op.device_dtypes or value.dtype in op.result_dtypes
        if not known and not all(_fits_int32(op, v) for v in (value, *_wide_constants(node))):
            return f"{node.op_type} has no kernel for {value.dtype}"
    return op.unsupported(node.inputs, node.outputs)


def _too_large(op: Operator, node: Node, caps: DeviceCaps) -> Value | None:
    """A constant that no buffer of the device can hold, such as the table of a large embedding."""
    for value in node.present_inputs:
        size = value.known_type.size * ELEMENT_BYTES if value.is_constant else 0
        if size > caps.max_storage_buffer_range and not op.splits_constants:
            return value
    return None


def _wide_constants(node: Node) -> list[Value]:
    """Constants that the device holds cut to int32, which is no matter only where they fit."""
    return [v for v in node.present_inputs if v.is_constant and v.dtype == "int64"]


def _fits_int32(op: Operator, value: Value) -> bool:
    """Whether kernels for int32 do for this int64: no element can be outside."""
    if value.dtype != "int64" or "int32" not in op.device_dtypes:
        return False
    bounds = interval(value)
    return bounds is not None and bounds[0] >= -(2**31) and bounds[1] < 2**31
