"""Nodes at a model's end that had better compute in LINEAR, where C4 would cost copies.

A detector's decoding parts a map of four channels in two, joins two, one and eighty channels, and
then reshapes and transposes it all: in C4 each part that is no whole vec4 is a copy, and in the end
everything is converted. In LINEAR parts of one batch are views, and joining them is free.

So a node that cuts or joins, free in LINEAR and not in C4, takes LINEAR when all that read it
do, maybe through element-wise operators. What it reads is converted, where it belongs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from vkconv.dispatch import Storage, View, c4_dims
from vkconv.ir import Graph, Layout, Node, Value
from vkconv.ops.operator import FLOATS, Operator


def keep_linear(graph: Graph, operators: Mapping[Node, Operator]) -> set[Node]:
    """Those nodes. Types must be concrete, and it is known which nodes run on the host; layouts
    need not be assigned."""
    uses = graph.uses()
    kept: set[Node] = set()
    reads_linear: dict[Node, bool] = {}
    for node in reversed(graph.nodes):
        op = operators[node]
        if node.host_reason is not None:
            reads_linear[node] = True
            continue
        # a result that nobody reads is an output of the model, which is LINEAR
        wanted = all(reads_linear[r] for v in node.outputs for r in uses.get(v, []))
        if wanted and _saves_copies(op, node):
            kept.add(node)
        follows = wanted and (bool(op.overwrites) or node in kept)
        reads_linear[node] = follows or _layout_given_c4(op, node) == "linear"
    return kept


def _layout_given_c4(op: Operator, node: Node) -> Layout:
    with _in_c4(node):
        return op.layout(node.inputs, node.outputs)


def _saves_copies(op: Operator, node: Node) -> bool:
    """Whether the node has views where C4 copies, of most of what it reads."""
    variables = _variables(node)
    if not variables or not all(map(_may_be_c4, (*node.outputs, *variables))):
        return False
    if _layout_given_c4(op, node) != "c4":
        return False
    with _in_c4(node):
        copies = _copies(op, node, "c4")
    # what is no copy in C4 is converted on its own instead of as a part of the whole
    return _copies(op, node, "linear") == 0 and copies > 0 and copies >= len(variables) - 1


def _copies(op: Operator, node: Node, layout: Layout) -> int:
    """How many of the values the node cuts or joins it would have to copy; for another, none of
    this, as many as it has."""
    first = node.inputs[0]
    if (
        first is not None
        and not first.is_constant
        and op.view(_view(first, layout), node.outputs) is not None
    ):
        return 0
    places = op.place(_view(node.outputs[0], layout), node.inputs)
    if places is None:
        return max(len(node.outputs), len(_variables(node)))
    return sum(p is None for p, v in zip(places, node.inputs, strict=True) if v in _variables(node))


def _variables(node: Node) -> list[Value]:
    return [v for v in node.present_inputs if not v.is_constant]


def _may_be_c4(value: Value) -> bool:
    return value.dtype in FLOATS and 3 <= len(value.dims) <= 5 and 0 not in value.dims


def _view(value: Value, layout: Layout) -> View:
    """The value alone in memory."""
    stride = 0
    if layout == "c4":
        _, blocks, h, w = c4_dims(value.dims)
        stride = blocks * h * w * 4
    return View(Storage(0, "probe"), value.dims, value.dtype, layout, 0, stride)


@contextmanager
def _in_c4(node: Node) -> Iterator[None]:
    """The node's inputs as if they were in C4."""
    inputs = [v for v in _variables(node) if _may_be_c4(v)]
    before = [v.layout for v in inputs]
    for value in inputs:
        value.layout = "c4"
    try:
        yield
    finally:
        for value, layout in zip(inputs, before, strict=True):
            value.layout = layout
