"""What cuts, moves, computes element by element and joins linear tensors becomes one node, which
writes each of its parts where it belongs.

    Conv -> Reshape -> Transpose -> Sigmoid -+-> Slice -> Mul -> Add -> Mul -+-> Concat -> Reshape
                                             +-> Slice -> Mul -> Pow -> Mul -+
                                             +-> Slice ----------------------+

    =  Conv -> Assemble(part: Sigmoid, Mul, Add, Mul;  part: Sigmoid, Mul, Pow, Mul;  part: Sigmoid)

So detectors decode their maps, three times over with a Concat behind: copies of everything, five
times, where each element is read once and written once here. A part is followed from the result
back through what only moves elements and through functions of one element, or of one and that of
another tensor (a constant, mostly), to the value that something else computes: its place there and
in the result is a walk in strides.

A node goes into it when all that read it do. What the kernel has no room for (loops, functions)
stays a node of its own. So do functions alone, without a copy among them: each writes over what it
reads. Runs behind ``assign_layouts``: in C4 the same operators are views.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import ELEMENT_BYTES, Storage, View
from vkconv.ir import Graph, Node, Value
from vkconv.ops.operator import FLOATS
from vkconv.ops.parts import OPERATORS, Part
from vkconv.ops.registry import create
from vkconv.passes.part_traces import MOVING, Trace, whole
from vkconv.passes.patterns import activation_of

#: nodes of one assembly, and parts: more than any decoder has
MOST_NODES, MOST_PARTS = 256, 64
#: how often an assembly is tried again without nodes that have to be left out
MOST_TRIALS = 8

#: who reads a value; the outputs of the graph, which the caller reads, are not there
Readers = dict[Value, list[Node]]


def assemble_parts(graph: Graph, caps: DeviceCaps) -> None:
    # compilers that do not unroll (SwiftShader) do not fold constants either: they would compute
    # every function that a step can be, and take ten times as long
    if not caps.unrolls_loops:
        return
    uses, outputs = graph.uses(), set(graph.outputs)
    read = {v: uses.get(v, []) for n in graph.nodes for v in n.outputs if v not in outputs}
    takers = {n for n in graph.nodes if _takes_part(n, caps)}
    place = {node: i for i, node in enumerate(graph.nodes)}
    settled: set[Node] = set()
    gone: set[Node] = set()
    for root in reversed(graph.nodes):
        if root in settled or root not in takers or len(root.outputs) != 1:
            continue
        region = _region(root, takers, read, set())
        if not any(node.op_type in MOVING for node in region):
            settled |= region  # nor is there anything to move before one of these
            continue
        found = _assembly(root, takers, read)
        if found is None:
            continue
        region, traces = found
        settled |= region
        gone |= region
        graph.nodes[place[root]] = _assembled(root, sorted(region, key=place.__getitem__), traces)
    graph.remove(gone)


def _assembled(root: Node, region: list[Node], traces: list[Trace]) -> Node:
    """What takes ``root``'s place, and does the work of the region, nodes in order."""
    inputs: list[Value | None] = []
    parts: list[Part] = []
    for trace in traces:
        values = (trace.value, *trace.tensors)
        inputs += [v for v in dict.fromkeys(values) if v not in inputs]
        parts.append(trace.part(tuple(inputs.index(v) for v in values)))
    result = root.outputs[0]
    attributes = {"shape": result.dims, "parts": tuple(parts)}
    node = Node("Assemble", inputs, [result], attributes, root.name, "vkconv", 1)
    names = [name for n in region for name in (n.name, *n.fused)]
    node.fused = [name for name in names if name != node.name]
    return node


def _assembly(root: Node, takers: set[Node], read: Readers) -> tuple[set[Node], list[Trace]] | None:
    """The nodes that go into one with ``root``, and its parts; None where that gains nothing."""
    opaque: set[Node] = set()
    for _ in range(MOST_TRIALS):
        region = _region(root, takers, read, opaque)
        traces, stopped = _followed(root, region)
        if not stopped:
            break
        opaque |= stopped
    if stopped or root in opaque or len(traces) > MOST_PARTS:
        return None
    before = {node: _dispatches(node) for node in region}
    written = [n for elements in before.values() for n in elements]
    after = [prod(t.size) for t in traces]
    copies = any(before[node] for node in region if node.op_type in MOVING)
    gains = copies and len(after) < len(written) and sum(after) <= sum(written)
    return (region, traces) if gains else None


def _region(root: Node, takers: set[Node], read: Readers, opaque: set[Node]) -> set[Node]:
    """``root`` and what only they read, as far as it takes part and is not opaque."""
    region = {root}
    pending = _producers([root])
    while pending:
        joined = [
            node
            for node in pending & takers
            if node not in opaque
            and all(v in read and region.issuperset(read[v]) for v in node.outputs)
        ]
        if not joined or len(region) + len(joined) > MOST_NODES:
            break
        region.update(joined)
        pending = (pending | _producers(joined)) - region
    return region


def _producers(nodes: Iterable[Node]) -> set[Node]:
    found = {v.producer for node in nodes for v in node.present_inputs}
    return {node for node in found if node is not None}


def _followed(root: Node, region: set[Node]) -> tuple[list[Trace], set[Node]]:
    """The parts of ``root``'s result, each followed back out of the region; and the nodes of the
    region that one does not get through, or reads beside what it follows."""
    traces: list[Trace] = []
    stopped: set[Node] = set()
    pending = [whole(root.outputs[0])]
    while pending and len(traces) <= MOST_PARTS:
        trace = pending.pop()
        node = trace.value.producer
        if node is None or node not in region:
            traces.append(trace)
            continue
        before = trace.through(node)
        if before is None:
            stopped.add(node)
        else:
            pending += before[::-1]
            beside = {t.tensors[-1].producer for t in before if len(t.tensors) > len(trace.tensors)}
            stopped |= {n for n in beside if n in region}
    return traces, stopped


def _takes_part(node: Node, caps: DeviceCaps) -> bool:
    """Whether a part may be followed through the node, its room in the kernel apart."""
    if node.domain or node.host_reason is not None:
        return False
    inputs = node.present_inputs
    if node.op_type in OPERATORS.values():
        if len(inputs) != 2 or len(node.outputs) != 1:
            return False
    elif node.op_type not in MOVING and activation_of(node) is None:
        return False
    first = inputs[0] if inputs else None
    return first is not None and all(_is_plain(v, caps) for v in (*inputs[:2], *node.outputs))


def _is_plain(value: Value, caps: DeviceCaps) -> bool:
    """A linear tensor of floats that a descriptor can bind; or a constant."""
    if value.is_constant:
        return True
    elements = value.known_type.size
    fits = 0 < elements <= caps.max_storage_buffer_range // ELEMENT_BYTES
    return value.layout == "linear" and value.dtype in FLOATS and fits


def _dispatches(node: Node) -> list[int]:
    """Elements that each dispatch of the node writes, as far as can be told before memory is
    planned."""
    op, result = create(node), node.outputs[0]
    source = node.inputs[0]
    assert source is not None
    if node.op_type == "Concat":
        places = op.place(_probe(result), node.inputs) or (None,) * len(node.inputs)
        return [
            v.known_type.size
            for v, place in zip(node.inputs, places, strict=True)
            if v is not None and (place is None or v.producer is None)
        ]
    if node.op_type in MOVING and op.view(_probe(source), node.outputs) is not None:
        return []
    return [v.known_type.size for v in node.outputs]


def _probe(value: Value) -> View:
    return View(Storage(0, "probe"), value.dims, value.dtype, "linear")
