"""Each node of a run on its own: what the device made of the node's inputs against what the
operator's ``reference`` makes of the very same.

Inputs are those the device had, so that the error of one node is not blamed on the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from vkconv.device.base import Device
from vkconv.dispatch import Dispatch, Plan
from vkconv.ir import Array, Graph, Node, Value, type_of
from vkconv.ops.operator import as_tuple
from vkconv.ops.registry import create
from vkconv.passes.assign_layouts import conversion
from vkconv.plan import ConstantStore, make_plan
from vkconv.verification.comparison import Difference, compare
from vkconv.verification.tolerance import reduction_length
from vkconv.verification.watching import Tuned

__all__ = ["NodeCheck", "NodeChecks"]

Where = Literal["gpu", "view", "host"]


@dataclass(frozen=True)
class NodeCheck:
    """One node as it was planned, and how its outputs compare.

    kernels: in the order of their dispatches; a node without any is a view of its input, or runs on
    the host. fused: the nodes of the model that are part of it. differences: one for each output;
    the worst of all ``runs``, where a loop runs the node several times. alone: how its first output
    compares when the node runs in a plan of its own (asked of nodes that differ). skipped: why it
    was not compared. tuned: what the tuning record decided of its kernels: choices by the key of
    their problem; without any, kernels are chosen by rule.
    """

    node: str
    op_type: str
    where: Where
    kernels: tuple[str, ...] = ()
    fused: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    runs: int = 1
    alone: Difference | None = None
    skipped: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    tuned: Mapping[str, str] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return all(difference.holds for difference in self.differences)

    @property
    def worst(self) -> Difference | None:
        """Of its outputs, the one that differs most."""
        if not self.differences:
            return None
        return max(self.differences, key=lambda d: (not d.holds, d.nmse))


class NodeChecks:
    """A Watcher that compares each node at once, and keeps values only until their last reader.

    keep: names of values to be kept for good in ``kept``.
    """

    def __init__(
        self, keep: Collection[str] = (), tell: Callable[[NodeCheck], None] | None = None
    ) -> None:
        self.kept: dict[str, Array] = {}
        self._keep, self._tell = keep, tell
        self._found: dict[str, NodeCheck] = {}
        self._stages: dict[int, _StageFacts] = {}

    @property
    def checks(self) -> list[NodeCheck]:
        """In the order in which the nodes ran first."""
        return list(self._found.values())

    # --- Watcher -----------------------------------------------------------------------------

    def begin(self, graph: Graph, plan: Plan, device: Device, tuned: Tuned) -> None:
        self._stages[id(graph)] = _StageFacts(graph, plan, device, tuned)

    def see(self, graph: Graph, node: Node | None, values: Mapping[Value, Array]) -> None:
        stage = self._stages[id(graph)]
        for value, array in values.items():
            if value.name in self._keep:
                self.kept[value.name] = array
        if node is None:
            stage.values, stage.readers = dict(values), Counter(stage.all_readers)
            return
        check = self._check(stage, node, values)
        before = self._found.get(node.name)
        if before is not None:
            worse = not check.holds or (before.holds and _nmse(check) > _nmse(before))
            check = replace(check if worse else before, runs=before.runs + 1)
        self._found[node.name] = check
        if self._tell is not None:
            self._tell(check)
        stage.settle(node, values)

    # --- one node ----------------------------------------------------------------------------

    def _check(self, stage: _StageFacts, node: Node, values: Mapping[Value, Array]) -> NodeCheck:
        kernels = tuple(stage.kernels.get(node.name, ()))
        where: Where = "host" if node.host_reason is not None else "gpu" if kernels else "view"
        check = NodeCheck(
            node.name,
            node.op_type,
            where,
            kernels,
            tuple(node.fused),
            inputs=tuple(v.name for v in node.present_inputs if not v.is_constant),
            outputs=tuple(v.name for v in node.outputs),
            tuned=stage.tuned.used_by(node.name, stage.device.caps),
        )
        if node.host_reason is not None:
            return replace(check, skipped=f"on the host: {node.host_reason}")
        inputs: list[Array | None] = []
        for value in node.inputs:
            array = None if value is None else stage.array(value)
            if array is None and value is not None:
                return replace(check, skipped=f"its input '{value.name}' could not be read")
            inputs.append(array)
        if any(value not in values for value in node.outputs):
            return replace(check, skipped="its output could not be read")
        try:
            with np.errstate(all="ignore"):
                results = as_tuple(create(node).reference(*inputs))
        except Exception as error:  # of any operator, on any data
            reason = f"the reference does not compute it: {type(error).__name__}: {error}"
            return replace(check, skipped=reason)
        actual = _used(node, [values[value] for value in node.outputs])
        wanted = [np.asarray(result) for result in results]
        found = _differences(node, actual, wanted)
        check = replace(check, differences=found)
        if not check.holds:
            alone = _alone(stage.device, node, inputs, wanted, stage.tuned.choices)
            check = replace(check, alone=alone)
        return check


class _StageFacts:
    """A planned graph, and what is known of its values in the run that is under way."""

    def __init__(self, graph: Graph, plan: Plan, device: Device, tuned: Tuned) -> None:
        self.graph, self.device, self.tuned = graph, device, tuned  # held: its id is a key
        self.kernels: dict[str, list[str]] = {}
        for step in plan.steps:
            if isinstance(step, Dispatch):
                listed = self.kernels.setdefault(step.node, [])
                name = "/".join([step.kernel, *(value for _, value in step.variant)])
                if name not in listed:
                    listed.append(name)
        self.all_readers = Counter({v: len(nodes) for v, nodes in graph.uses().items()})
        self.readers: Counter[Value] = Counter()
        self.values: dict[Value, Array] = {}

    def array(self, value: Value) -> Array | None:
        return np.asarray(value.array) if value.is_constant else self.values.get(value)

    def settle(self, node: Node, values: Mapping[Value, Array]) -> None:
        """Keeps what others will read, and lets go of what nobody will."""
        self.values.update({v: a for v, a in values.items() if self.readers[v]})
        for value in node.present_inputs:
            self.readers[value] -= 1
            if self.readers[value] <= 0:
                self.values.pop(value, None)


def _nmse(check: NodeCheck) -> float:
    return max((d.nmse for d in check.differences), default=0.0)


def _used(node: Node, outputs: list[Array]) -> list[Array]:
    """The outputs; of one with room to spare (``vkconv.bounded``) what the count says is used."""
    bound = create(node).bound(*node.inputs) if len(node.outputs) == 2 else None
    if bound is None or outputs[0].shape != bound.type.shape or outputs[1].shape != (1,):
        return outputs
    used = slice(0, int(outputs[1][0]))
    return [outputs[0][(slice(None),) * bound.axis + (used,)]]


def _differences(node: Node, actual: list[Array], wanted: list[Array]) -> tuple[Difference, ...]:
    reduction = reduction_length(node)
    pairs = zip(node.outputs, actual, wanted, strict=False)
    return tuple(compare(value.name, a, w, reduction) for value, a, w in pairs)


def _alone(
    device: Device,
    node: Node,
    inputs: list[Array | None],
    wanted: list[Array],
    choices: Mapping[str, str],
) -> Difference | None:
    """The first output that differs when the node has a plan of its own; else its first output.
    None where the node cannot be run so."""
    graph = _graph_of(node, inputs)
    feeds = {
        v.name: a for v, a in zip(node.inputs, inputs, strict=True)
        if v is not None and a is not None and not v.is_constant
    }  # fmt: skip
    try:
        executable = device.prepare(make_plan(graph, device.caps, ConstantStore(), choices))
        try:
            actual = _used(node, executable.run(feeds))
        finally:
            executable.close()
    except Exception:  # what it is asked for is a hint only
        return None
    found = _differences(node, actual, wanted)
    return next((d for d in found if not d.holds), found[0] if found else None)


def _graph_of(node: Node, inputs: list[Array | None]) -> Graph:
    """The node in the layouts it was planned with, between conversions to and from linear."""
    twins: dict[Value, Value] = {}
    graph = Graph(node.name, [], [], [])
    given: list[Value | None] = []
    for value, array in zip(node.inputs, inputs, strict=True):
        if value is None or array is None or value.is_constant:
            given.append(value)
            continue
        if value not in twins:
            fed = Value(value.name, type_of(array), bounds=value.bounds)
            graph.inputs.append(fed)
            twins[value] = fed
            if value.layout != "linear":
                graph.nodes.append(conversion(fed, value.layout))
                twins[value] = graph.nodes[-1].outputs[0]
        given.append(twins[value])
    outputs = [Value(v.name, v.type, layout=v.layout, bounds=v.bounds) for v in node.outputs]
    twin = Node(node.op_type, given, outputs, dict(node.attributes), node.name, node.domain)
    twin.opset = node.opset
    graph.nodes.append(twin)
    for value in outputs:
        if value.layout != "linear":
            graph.nodes.append(conversion(value, "linear"))
            value = graph.nodes[-1].outputs[0]
        graph.outputs.append(value)
    graph.output_names = [value.name for value in node.outputs]
    return graph
