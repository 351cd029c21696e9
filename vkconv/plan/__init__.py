"""Graph -> Plan: ordered steps, storages with lifetimes, arena layout, barriers. Pure data.

The graph has concrete shapes, layouts and placements (see ``vkconv.passes``). Operators lower
themselves; this room decides which bytes each value gets, when a dispatch has to wait, and what may
share memory. It knows no device, only a device's limits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import Dispatch, HostSlot, HostStep, Plan, Port, Step, Storage, View
from vkconv.errors import BuildError, UnsupportedModelError, VkconvError
from vkconv.ir import Graph, Node, Value
from vkconv.ops.lowering import Tensor
from vkconv.ops.operator import Operator
from vkconv.ops.registry import create
from vkconv.plan.arena import Lifetime, lower_bound, place_storages
from vkconv.plan.barriers import with_barriers
from vkconv.plan.constants import ConstantStore
from vkconv.plan.lowering import PlanLowering
from vkconv.plan.order import in_waves
from vkconv.plan.views import ViewAssignment

__all__ = ["ConstantStore", "make_plan"]

#: how much larger the arena may get for dispatches that need not wait for each other
WAVES_MAY_COST = 1.1


def make_plan(
    graph: Graph,
    caps: DeviceCaps,
    store: ConstantStore,
    choices: Mapping[str, str] | None = None,
    places: dict[Value, View | HostSlot] | None = None,
    tuned: dict[str, set[str]] | None = None,
) -> Plan:
    """Plan a graph whose layouts are assigned. ``choices`` are what tuning found: the key of a
    kernel's problem to the textual form of its choice. ``places`` takes where each value lies,
    ``tuned`` the keys that each node found among the choices.

    Raises UnsupportedModelError when a limit of the device is exceeded.
    """
    operators = {node: create(node) for node in graph.nodes}
    views = ViewAssignment(graph, operators)
    lowering = PlanLowering(caps, store, choices, tuned)
    steps: list[Step] = []
    for node in graph.nodes:
        if node.host_reason is not None:
            steps.append(_host_step(node, operators[node], views))
        elif node not in views.free_nodes:
            steps += _lower(node, operators[node], views, lowering)
    inputs = tuple(_input_port(graph, value, views) for value in graph.inputs)
    outputs = tuple(
        _output_port(name, value, views)
        for name, value in zip(graph.output_names, graph.outputs, strict=True)
    )
    if places is not None:
        places.update({v: views.place(v) for v in graph.values() if not v.is_constant})
    lifetimes = _lifetimes([[step] for step in steps], inputs, outputs)
    arena_size = place_storages(lifetimes)
    if caps.kind != "cpu" and not caps.host_only:
        # A CPU driver runs dispatches one after the other anyway, and what was just written is in
        # its cache.
        waves = in_waves(steps, lowering.accesses)
        in_order = [step for wave in waves for step in wave]
        # first as if a wave were one step, so that none in it waits for memory that another frees
        for turns in (waves, [[step] for step in in_order]):
            of_waves = _lifetimes(turns, inputs, outputs)
            size = place_storages(of_waves)
            if size <= WAVES_MAY_COST * arena_size:
                steps, lifetimes, arena_size = in_order, of_waves, size
                break
        else:
            place_storages(lifetimes)
    return Plan(
        steps=tuple(with_barriers(steps, lowering.accesses)),
        inputs=inputs,
        outputs=outputs,
        arena_size=arena_size,
        arena_lower_bound=lower_bound(lifetimes),
        constants=_constants(steps),
        storages=tuple(life.storage for life in lifetimes),
        flops=_flops(operators),
    )


def _flops(operators: Mapping[Node, Operator]) -> dict[str, int]:
    """Floating-point operations by node, where there are any."""
    counts = {n.name: op.flops(n.inputs, n.outputs) for n, op in operators.items()}
    return {name: int(count) for name, count in counts.items() if count > 0}


def _lower(
    node: Node, op: Operator, views: ViewAssignment, lowering: PlanLowering
) -> list[Dispatch]:
    lowering.node = node.name
    inputs = [None if v is None else Tensor(v, _device_view(v, views)) for v in node.inputs]
    outputs = [Tensor(v, views.view(v)) for v in node.outputs]
    try:
        dispatches = op.lower(lowering, inputs, outputs)
    except VkconvError:
        raise
    except MemoryError as error:
        raise UnsupportedModelError(
            f"{node}: this process has no memory for its tables ({error}); use a smaller input size"
        ) from error
    except Exception as error:
        raise BuildError(f"{node} could not be lowered: {type(error).__name__}: {error}") from error
    return [d for d in dispatches if all(d.grid)]


def _device_view(value: Value, views: ViewAssignment) -> View | None:
    if value.is_constant:
        return None
    place = views.place(value)
    return place if isinstance(place, View) else None


def _host_step(node: Node, op: Operator, views: ViewAssignment) -> HostStep:
    return HostStep(
        node=node.name,
        op_type=node.op_type,
        reason=node.host_reason or "",
        inputs=tuple(
            None if v is None else np.asarray(v.array) if v.is_constant else views.place(v)
            for v in node.inputs
        ),
        outputs=tuple(views.place(v) for v in node.outputs),
        compute=op.reference,
    )


def _input_port(graph: Graph, value: Value, views: ViewAssignment) -> Port:
    used = graph.is_output(value) or any(value in n.present_inputs for n in graph.nodes)
    return Port(value.name, value.dtype, value.dims, views.place(value) if used else None)


def _output_port(name: str, value: Value, views: ViewAssignment) -> Port:
    place = np.asarray(value.array) if value.is_constant else views.place(value)
    return Port(name, value.dtype, value.dims, place)


def _lifetimes(
    turns: Sequence[Sequence[Step]], inputs: tuple[Port, ...], outputs: tuple[Port, ...]
) -> list[Lifetime]:
    """First and last turn of every arena storage; a turn is what may run at the same time.

    Inputs live from before the first turn, outputs past the last.
    """
    lives: dict[int, Lifetime] = {}

    def touch(storage: Storage, turn: int) -> None:
        if storage.is_constant:
            return
        life = lives.setdefault(id(storage), Lifetime(storage, turn, turn))
        life.first, life.last = min(life.first, turn), max(life.last, turn)

    for port in inputs:
        if isinstance(port.place, View):
            touch(port.place.storage, -1)
    for turn, step in ((turn, step) for turn, steps in enumerate(turns) for step in steps):
        if isinstance(step, Dispatch):
            for bound in step.buffers.values():
                touch(bound.storage, turn)
        else:
            for place in (*step.inputs, *step.outputs):
                if isinstance(place, View):
                    touch(place.storage, turn)
    for port in outputs:
        if isinstance(port.place, View):
            touch(port.place.storage, len(turns))
    return list(lives.values())


def _constants(steps: Sequence[Step]) -> tuple[Storage, ...]:
    found: dict[int, Storage] = {}
    for step in steps:
        if isinstance(step, Dispatch):
            for bound in step.buffers.values():
                if bound.storage.is_constant:
                    found[id(bound.storage)] = bound.storage
    return tuple(found.values())
