"""A graph at concrete input shapes on a device: planned at once as far as shapes are known, then in
the run.

Almost every model is one stage. Where a shape depends on what the model computes, the plan ends
(``planning``): what the rest needs is read back, the rest becomes a graph with the missing facts
filled in, and its stage is kept for the next run that meets the same ones.

Passes, operators and the planner are imported when a stage needs them: importing them takes 0.3 s,
and most plans from a file never do. Not thread-safe: the session lets one run in at a time.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from vkconv.device.base import Device, StepTime, Targets
from vkconv.dispatch import Dispatch, Plan
from vkconv.errors import InvalidInputError, VkconvError
from vkconv.ir import Array, Graph, Node
from vkconv.lanes import Lanes
from vkconv.planned import HostNodes, Planned
from vkconv.profiler import with_work

if TYPE_CHECKING:
    from vkconv.loops import DrivenLoop
    from vkconv.placement import Placement
    from vkconv.plan import ConstantStore

#: kernels that change nothing but where numbers lie
CONVERSIONS = frozenset({"to_c4", "to_linear"})
COPIES = frozenset({"strided_copy", "channel_copy", "permute_channels"})
#: stages kept behind one stage: facts computed by the model may differ in every run
LATER_STAGES = 4


class Stage:
    """What is planned, on a device, and what follows it.

    ``store`` keeps the packed constants of what is planned later; ``report`` hears of its nodes
    that run on the host; ``choices`` are kernels that tuning found.
    """

    def __init__(
        self,
        planned: Planned,
        device: Device,
        store: ConstantStore | None,
        report: Callable[[HostNodes], None],
        choices: Mapping[str, str] | None = None,
    ) -> None:
        self._device, self._store, self._report = device, store, report
        self._choices = choices
        self._planned, self._rest = planned, planned.rest
        self.graph, self.plan = planned.graph, planned.plan
        self._executable = Lanes(device, planned.plan)
        self._later: OrderedDict[object, Stage] = OrderedDict()
        self._loops = self._driven_loops()

    def run(self, feeds: Mapping[str, Array], targets: Targets | None = None) -> list[Array]:
        """The outputs, or those that ``targets`` asks for, into the arrays it holds."""
        if self._rest is None:
            _check(self.plan, targets)
            return self._executable.run(feeds, targets)
        later, more = self._follow(self._executable.run(feeds))
        return later.run(more, targets)

    def start(
        self, feeds: Mapping[str, Array], targets: Targets | None, drain: Callable[[], None]
    ) -> Callable[[], list[Array]]:
        """As ``run``, but the device may still be at it: the function returned waits. What follows
        a stage is known only when it has run, so then it has run on return."""
        if self._rest is None:
            _check(self.plan, targets)
            return self._executable.start(feeds, targets, drain)
        drain()
        outputs = self.run(feeds, targets)
        return lambda: outputs

    def profile(self, feeds: Mapping[str, Array]) -> tuple[list[Array], list[StepTime]]:
        outputs, times = self._executable.profile(feeds)
        times = with_work(times, self.plan)
        if self._rest is None:
            return outputs, times
        began = time.perf_counter()
        later, more = self._follow(outputs)
        end = max((t.start + t.duration for t in times), default=0.0) + time.perf_counter() - began
        results, later_times = later.profile(more)
        shifted = [replace(t, start=t.start + end) for t in later_times]
        return results, times + shifted

    @property
    def stages(self) -> list[Stage]:
        """The stage and all that are kept behind it."""
        return [self, *(stage for later in self._later.values() for stage in later.stages)]

    @property
    def arena_bytes(self) -> int:
        return self._executable.arena_bytes

    @property
    def staging_bytes(self) -> int:
        return self._executable.staging_bytes

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
        for trim in rest.trims:
            trim.apply(known)
        feeds = {name: array for name, array in known.items() if name not in rest.facts}
        for node in rest.computed:
            feeds.update(_compute(node, known, self._loops.get(node)))
        key = (
            tuple((name, array.shape) for name, array in feeds.items()),
            tuple((name, known[name].tobytes(), known[name].shape) for name in rest.facts),
        )
        if key not in self._later:
            self._later[key] = self._plan_later(rest.graph_for(known, feeds))
            while len(self._later) > LATER_STAGES:
                self._later.popitem(last=False)[1].close()
        self._later.move_to_end(key)
        return self._later[key], feeds

    def _plan_later(self, graph: Graph) -> Stage:
        """The stage of what is left of the graph, or of a loop's body."""
        from vkconv.plan import ConstantStore
        from vkconv.planning import plan_graph

        if self._store is None:
            self._store = ConstantStore()
        planned = plan_graph(
            graph,
            self._device.caps,
            self._store,
            self._report,
            in_run=True,
            choices=self._choices,
        )
        return Stage(planned, self._device, self._store, self._report, self._choices)

    def _driven_loops(self) -> dict[Node, DrivenLoop]:
        if self._rest is None:
            return {}
        from vkconv.loops import DrivenLoop, is_loop

        computed = self._rest.computed
        return {node: DrivenLoop(node, self._plan_later) for node in computed if is_loop(node)}

    # --- what it looks like ------------------------------------------------------------------

    def placement(self) -> list[Placement]:
        from vkconv.placement import Placement, placements

        own = {p.node: p for p in placements(self.graph.source_nodes, self.graph, self.plan)}
        if self._rest is None:
            return list(own.values())
        later = next(reversed(self._later.values()), None)
        following = {p.node: p for p in later.placement()} if later else {}
        computed = {n.name: n for n in self._rest.computed}
        reasons = {node.name: reason for node, reason in self._planned.hosts}
        for name, op_type in self.graph.source_nodes:
            if name in computed:
                own[name] = Placement(name, op_type, "host", reasons[name])
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
            f"{_count(plan, CONVERSIONS)} layout conversions, {_count(plan, COPIES)} copies, "
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


def _count(plan: Plan, kernels: frozenset[str]) -> int:
    return sum(d.kernel in kernels for d in plan.dispatches)


def _check(plan: Plan, targets: Targets | None) -> None:
    """Raises InvalidInputError where an array to be written has not the output's shape."""
    for i, into in (targets or {}).items():
        port = plan.outputs[i]
        if into is not None and into.shape != port.shape:
            raise InvalidInputError(
                f"output '{port.name}' has shape {port.shape}, the array bound to it {into.shape}"
            )


def _compute(node: Node, known: Mapping[str, Array], loop: DrivenLoop | None) -> dict[str, Array]:
    from vkconv.ops.operator import as_tuple
    from vkconv.ops.registry import create

    arrays = [
        None if v is None else np.asarray(v.array) if v.is_constant else known[v.name]
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
