"""What a session takes of memory, in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from vkconv.dispatch import Plan
from vkconv.ir import Graph

_MEBI = 1 << 20


@dataclass(frozen=True)
class MemoryReport:
    """Bytes on the device, and those of the model's weights that are left in the process.

    On devices without memory of their own (integrated GPUs, CPU drivers) the two are one.
    """

    #: packed weights and tables, shared by all plans
    weights: int
    #: intermediate tensors, of all plans that are kept; a second run under way has its own
    arena: int
    #: the most bytes that are live at once, summed likewise: no arena can do with less
    arena_lower_bound: int
    #: copies between host and device, where the host cannot reach the device's memory
    staging: int
    #: weights as the model has them, kept to plan again for other shapes; 0 for fixed shapes
    host_weights: int
    #: plans kept: one for each set of input shapes met lately
    plans: int

    @property
    def device(self) -> int:
        """All that is on the device."""
        return self.weights + self.arena + self.staging

    def __str__(self) -> str:
        plans = "1 plan" if self.plans == 1 else f"{self.plans} plans"
        return (
            f"memory: weights {_mebi(self.weights)}, arena {_mebi(self.arena)} "
            f"(lower bound {_mebi(self.arena_lower_bound)}), staging {_mebi(self.staging)}, "
            f"{_mebi(self.device)} on the device for {plans}; "
            f"weights kept on the host {_mebi(self.host_weights)}"
        )


class Planned(Protocol):
    """What is planned and on the device."""

    graph: Graph
    plan: Plan

    @property
    def arena_bytes(self) -> int: ...

    @property
    def staging_bytes(self) -> int: ...


def report_memory(planned: Sequence[Planned], model: Graph) -> MemoryReport:
    """The report of what is planned of a model; ``model`` is what plans are made from."""
    constants = {id(s): s for p in planned for s in p.plan.constants}
    graphs = (model, *(p.graph for p in planned))
    arrays = {id(a): a for graph in graphs for a in graph.arrays_in_memory()}
    return MemoryReport(
        weights=sum(s.size for s in constants.values()),
        arena=sum(p.arena_bytes for p in planned),
        arena_lower_bound=sum(p.plan.arena_lower_bound for p in planned),
        staging=sum(p.staging_bytes for p in planned),
        host_weights=sum(a.nbytes for a in arrays.values())
        + sum(s.held_bytes for s in constants.values()),
        plans=len(planned),
    )


def _mebi(size: int) -> str:
    return f"{size / _MEBI:.2f} MiB"
