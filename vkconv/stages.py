"""A graph at concrete input shapes: planned at once as far as shapes are known, then in the run.

Almost every model is one stage. Where a shape depends on what the model computes (a Reshape by
computed sizes, an operator whose output size depends on data), the stage ends: what the rest needs
is read back, the rest becomes a graph of its own with the missing facts filled in, and its stage is
kept for the next run that meets the same ones.

Not thread-safe: the session lets one run in at a time.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from vkconv.bounded import Bounded, bounded
from vkconv.capabilities import DeviceCaps
from vkconv.device.base import Device, Executable, StepTime
from vkconv.dispatch import Dispatch, Plan
from vkconv.errors import InvalidInputError, InvalidModelError, VkconvError
from vkconv.ir import Array, Graph, Node, Value, constant, type_of
from vkconv.loops import DRIVEN, DrivenLoop, is_loop
from vkconv.ops.base import UnknownShapeError, as_tuple, create, infer_types
from vkconv.passes import finish, infer_and_fold, rewrite, unresolved
from vkconv.placement import Placement, placements
from vkconv.plan import ConstantStore, make_plan

#: stages kept behind one stage: facts computed by the model may differ in every run
LATER_STAGES = 4
DEPENDS_ON_DATA = "the shape of its output depends on its input"


#: nodes that run on the host, and why
HostNodes = list[tuple[Node, str]]


class Stage:
    """The resolvable part of ``graph`` on a device, and what follows it.

    ``report`` hears of the nodes that run on the host before anything is planned.
    """

    def __init__(
        self,
        graph: Graph,
        device: Device,
        store: ConstantStore,
        report: Callable[[HostNodes], None],
    ) -> None:
        self._device, self._store, self._report = device, store, report
        infer_and_fold(graph)
        rewrite(graph)
        infer_and_fold(graph)
        self._rest = _split(graph, device.caps)
        finish(graph, device.caps)
        hosts = [(n, n.host_reason) for n in graph.nodes if n.host_reason is not None]
        if self._rest is not None:
            hosts += [(n, _why_on_host(n)) for n in self._rest.computed]
        report(hosts)
        self.graph = graph
        self.plan: Plan = make_plan(graph, device.caps, store)
        self._executable: Executable = device.prepare(self.plan)
        self._later: OrderedDict[object, Stage] = OrderedDict()
        self._loops = {
            node: DrivenLoop(node, self._plan_body)
            for node in (self._rest.computed if self._rest is not None else [])
            if is_loop(node)
        }

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        outputs = self._executable.run(feeds)
        if self._rest is None:
            return outputs
        later, more = self._follow(outputs)
        return later.run(more)

    def profile(self, feeds: Mapping[str, Array]) -> tuple[list[Array], list[StepTime]]:
        outputs, times = self._executable.profile(feeds)
        if self._rest is None:
            return outputs, times
        began = time.perf_counter()
        later, more = self._follow(outputs)
        end = max((t.start + t.duration for t in times), default=0.0) + time.perf_counter() - began
        results, later_times = later.profile(more)
        shifted = [
            StepTime(t.node, t.kernel, t.track, t.start + end, t.duration) for t in later_times
        ]
        return results, times + shifted

    def close(self) -> None:
        for stage in self._later.values():
            stage.close()
        for loop in self._loops.values():
            loop.close()
        self._executable.close()

    def _follow(self, outputs: list[Array]) -> tuple[Stage, dict[str, Array]]:
        """The stage for the rest of the graph, given what this one computed, and its feeds."""
        assert self._rest is not None
        rest = self._rest
        known = dict(zip(self.graph.output_names, outputs, strict=True))
        for padded in rest.bounded:
            padded.trim(known)
        feeds = {name: array for name, array in known.items() if name not in rest.facts}
        for node in rest.computed:
            feeds.update(_compute(node, known, self._loops.get(node)))
        key = (
            tuple((name, array.shape) for name, array in feeds.items()),
            tuple((name, known[name].tobytes(), known[name].shape) for name in rest.facts),
        )
        if key not in self._later:
            graph = rest.graph_for(known, feeds)
            self._later[key] = Stage(graph, self._device, self._store, self._report)
            while len(self._later) > LATER_STAGES:
                self._later.popitem(last=False)[1].close()
        self._later.move_to_end(key)
        return self._later[key], feeds

    def _plan_body(self, body: Graph) -> Stage:
        return Stage(body, self._device, self._store, self._report)

    # --- what it looks like ------------------------------------------------------------------

    def placement(self) -> list[Placement]:
        own = {p.node: p for p in placements(self.graph.source_nodes, self.graph, self.plan)}
        if self._rest is None:
            return list(own.values())
        later = next(reversed(self._later.values()), None)
        following = {p.node: p for p in later.placement()} if later else {}
        computed = {n.name: n for n in self._rest.computed}
        for name, op_type in self.graph.source_nodes:
            if name in computed:
                own[name] = Placement(name, op_type, "host", _why_on_host(computed[name]))
            elif name in self._rest.names:
                pending = Placement(
                    name, op_type, "deferred", "planned when the shapes it needs are known"
                )
                own[name] = following.get(name, pending)
        for name, placed in following.items():  # what took the place of an If decided in the run
            own.setdefault(name, placed)
        return list(own.values())

    def describe(self) -> str:
        plan = self.plan
        barriers = sum(d.barrier for d in plan.dispatches)
        constants = sum(s.size for s in plan.constants)
        lines = [
            f"{len(plan.dispatches)} dispatches, {barriers} barriers, "
            f"arena {plan.arena_size / 2**20:.2f} MiB "
            f"(lower bound {plan.arena_lower_bound / 2**20:.2f}), "
            f"constants {constants / 2**20:.2f} MiB"
        ]
        for step in plan.steps:
            if isinstance(step, Dispatch):
                variant = ",".join(value for _, value in step.variant)
                wait = "|" if step.barrier else " "
                grid = "x".join(str(g) for g in step.grid)
                lines.append(f"{wait} {step.kernel:<24} {variant:<20} {grid:<14} {step.node}")
            else:
                lines.append(f"| host: {step.op_type:<17} {step.reason:<35} {step.node}")
        later = next(reversed(self._later.values()), None)
        return "\n".join(
            lines + (["-- then, shapes being known:", later.describe()] if later else [])
        )


@dataclass
class _Rest:
    """What cannot be planned yet.

    ``facts`` are values to become constants, ``computed`` nodes to be run by numpy, ``bounded``
    nodes of the stage before, whose outputs have room to spare.
    """

    graph: Graph
    facts: list[str]
    computed: list[Node]
    bounded: list[Bounded]

    @property
    def names(self) -> set[str]:
        return {n.name for n in self.graph.nodes} | {f for n in self.graph.nodes for f in n.fused}

    def graph_for(self, known: Mapping[str, Array], feeds: Mapping[str, Array]) -> Graph:
        """The rest with the facts as constants and concrete types for its inputs."""
        graph = self.graph.copy()
        for value in graph.inputs:
            if value.name in self.facts:
                fact = constant(value.name, known[value.name].copy())
                value.type, value.array = fact.type, fact.array
            else:
                value.type = type_of(feeds[value.name])
        graph.inputs = [v for v in graph.inputs if not v.is_constant]
        return graph


def _split(graph: Graph, caps: DeviceCaps) -> _Rest | None:
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
    return _Rest(rest.copy(), list(facts), computed, list(staying.values()))


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


def _why_on_host(node: Node) -> str:
    return DRIVEN if is_loop(node) else DEPENDS_ON_DATA


def _compute(node: Node, known: Mapping[str, Array], loop: DrivenLoop | None) -> dict[str, Array]:
    arrays = [
        None if v is None else v.array if v.array is not None else known[v.name]
        for v in node.inputs
    ]
    try:
        with np.errstate(all="ignore"):
            if loop is not None:
                results = loop.run(arrays)
            else:
                results = as_tuple(create(node).reference(*arrays))
    except VkconvError as error:
        raise type(error)(f"{node}: {error}") from None
    except Exception as error:
        raise InvalidInputError(
            f"{node} failed on the host: {type(error).__name__}: {error}"
        ) from error
    return {v.name: np.asarray(a) for v, a in zip(node.outputs, results, strict=False)}
