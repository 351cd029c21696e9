"""A plan on a device with room for two runs at a time.

Each lane is an executable: the plan with an arena, descriptors and command buffers of its own; the
weights are shared. ``run`` uses the first. The second is made when a run is started while the first
is busy: while one lane computes, the other's inputs are uploaded and its outputs fetched. Two
arenas, not one with two sets of staging buffers: where the host reaches the device's memory there
is no staging, and copies to and from one would cost more than they hide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vkconv.device.base import Device, Executable, StepTime, Targets
from vkconv.dispatch import Plan
from vkconv.errors import OutOfDeviceMemoryError
from vkconv.ir import Array


class Lanes:
    """``start`` and what it returns belong to one thread; ``run`` may be called by others."""

    def __init__(self, device: Device, plan: Plan) -> None:
        self._device, self._plan = device, plan
        self._lanes: list[Executable] = [device.prepare(plan)]
        self._busy: list[Executable] = []
        self._most = 2

    def run(self, feeds: Mapping[str, Array], targets: Targets | None = None) -> list[Array]:
        return self._lanes[0].run(feeds, targets)

    def profile(self, feeds: Mapping[str, Array]) -> tuple[list[Array], list[StepTime]]:
        return self._lanes[0].profile(feeds)

    def start(
        self, feeds: Mapping[str, Array], targets: Targets | None, drain: Callable[[], None]
    ) -> Callable[[], list[Array]]:
        """Hands a run to the device; the outputs are what the returned function returns. Where no
        lane is free, ``drain`` finishes the runs that were started before."""
        lane = self._free()
        if lane is None:
            drain()
            lane = self._lanes[0]
        lane.start(feeds)
        self._busy.append(lane)

        def finish() -> list[Array]:
            self._busy.remove(lane)
            return lane.finish(targets)

        return finish

    @property
    def arena_bytes(self) -> int:
        return sum(lane.arena_bytes for lane in self._lanes)

    @property
    def staging_bytes(self) -> int:
        return sum(lane.staging_bytes for lane in self._lanes)

    def close(self) -> None:
        for lane in self._lanes:
            lane.close()

    def _free(self) -> Executable | None:
        for lane in self._lanes:
            if lane not in self._busy:
                return lane
        if len(self._lanes) < self._most:
            try:
                self._lanes.append(self._device.prepare(self._plan))
            except OutOfDeviceMemoryError:
                self._most = len(self._lanes)  # slower, but it works
            else:
                return self._lanes[-1]
        return None
