"""The reference device: every node by numpy, in plan order.

The oracle for every other device, and the engine where nothing else is. Runs plans made
for ``DeviceCaps(host_only=True)``: host steps only, tensors in host slots.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from vkconv.capabilities import DeviceCaps, DeviceInfo
from vkconv.device.base import StepTime, Targets, fill
from vkconv.device.host import Slots, feed_of, output_of, run_host_step
from vkconv.dispatch import HostSlot, HostStep, Plan, View
from vkconv.errors import DeviceError
from vkconv.ir import Array


class ReferenceExecutable:
    """A host-only plan, ready to run; threads may run it at once."""

    #: numpy's memory is the process's
    arena_bytes = staging_bytes = 0

    def __init__(self, device: ReferenceDevice, plan: Plan) -> None:
        self._device, self._plan = device, plan
        self._closed = False
        self._feeds: Mapping[str, Array] = {}
        self._steps: list[HostStep] = []
        for step in plan.steps:
            if not isinstance(step, HostStep):
                raise DeviceError(
                    f"node '{step.node}' is planned as kernel '{step.kernel}'; the reference "
                    "device runs plans made with its own capabilities (host_only)"
                )
            self._steps.append(step)
        places = [p.place for p in (*plan.inputs, *plan.outputs)]
        if any(isinstance(p, View) for p in places):
            raise DeviceError("the reference device keeps tensors in host slots, not in views")

    def run(self, feeds: Mapping[str, Array], targets: Targets | None = None) -> list[Array]:
        """Inputs by name; one array per target, or per output."""
        outputs = self.profile(feeds)[0]
        if targets is None:
            return outputs
        names = [port.name for port in self._plan.outputs]
        return [fill(into, outputs[i], names[i]) for i, into in targets.items()]

    def start(self, feeds: Mapping[str, Array]) -> None:
        """Keeps the feeds: numpy computes on the thread that waits for the outputs."""
        self._feeds = feeds

    def finish(self, targets: Targets | None = None) -> list[Array]:
        """As ``run`` for the feeds that ``start`` was given."""
        feeds, self._feeds = self._feeds, {}
        return self.run(feeds, targets)

    def profile(self, feeds: Mapping[str, Array]) -> tuple[list[Array], list[StepTime]]:
        """As ``run``, with the time of every node."""
        if self._closed or self._device.closed:
            raise DeviceError("the session is closed")
        plan = self._plan
        slots: Slots = {}
        for port in plan.inputs:
            if isinstance(port.place, HostSlot):
                slots[port.place.name] = feed_of(port, feeds)
        times: list[StepTime] = []
        origin = time.perf_counter()
        for step in self._steps:
            start = time.perf_counter()
            run_host_step(step, slots, _no_view, _no_write)
            end = time.perf_counter()
            times.append(StepTime(step.node, step.op_type, "host", start - origin, end - start))
        return [output_of(port, slots, _no_view) for port in plan.outputs], times

    def close(self) -> None:
        """Ends use; any number of times."""
        self._closed = True


class ReferenceDevice:
    """numpy on the calling thread."""

    def __init__(self) -> None:
        self.info = DeviceInfo(
            index=-1,
            name="reference",
            kind="reference",
            driver=f"numpy {np.__version__}",
            api_version="",
            memory_bytes=0,
        )
        self.caps = DeviceCaps(kind="reference", host_only=True)
        self.closed = False

    def prepare(self, plan: Plan) -> ReferenceExecutable:
        """Checks that the plan needs nothing but the host."""
        if self.closed:
            raise DeviceError("the device is closed")
        return ReferenceExecutable(self, plan)

    def close(self) -> None:
        """Ends use of the device and its executables; any number of times."""
        self.closed = True


def _no_view(view: View) -> Array:
    raise DeviceError(f"tensor in '{view.storage.name}' is not on the host (internal error)")


def _no_write(view: View, _: Array) -> None:
    _no_view(view)
