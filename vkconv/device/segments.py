"""A plan cut where the host must step in: runs of dispatches, each one submission. Pure data.

A device that cannot map its memory copies views to and from staging buffers; which views, and when,
is decided here once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from vkconv.device.base import element_count
from vkconv.dispatch import ELEMENT_BYTES, Dispatch, HostStep, Plan, View


@dataclass(eq=False)
class Segment:
    """One submission (uploads, dispatches, downloads in that order), then host steps."""

    uploads: list[View]
    dispatches: list[Dispatch] = field(default_factory=list)
    #: what the host steps after it read, or in the last segment the plan's outputs
    downloads: list[View] = field(default_factory=list)
    host_steps: list[HostStep] = field(default_factory=list)


def split(plan: Plan) -> list[Segment]:
    """The plan's steps as segments, without empty grids and tensors of no elements."""
    segment = Segment(_device_views(p.place for p in plan.inputs))
    segments = [segment]
    written: list[View] = []  # by the current segment's host steps; uploaded by the next segment

    def flush() -> Segment:
        segments.append(Segment(list(written)))
        written.clear()
        return segments[-1]

    for step in plan.steps:
        if isinstance(step, Dispatch):
            if 0 in step.grid:
                continue
            if segment.host_steps:
                segment = flush()
            segment.dispatches.append(step)
            continue
        reads = _device_views(step.inputs)
        if any(_overlap(r, w) for r in reads for w in written):
            segment = flush()
        segment.downloads += [r for r in reads if r not in segment.downloads]
        segment.host_steps.append(step)
        written += _device_views(step.outputs)
    outputs = _device_views(p.place for p in plan.outputs)
    # outputs are collected after the last host steps, and their storages live until then
    if segment.host_steps and any(_overlap(o, w) for o in outputs for w in written):
        segment = flush()
    segment.downloads += [o for o in outputs if o not in segment.downloads]
    return segments


def _device_views(places: Iterable[object]) -> list[View]:
    views = (p for p in places if isinstance(p, View) and not p.storage.is_constant)
    return list(dict.fromkeys(v for v in views if element_count(v)))


def _overlap(a: View, b: View) -> bool:
    if a.storage is not b.storage:
        return False
    first, second = sorted((a, b), key=lambda v: v.offset)
    return second.offset < first.offset + element_count(first)


def byte_range(view: View) -> tuple[int, int]:
    """(offset, size) of a linear view in its storage."""
    return view.offset * ELEMENT_BYTES, element_count(view) * ELEMENT_BYTES
