"""A graph at concrete shapes as far as it could be planned: the plan, and what is left. Pure data.

``planning`` makes it, ``stages`` runs it, ``plan_file`` writes and reads it. Importing this is
light: a plan from a file runs without passes and operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vkconv.dispatch import Plan
from vkconv.ir import Array, Graph, Node, constant, type_of

#: nodes that run on the host, and why
HostNodes = list[tuple[Node, str]]


@dataclass(frozen=True)
class Trim:
    """An output with room to spare: of ``output`` as much is used along ``axis`` as ``count``
    says. All are names."""

    output: str
    count: str
    axis: int

    def apply(self, known: dict[str, Array]) -> None:
        """In ``known`` (values by name) replace the padded output by what is used of it."""
        used = int(known.pop(self.count)[0])
        whole = known[self.output]
        known[self.output] = whole[(slice(None),) * self.axis + (slice(0, used),)]


@dataclass
class Rest:
    """What cannot be planned yet.

    ``facts`` are values to become constants, ``computed`` nodes to be run by numpy, ``trims``
    outputs of the stage before that have room to spare.
    """

    graph: Graph
    facts: list[str]
    computed: list[Node]
    trims: list[Trim]

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


@dataclass
class Planned:
    """A plan of ``graph``, the nodes of it (and of what is left) that run on the host, and what is
    left. A graph from a file holds names only: nodes without values."""

    graph: Graph
    plan: Plan
    hosts: HostNodes
    rest: Rest | None

    def report_hosts(self, report: Callable[[HostNodes], None]) -> None:
        """Tells of the nodes that run on the host, as the planner does when it plans."""
        report(self.hosts)

    def forget_arrays(self) -> None:
        """Let go of the model's arrays: nothing will be planned again from this graph, and every
        weight goes when a device has it. Names stay, for the placement."""
        for node in self.graph.nodes:
            node.inputs, node.outputs, node.attributes = [], [], {}
        self.graph.inputs, self.graph.outputs = [], []
        for storage in self.plan.constants:
            storage.used_once = True
