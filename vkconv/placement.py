"""Where each node of a model runs, and which nodes cannot run at all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vkconv.dispatch import Dispatch, Plan
from vkconv.errors import NodeProblem, VkconvError
from vkconv.ir import DTYPES, Graph
from vkconv.ops.base import NEWEST_OPSET, create, find_operator

Where = Literal["gpu", "host", "folded", "fused", "deferred"]


@dataclass(frozen=True)
class Placement:
    """One node of the model. ``detail``: its kernels ("view" when it needs none), the node it was fused into, or why
    it runs on the host. "deferred": it is planned during the run, once a shape it depends on is known."""

    node: str
    op_type: str
    where: Where
    detail: str


def problems(graph: Graph) -> list[NodeProblem]:
    """All nodes that no room of this version can run; empty when the model is supported."""
    found: list[NodeProblem] = []
    opset = graph.opsets.get("", 1)
    for node in graph.nodes:
        reason = None
        if node.domain == "" and opset > NEWEST_OPSET:
            reason = f"opset {opset} is newer than {NEWEST_OPSET}, the newest known here; export with an older one"
        elif find_operator(node) is None:
            reason = "no such operator here; export it as standard operators"
        else:
            try:
                create(node)
            except VkconvError as error:
                reason = str(error)
        if reason is not None:
            found.append(NodeProblem(node.name, node.op_type, reason, node.opset, "", node.domain))
    for value in graph.inputs:
        if value.type is None or value.type.dtype not in DTYPES:
            kind = "no tensor" if value.type is None else value.type.dtype
            found.append(
                NodeProblem(value.name, "graph input", f"its type is not supported ({kind})")
            )
    return found


def placements(source: Iterable[tuple[str, str]], graph: Graph, plan: Plan) -> list[Placement]:
    """The placement of the model's own nodes (``source``: name and op_type) under a plan of ``graph``."""
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
            detail = ", ".join(kernels.get(name, [])) or "view"
            result.append(
                Placement(name, op_type, "host", reason)
                if reason
                else Placement(name, op_type, "gpu", detail)
            )
        elif name in owner:
            result.append(Placement(name, op_type, "fused", owner[name]))
        else:
            result.append(Placement(name, op_type, "folded", "computed when the model was planned"))
    return result
