"""Nodes whose output's size depends on data, computed on the device all the same.

The output gets room for the most it can hold (``Operator.bound``) and the node a second output, a
count of how much of it is used. Both are read back at the end of the node's stage, and what is used
goes on to the next one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import ELEMENT_BYTES
from vkconv.ir import Node, TensorType, Value
from vkconv.ops.registry import create
from vkconv.passes.assign_layouts import host_reason


@dataclass(frozen=True, eq=False)
class Bounded:
    """A node in this form: of ``output`` as much is used along ``axis`` as ``count`` says."""

    output: Value
    count: Value
    axis: int


def bounded(nodes: Iterable[Node], caps: DeviceCaps) -> dict[Node, Bounded]:
    """Those of ``nodes`` (their input types are known) that the device computes, changed into this
    form."""
    found = {node: _bounded(node, caps) for node in nodes}
    return {node: result for node, result in found.items() if result is not None}


def _bounded(node: Node, caps: DeviceCaps) -> Bounded | None:
    op = create(node)
    bound = op.bound(*node.inputs)
    if bound is None or bound.type.size * ELEMENT_BYTES > caps.max_storage_buffer_range:
        return None
    output = node.outputs[0]
    count = Value(f"{node.name}/count", TensorType("int32", (1,)), producer=node)
    typed = Value(output.name, bound.type)
    twin = Node(
        node.op_type, node.inputs, [typed, count], node.attributes, node.name, opset=node.opset
    )
    count.producer = node
    if host_reason(op, twin, caps) is not None:
        return None
    output.type = bound.type
    node.outputs = [output, count]
    return Bounded(output, count, bound.axis)
