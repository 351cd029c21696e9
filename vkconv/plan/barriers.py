"""Which dispatches must wait: hazards over the arena's bytes (RAW, WAR, WAW).

Bytes, not storages, since storages share memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from vkconv.dispatch import Dispatch, Step
from vkconv.plan.lowering import Access

Range = tuple[int, int]


def with_barriers(steps: Sequence[Step], accesses: Mapping[int, tuple[Access, ...]]) -> list[Step]:
    """The steps with ``Dispatch.barrier`` set.

    A barrier orders all earlier work before all later work, so after one nothing earlier is
    pending. A host step waits for the device by itself, and so clears everything too.
    """
    result: list[Step] = []
    reads: list[Range] = []
    writes: list[Range] = []
    for step in steps:
        if not isinstance(step, Dispatch):
            reads, writes = [], []
            result.append(step)
            continue
        own_reads, own_writes = _ranges(accesses[id(step)])
        hazard = _meet(own_reads, writes) or _meet(own_writes, writes) or _meet(own_writes, reads)
        if hazard:
            reads, writes = [], []
        reads += own_reads
        writes += own_writes
        result.append(replace(step, barrier=hazard))
    return result


def _ranges(accesses: Sequence[Access]) -> tuple[list[Range], list[Range]]:
    reads: list[Range] = []
    writes: list[Range] = []
    for access in accesses:
        if access.storage.is_constant or access.start == access.end:
            continue
        span = (access.storage.offset + access.start, access.storage.offset + access.end)
        if access.reads:
            reads.append(span)
        if access.writes:
            writes.append(span)
    return reads, writes


def _meet(left: Sequence[Range], right: Sequence[Range]) -> bool:
    return any(a[0] < b[1] and b[0] < a[1] for a in left for b in right)
