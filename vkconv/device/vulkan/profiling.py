"""Times of single dispatches, from a second recording of each segment.

With GPU timestamps: one after the uploads and one after each dispatch, so that a dispatch's time
runs from the end of the one before it. Without them: one submission per dispatch, on the wall
clock.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vkconv.device.base import StepTime
from vkconv.device.vulkan.recording import BoundDispatch
from vkconv.device.vulkan.resources import Resources

if TYPE_CHECKING:
    from vkconv.device.vulkan.device import Core


class Profiler:
    """Recordings made for profiling. The executable's lock guards it."""

    def __init__(
        self, core: Core, resources: Resources, segments: Sequence[Sequence[BoundDispatch]]
    ) -> None:
        self._core, self._resources, self._segments = core, resources, segments
        self._timed = core.probe.timestamp_period > 0.0
        longest = max(len(s) for s in segments)
        self._queries = resources.timestamps(longest + 1) if self._timed else None
        self._submits: dict[int, list[Any]] = {}

    def run(self, k: int, origin: float) -> list[StepTime]:
        """Runs segment ``k``; its dispatches' times, in seconds since ``origin``."""
        dispatches = self._segments[k]
        if not dispatches and not self._resources.has_work(k):
            return []
        if k not in self._submits:
            self._submits[k] = self._record(k)
        if self._timed or not dispatches:
            return self._run_timed(k, dispatches, origin)
        return self._run_singly(k, dispatches, origin)

    def _record(self, k: int) -> list[Any]:
        resources, dispatches = self._resources, self._segments[k]
        if not self._timed and dispatches:
            last = len(dispatches) - 1
            singles = []
            for i, dispatch in enumerate(dispatches):
                recorder = resources.begin(k, uploads=i == 0)
                recorder.dispatch(dispatch)
                singles.append(resources.end(k, recorder, downloads=i == last))
            return singles
        recorder = resources.begin(k)
        if dispatches:
            recorder.reset_timestamps(self._queries, len(dispatches) + 1)
            recorder.timestamp(self._queries, 0)
        for i, dispatch in enumerate(dispatches):
            recorder.dispatch(dispatch)
            recorder.timestamp(self._queries, i + 1)
        return [resources.end(k, recorder)]

    def _run_timed(
        self, k: int, dispatches: Sequence[BoundDispatch], origin: float
    ) -> list[StepTime]:
        api, probe = self._core.api, self._core.probe
        submitted = time.perf_counter() - origin
        self._core.queue.run(self._submits[k][0], self._resources.fence)
        if not dispatches:
            return []
        count = len(dispatches) + 1
        ticks = api.ffi.new("uint64_t[]", count)
        api.check(
            api.lib.vkGetQueryPoolResults(
                self._core.handle,
                self._queries,
                0,
                count,
                8 * count,
                ticks,
                8,
                api.c.VK_QUERY_RESULT_64_BIT,
            ),
            "reading timestamps",
        )
        # Both clocks are shown as one: each segment's first timestamp is put where the host sent it
        # off, so that a segment lies before the host steps that follow it. (One anchor for the
        # whole run does not do: the first submission may wait milliseconds for the compiler.)

        def seconds(later: int, earlier: int) -> float:
            # timestamps wrap where the queue has fewer than 64 valid bits (spec 17.5)
            return ((later - earlier) & probe.timestamp_mask) * probe.timestamp_period

        return [
            StepTime(
                d.node,
                d.kernel,
                "gpu",
                submitted + seconds(ticks[i], ticks[0]),
                seconds(ticks[i + 1], ticks[i]),
            )
            for i, d in enumerate(dispatches)
        ]

    def _run_singly(
        self, k: int, dispatches: Sequence[BoundDispatch], origin: float
    ) -> list[StepTime]:
        times = []
        for dispatch, submit in zip(dispatches, self._submits[k], strict=True):
            start = time.perf_counter()
            self._core.queue.run(submit, self._resources.fence)
            duration = time.perf_counter() - start
            times.append(StepTime(dispatch.node, dispatch.kernel, "gpu", start - origin, duration))
        return times
