"""Where each node of a model runs, and which nodes cannot run at all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vkconv.dispatch import Dispatch, Plan
from vkconv.errors import NodeProblem, VkconvError
from vkconv.ir import DTYPES, Graph, Node, Opaque
from vkconv.ops.registry import NEWEST_OPSET, OWN_DOMAINS, check_inputs, create, find_operator

#: changes of layout, which are the planner's to make
CONVERSIONS = ("ToC4", "ToLinear")

Where = Literal["gpu", "host", "folded", "fused", "deferred"]


@dataclass(frozen=True)
class Placement:
    """One node of the model.

    ``detail``: its kernels ("view" when it needs none), the node it was fused into, or why it runs
    on the host. "deferred": it is planned during the run, once a shape it depends on is known.
    """

    node: str
    op_type: str
    where: Where
    detail: str


def problems(graph: Graph) -> list[NodeProblem]:
    """All nodes that no room of this version can run; empty when the model is supported."""
    found: list[NodeProblem] = []
    for node in graph.nodes:
        reason = _problem(node, graph.opsets.get("", 1))
        if reason is not None:
            found.append(NodeProblem(node.name, node.op_type, reason, node.opset, "", node.domain))
        for value in node.attributes.values():
            if isinstance(value, Graph):
                found += _problems_inside(value)
    inputs = {id(v) for v in graph.inputs}
    for value in graph.values():
        where = "graph input" if id(value) in inputs else "initializer"
        if value.producer is None and (value.type is None or value.type.dtype not in DTYPES):
            kind = "not a tensor" if value.type is None else value.type.dtype
            found.append(NodeProblem(value.name, where, f"its type ({kind}) is not supported"))
    return found


def _problems_inside(graph: Graph) -> list[NodeProblem]:
    """Those of a graph that a node holds: it may leave the types of its inputs open."""
    names = {v.name for v in graph.inputs}
    return [p for p in problems(graph) if p.op_type != "graph input" or p.node not in names]


def _problem(node: Node, opset: int) -> str | None:
    """Why a node cannot run, or None."""
    if node.domain == "" and opset > NEWEST_OPSET:
        return (
            f"opset {opset} is newer than {NEWEST_OPSET}, the newest known here; "
            "export the model with an older one"
        )
    if find_operator(node) is None:
        if node.domain not in OWN_DOMAINS:
            return (
                f"no operator is registered for it; write one with vkconv.register_operator(..., "
                f"domain='{node.domain}') (docs/custom_operators.md), install the package that "
                "has it, or export it as standard operators"
            )
        return "no such operator here; export it as standard operators"
    if node.domain == "vkconv" and node.op_type in CONVERSIONS:
        return "vkconv puts it between nodes itself; leave it out of the model"
    for name, value in node.attributes.items():
        if isinstance(value, Opaque):
            return f"attribute '{name}' is {value.kind}, which is not supported"
    try:
        check_inputs(create(node), node)
    except VkconvError as error:
        return str(error).removeprefix(str(node)).lstrip(": ")
    return None


def placements(source: Iterable[tuple[str, str]], graph: Graph, plan: Plan) -> list[Placement]:
    """Where the model's own nodes (``source``: name, op_type) run under a plan of ``graph``."""
    kernels: dict[str, list[str]] = {}
    for step in plan.steps:
        if isinstance(step, Dispatch) and step.kernel not in kernels.setdefault(step.node, []):
            kernels[step.node].append(step.kernel)
    present = {n.name: n for n in graph.nodes}
    owner = {name: node.name for node in graph.nodes for name in node.fused}
    result: list[Placement] = []
    for name, op_type in source:
        if name in present:
            reason = present[name].host_reason
            detail = reason or ", ".join(kernels.get(name, [])) or "view"
            result.append(Placement(name, op_type, "host" if reason else "gpu", detail))
        elif name in owner:
            result.append(Placement(name, op_type, "fused", owner[name]))
        else:
            _, detail = graph.absorbed.get(name, ("", "computed when the model was planned"))
            result.append(Placement(name, op_type, "folded", detail))
    return result
