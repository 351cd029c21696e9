"""If, Loop and Scan give way to the nodes of their graphs where what decides them is known.

An If whose condition is a constant becomes its taken branch. A Loop becomes its iterations, one
behind the other, when its trip count is known and every iteration's condition turns out constant;
a Scan, when the length of its inputs is known; both only while few nodes are left of them after
folding, as is the case for the loops over shapes that exporters write. Every other If or loop stays
for the stages to run.

Not a pass of its own: ``infer_and_fold`` calls it on its way, since a branch is known only when
everything before it is folded, and what follows depends on the branch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakSet

import numpy as np

from vkconv.errors import VkconvError
from vkconv.ir import Array, Graph, Names, Node, Value, constant
from vkconv.ops.control_flow import If, Loop, Repeated, Scan, flag, trip_count
from vkconv.ops.registry import create

#: an unrolled loop leaves no more nodes than this behind
UNROLLED_NODES = 1024
#: nodes that all unrolling in a graph may fold: about a second of it
UNROLLED_WORK = 20_000

CONTROL_FLOW = ("If", "Loop", "Scan")

#: types and folds nodes in order, returning those that are left
Fold = Callable[[list[Node]], list[Node]]


#: bodies that used up all of that: types are inferred several times, and once is enough to know
_ENDLESS: WeakSet[Graph] = WeakSet()


class _TooLong(Exception):
    """The loop is not worth unrolling, or cannot be."""


class Inliner:
    """Puts nodes in the place of If, Loop and Scan, for one graph; ``fold`` is its caller's."""

    def __init__(self, graph: Graph, fold: Fold) -> None:
        self.names = Names({n.name for n in graph.nodes} | {v.name for v in graph.values()})
        self.fold = fold
        self.work = UNROLLED_WORK

    def nodes_for(self, node: Node) -> list[Node] | None:
        """The nodes, folded, that compute the outputs of ``node``; None when it stays.

        Raises InvalidModelError where the graphs don't fit the node.
        """
        try:
            op = create(node)
            if isinstance(op, If):
                return _inline_branch(op, node, self)
            if isinstance(op, Loop):
                return _unroll_loop(op, node, self)
            if isinstance(op, Scan):
                return _unroll_scan(op, node, self)
        except _TooLong:
            return None
        except VkconvError as error:
            message = str(error)
            raise type(error)(message if str(node) in message else f"{node}: {message}") from None
        return None


def _inline_branch(op: If, node: Node, inliner: Inliner) -> list[Node] | None:
    cond, *captured = node.inputs
    if cond is None or cond.array is None:
        return None
    op.check(len(captured))
    branch = op.branch(cond.array)
    nodes, results = _instantiate(branch, captured, node.name, inliner.names, node.outputs)
    return inliner.fold(nodes + _renamed(results, node, inliner.names))


def _unroll_loop(op: Loop, node: Node, inliner: Inliner) -> list[Node] | None:
    op.check(len(node.inputs))
    trips, cond, *given = node.inputs
    if (trips is not None and trips.array is None) or (cond is not None and cond.array is None):
        return None
    last = trip_count(None if trips is None else trips.array)
    going_on = cond is None or cond.array is None or flag(cond.array, "the condition")
    states = op.state_count()
    state, captured = given[:states], given[states:]
    unrolled = _Unrolled(op, node, inliner)
    step = 0
    while going_on and (last is None or step < last):
        number = constant(inliner.names.free(f"{node.name}/iteration"), op.number(step))
        holds = constant(inliner.names.free(f"{node.name}/condition"), op.holds())
        condition, *results = unrolled.body([number, holds, *state, *captured], step)
        if condition is None or condition.array is None:
            raise _TooLong
        going_on = flag(condition.array, "the condition")
        state = results[:states]
        unrolled.collect(results[states:])
        step += 1
    return unrolled.finish(state, [0] * (len(node.outputs) - states))


def _unroll_scan(op: Scan, node: Node, inliner: Inliner) -> list[Node] | None:
    op.check(len(node.inputs))
    states, scanned = op.state_count(), op.state_count() + op.num_scan_inputs
    state, captured = node.inputs[:states], node.inputs[scanned:]
    sources = [v for v in node.inputs[states:scanned] if v is not None]
    if any(v.type is None or not v.type.is_static for v in sources):
        return None
    length = op.length([v.dims for v in sources])
    unrolled = _Unrolled(op, node, inliner)
    for step in range(length):
        slices: list[Value | None] = []
        for index, source in enumerate(sources):
            position = length - 1 - step if op.input_reversed(index) else step
            axis = op.input_axis(index, len(source.dims))
            slices.append(unrolled.slice(source, position, axis))
        results = unrolled.body([*state, *slices, *captured], step)
        state = results[:states]
        unrolled.collect(results[states:])
    scans = range(len(node.outputs) - states)
    unrolled.reverse([i for i in scans if op.output_reversed(i)])
    return unrolled.finish(state, [op.output_axis(i) for i in scans])


class _Unrolled:
    """Iterations of a loop as nodes of the graph around it."""

    def __init__(self, op: Repeated, node: Node, inliner: Inliner) -> None:
        if op.body in _ENDLESS:
            raise _TooLong
        self._op, self._node, self._inliner = op, node, inliner
        self._names = inliner.names
        self._kept: list[Node] = []
        self._scans: list[list[Value | None]] = []

    def body(self, given: Sequence[Value | None], step: int) -> list[Value | None]:
        """The outputs of the body on these inputs. Raises _TooLong beyond the limits."""
        prefix = f"{self._node.name}/{step}"
        nodes, results = _instantiate(self._op.body, given, prefix, self._names)
        # one account for all loops of the graph: those inside others would multiply
        self._inliner.work -= len(nodes) + 1
        if self._inliner.work < 0:
            _ENDLESS.add(self._op.body)
            raise _TooLong
        self._add(nodes)
        return results

    def slice(self, source: Value, position: int, axis: int) -> Value:
        """``source`` at ``position`` of ``axis``, which goes away."""
        index = constant(self._names.free(f"{self._node.name}/position"), _int64(position))
        return self._made("Gather", [source, index], {"axis": axis})

    def collect(self, results: Sequence[Value | None]) -> None:
        """An iteration's parts of what is stacked at the end."""
        if not self._scans:
            self._scans = [[] for _ in results]
        for parts, value in zip(self._scans, results, strict=True):
            parts.append(value)

    def reverse(self, indices: Sequence[int]) -> None:
        """These of the stacked outputs begin with the last iteration."""
        for index in indices:
            if self._scans:
                self._scans[index].reverse()

    def finish(self, state: Sequence[Value | None], axes: Sequence[int]) -> list[Node]:
        """All nodes, the node's outputs computed by the last of them."""
        if axes and not self._scans:  # stacks of nothing: their types are the body's to declare
            raise _TooLong
        outputs = self._node.outputs[len(state) :]
        stacked = [
            self._stacked(parts, axis, output)
            for parts, axis, output in zip(self._scans, axes, outputs, strict=True)
        ]
        results = [*state, *stacked]
        self._kept += self._inliner.fold(_renamed(results, self._node, self._names))
        return self._kept

    def _stacked(self, parts: Sequence[Value | None], axis: int, output: Value) -> Value:
        axes = constant(self._names.free(f"{self._node.name}/axes"), _int64([axis]))
        rows: list[Value | None] = []
        for part in parts:
            squeezed = [part, axes] if self._node.opset >= 13 else [part]
            attributes = {} if self._node.opset >= 13 else {"axes": (axis,)}
            rows.append(self._made("Unsqueeze", squeezed, attributes))
        return self._made("Concat", rows, {"axis": axis}, output)

    def _made(
        self,
        op_type: str,
        inputs: list[Value | None],
        attributes: Mapping[str, Any],
        output: Value | None = None,
    ) -> Value:
        name = self._names.free(f"{self._node.name}/{op_type}")
        value = output or Value(name)
        self._add([Node(op_type, inputs, [value], dict(attributes), name, "", self._node.opset)])
        return value

    def _add(self, nodes: list[Node]) -> None:
        self._kept += self._inliner.fold(nodes)
        if len(self._kept) > UNROLLED_NODES:
            raise _TooLong


def _instantiate(
    graph: Graph,
    given: Sequence[Value | None],
    prefix: str,
    names: Names,
    outputs: Sequence[Value] = (),
) -> tuple[list[Node], list[Value | None]]:
    """The nodes and outputs of ``graph`` anew, its inputs replaced by ``given``.

    ``outputs`` are computed directly where a node of the graph computes one.
    """
    twin: dict[Value, Value | None] = dict(zip(graph.inputs, given, strict=True))
    for value, output in zip(graph.outputs, outputs, strict=False):
        if value.producer is not None:
            twin.setdefault(value, output)

    def place(value: Value | None) -> Value | None:
        if value is None:
            return None
        if value not in twin:
            twin[value] = Value(names.free(f"{prefix}/{value.name}"), value.type, value.array)
        return twin[value]

    nodes = []
    for node in graph.nodes:
        inputs = [place(v) for v in node.inputs]
        outputs = [v for v in map(place, node.outputs) if v is not None]
        name = names.free(f"{prefix}/{node.name}")
        attributes = dict(node.attributes)
        nodes.append(Node(node.op_type, inputs, outputs, attributes, name, node.domain, node.opset))
    return nodes, [place(v) for v in graph.outputs]


def _renamed(results: Sequence[Value | None], node: Node, names: Names) -> list[Node]:
    """Identities from what was computed to the outputs of the node it was computed for, where it
    is not these themselves."""
    made = []
    for result, output in zip(results, node.outputs, strict=True):
        if result is output:
            continue
        name = names.free(f"{node.name}/{output.name}")
        made.append(Node("Identity", [result], [output], {}, name, "", node.opset))
    return made


def _int64(value: int | list[int]) -> Array:
    return np.array(value, np.int64)
