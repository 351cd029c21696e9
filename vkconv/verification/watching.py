"""A plan with a look at every value on its way.

The plan is the one that a session runs, with the tuning record's choices: the same dispatches on
the same bytes of the arena. Behind the last dispatch of each node stands a host step that reads the
node's outputs where they lie; it computes nothing, so memory and order stay. It does cut the
command buffer: what only a missing barrier spoils does not show here, but when the outputs are
compared with those of a plain run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from vkconv.capabilities import DeviceCaps
from vkconv.device.base import Device
from vkconv.dispatch import HostSlot, HostStep, Plan, Step, View, c4_dims
from vkconv.ir import Array, Graph, Node, Value
from vkconv.ops.conv_problem import Problem
from vkconv.ops.conv_selection import candidates
from vkconv.plan import ConstantStore
from vkconv.planned import HostNodes, Planned
from vkconv.planning import plan_graph
from vkconv.stages import Stage

__all__ = ["Places", "Tuned", "WatchedStage", "Watcher", "watched"]

Places = dict[Value, View | HostSlot]


@dataclass(frozen=True)
class Tuned:
    """The tuning record's choices, by ``Problem.key``, and the keys that each node of a plan
    asked for and found there."""

    choices: Mapping[str, str]
    by_node: dict[str, set[str]] = field(default_factory=dict)

    def used_by(self, node: str, caps: DeviceCaps) -> dict[str, str]:
        """Those that decided a kernel of the node: a record may name what is no candidate."""
        found = {key: self.choices[key] for key in sorted(self.by_node.get(node, ()))}
        return {key: text for key, text in found.items() if _is_candidate(key, text, caps)}


def _is_candidate(key: str, text: str, caps: DeviceCaps) -> bool:
    return text in map(str, candidates(Problem.from_key(key), caps))


class Watcher(Protocol):
    """Who looks at the values of a run."""

    def begin(self, graph: Graph, plan: Plan, device: Device, tuned: Tuned) -> None:
        """A stage is planned."""
        ...

    def see(self, graph: Graph, node: Node | None, values: Mapping[Value, Array]) -> None:
        """A node has run, and these are its outputs; None: the inputs of the graph."""
        ...


class WatchedStage(Stage):
    """A stage, and whatever is planned behind it, under the eyes of ``watcher``."""

    def __init__(
        self,
        graph: Graph,
        device: Device,
        store: ConstantStore,
        report: Callable[[HostNodes], None],
        watcher: Watcher,
        choices: Mapping[str, str] | None = None,
        *,
        in_run: bool = False,
    ) -> None:
        self._watcher = watcher
        places: Places = {}
        tuned = Tuned(choices or {})
        planned = plan_graph(
            graph, device.caps, store, report,
            in_run=in_run, places=places, choices=tuned.choices, tuned=tuned.by_node,
        )  # fmt: skip
        watcher.begin(planned.graph, planned.plan, device, tuned)
        super().__init__(watched(planned, places, watcher), device, store, report, tuned.choices)

    def _plan_later(self, graph: Graph) -> Stage:
        store = self._store or ConstantStore()
        watcher = self._watcher
        return WatchedStage(
            graph, self._device, store, self._report, watcher, self._choices, in_run=True
        )


def watched(planned: Planned, places: Places, watcher: Watcher) -> Planned:
    """The plan with a look at each node's outputs behind its last step."""
    graph, plan = planned.graph, planned.plan
    known = {id(storage) for storage in plan.storages}

    def is_there(value: Value) -> bool:
        place = places.get(value)
        return isinstance(place, HostSlot) or (
            isinstance(place, View) and id(place.storage) in known
        )

    behind: dict[int, list[HostStep]] = {}
    ports = zip(graph.inputs, plan.inputs, strict=True)
    # an input that nothing reads has no place
    fed = [value for value, port in ports if port.place is not None and is_there(value)]
    behind.setdefault(-1, []).append(_look(graph, None, fed, places, watcher))
    for node, at in _ends(graph, plan).items():
        outputs = [value for value in node.outputs if is_there(value)]
        behind.setdefault(at, []).append(_look(graph, node, outputs, places, watcher))
    steps: list[Step] = [*behind.get(-1, ())]
    for index, step in enumerate(plan.steps):
        steps += [step, *behind.get(index, ())]
    return replace(planned, plan=replace(plan, steps=tuple(steps)))


def _ends(graph: Graph, plan: Plan) -> dict[Node, int]:
    """Behind which step the outputs of each node are complete (-1: before the first). A node
    without steps of its own is done when what it reads is."""
    last = {step.node: index for index, step in enumerate(plan.steps)}
    ready: dict[Value, int] = {}
    ends: dict[Node, int] = {}
    for node in graph.nodes:
        needed = max((ready.get(value, -1) for value in node.present_inputs), default=-1)
        ends[node] = last.get(node.name, needed)
        ready.update(dict.fromkeys(node.outputs, ends[node]))
    return ends


def _look(
    graph: Graph, node: Node | None, values: list[Value], places: Places, watcher: Watcher
) -> HostStep:
    found = [places[value] for value in values]

    def compute(*arrays: Array) -> tuple[Array, ...]:
        shown = zip(values, found, arrays, strict=True)
        watcher.see(graph, node, {value: _dense(value, at, array) for value, at, array in shown})
        return ()

    name = graph.name if node is None else node.name
    return HostStep(name, "observe", "", tuple(map(_readable, found)), (), compute)


def _readable(place: View | HostSlot) -> View | HostSlot:
    """What a host step can read of a value: of a C4 tensor its elements as they lie."""
    if isinstance(place, HostSlot) or place.layout == "linear":
        return place
    dtype = "int32" if place.is_integer else "float32"
    return View(place.storage, (place.span,), dtype, "linear", place.offset)


def _dense(value: Value, place: View | HostSlot, array: Array) -> Array:
    """The value as ONNX has it, in its shape and dtype."""
    if isinstance(place, HostSlot) or place.layout == "linear":
        return array.reshape(value.dims)
    n, c4, h, w = c4_dims(value.dims)
    inner = c4 * h * w * 4
    shape = (n, c4, h, w, 4) if inner else (0, 0, 0, 0, 4)
    size = array.itemsize
    strides = (place.batch_stride * size, h * w * 4 * size, w * 4 * size, 4 * size, size)
    blocks = np.lib.stride_tricks.as_strided(array, shape, strides, writeable=False)
    planes = blocks.transpose(0, 1, 4, 2, 3).reshape(n, c4 * 4, h, w)[:, : value.dims[1]]
    return np.ascontiguousarray(planes).reshape(value.dims).astype(value.dtype)
