"""Which dispatches must wait: hazards over the arena's bytes (RAW, WAR, WAW).

Bytes, not storages, since storages share memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from vkconv.dispatch import Dispatch, Step
from vkconv.plan.lowering import Access


def with_barriers(steps: Sequence[Step], accesses: Mapping[int, tuple[Access, ...]]) -> list[Step]:
    """The steps with ``Dispatch.barrier`` set.

    A barrier orders all earlier work before all later work, so after one nothing earlier is
    pending. A host step waits for the device by itself, and so clears everything too.
    """
    result: list[Step] = []
    pending: list[Access] = []
    for step in steps:
        if not isinstance(step, Dispatch):
            pending = []
            result.append(step)
            continue
        own = [a for a in accesses[id(step)] if not a.storage.is_constant and a.start < a.end]
        hazard = any(conflict(a, b) for a in own for b in pending)
        if hazard:
            pending = []
        pending += own
        result.append(replace(step, barrier=hazard))
    return result


def conflict(a: Access, b: Access) -> bool:
    """Whether the order of two accesses to arena storages matters."""
    return (a.writes or b.writes) and a.meets(b)
