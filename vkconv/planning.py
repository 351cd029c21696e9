"""A graph at concrete input shapes -> Planned: cut where its shapes end, rewritten, planned.

Where a shape depends on what the model computes (a Reshape by computed sizes, an operator whose
output size depends on data), the plan ends: what is left becomes a graph of its own, to be planned
once the missing facts are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vkconv.bounded import bounded
from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import HostSlot, View
from vkconv.errors import InvalidInputError, InvalidModelError
from vkconv.ir import Graph, Node, Value
from vkconv.loops import DRIVEN, is_loop
from vkconv.ops.operator import UnknownShapeError
from vkconv.ops.registry import create, infer_types
from vkconv.passes import finish, infer_and_fold, rewrite, unresolved
from vkconv.plan import ConstantStore, make_plan
from vkconv.planned import HostNodes, Planned, Rest, Trim

DEPENDS_ON_DATA = "the shape of its output depends on its input"
#: elements of a tensor whose size is computed in a run: one wrong number in an input of a few bytes
#: would take all memory otherwise
LARGEST_COMPUTED = 1 << 28


def plan_graph(
    graph: Graph,
    caps: DeviceCaps,
    store: ConstantStore,
    report: Callable[[HostNodes], None],
    *,
    in_run: bool = False,
    places: dict[Value, View | HostSlot] | None = None,
    choices: Mapping[str, str] | None = None,
    tuned: dict[str, set[str]] | None = None,
) -> Planned:
    """Rewrites and plans ``graph``, which it edits. ``report`` hears of the nodes that run on the
    host before anything is planned; it may refuse them. ``places`` takes where each value lies.
    ``choices``: what tuning found, as ``make_plan`` takes it; ``tuned`` takes whom it served.

    in_run: what the graph's sizes follow from was computed in a run. Raises InvalidInputError where
    one of its tensors has more than LARGEST_COMPUTED elements.
    """
    infer_and_fold(graph)
    rewrite(graph)
    infer_and_fold(graph)
    if in_run:
        _check_sizes(graph)
    rest = _cut(graph, caps)
    finish(graph, caps)
    hosts = [(n, n.host_reason) for n in graph.nodes if n.host_reason is not None]
    if rest is not None:
        hosts += [(n, DRIVEN if is_loop(n) else DEPENDS_ON_DATA) for n in rest.computed]
    report(hosts)
    plan = make_plan(graph, caps, store, choices, places, tuned)
    return Planned(graph, plan, hosts, rest)


def _check_sizes(graph: Graph) -> None:
    for node in graph.nodes:
        for value in node.outputs:
            type_ = value.type
            if type_ is not None and type_.is_static and type_.size > LARGEST_COMPUTED:
                raise InvalidInputError(
                    f"{node}: these inputs make its output of shape {type_.shape}, and a size that "
                    f"a run decides is limited to {LARGEST_COMPUTED} elements"
                )


def _cut(graph: Graph, caps: DeviceCaps) -> Rest | None:
    """Cut ``graph`` where shapes end: it keeps what is resolved; the rest, if any, is returned."""
    waiting = unresolved(graph)
    if not waiting:
        return None
    facts: dict[str, Value] = {}
    computed: list[Node] = []
    for node in waiting:
        if all(v.type is not None and v.type.is_static for v in node.present_inputs):
            _classify(node, facts, computed)
    if not facts and not computed:
        raise InvalidModelError(f"the shape of {waiting[0]}'s output cannot be found")
    staying = bounded(computed, caps)
    computed = [n for n in computed if n not in staying]
    waiting = [n for n in waiting if n not in staying]
    gone = {id(n) for n in waiting}
    later_nodes = [n for n in waiting if n not in computed]
    later_reads = {v: None for n in later_nodes for v in n.present_inputs} | dict.fromkeys(
        graph.outputs
    )
    inputs = [
        v
        for v in later_reads
        if not v.is_constant and (v.producer is None or id(v.producer) not in gone)
    ]
    inputs += [v for n in computed for v in n.outputs if v in later_reads]
    rest = Graph(
        graph.name,
        inputs,
        graph.outputs,
        later_nodes,
        graph.opsets,
        source_nodes=graph.source_nodes,
    )
    rest.output_names = graph.output_names
    needed = {v: None for v in inputs if v.producer is None or v.producer not in computed}
    needed |= {v: None for n in computed for v in n.present_inputs if not v.is_constant}
    needed |= {v: None for result in staying.values() for v in (result.output, result.count)}
    graph.nodes = [n for n in graph.nodes if id(n) not in gone]
    graph.outputs = list(needed)
    graph.output_names = [v.name for v in needed]
    trims = [Trim(b.output.name, b.count.name, b.axis) for b in staying.values()]
    return Rest(rest.copy(), list(facts), computed, trims)


def _classify(node: Node, facts: dict[str, Value], computed: list[Node]) -> None:
    """Whether a node of known input types waits for a value's contents, or has to be run."""
    op = create(node)
    try:
        infer_types(op, node)
    except UnknownShapeError as error:
        if error.value is not None and not error.value.is_constant:
            facts[error.value.name] = error.value
        else:
            computed.append(node)
