"""A plan on a Vulkan device: bound and recorded once, replayed by ``run``.

A run copies the feeds into mapped memory, makes one submission per segment (one in all, where no
host step cuts the plan), waits, and copies the outputs out. Nothing is allocated on that path but
the outputs.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from vkconv.device.base import StepTime, from_device, to_device
from vkconv.device.host import Slots, feed_of, output_of, run_host_step
from vkconv.device.segments import Segment, split
from vkconv.device.vulkan.pipelines import push_bytes
from vkconv.device.vulkan.profiling import Profiler
from vkconv.device.vulkan.recording import BoundDispatch
from vkconv.device.vulkan.resources import Resources
from vkconv.dispatch import Dispatch, HostSlot, HostStep, Plan, Port, Storage, View
from vkconv.errors import DeviceError, OutOfDeviceMemoryError
from vkconv.ir import Array

if TYPE_CHECKING:
    from vkconv.device.vulkan.device import Core, Load, VulkanDevice


class VulkanExecutable:
    """A plan ready to run. Threads may call it; their runs take turns."""

    def __init__(self, device: VulkanDevice, core: Core, plan: Plan, load: Load) -> None:
        self._device = device  # kept open as long as its executables are in use
        self.core, self._plan = core, plan
        self._segments = split(plan)
        with core.lock:
            core.check_usable()
            try:
                resources = Resources(core, plan, self._segments)
            except OutOfDeviceMemoryError as error:
                raise OutOfDeviceMemoryError(
                    f"{error}; {_largest(plan)}", error.requested
                ) from None
            self.resources = resources
            core.resources.add(resources)
            try:
                self._bound = [[self._bind(d, load) for d in s.dispatches] for s in self._segments]
                resources.descriptors.create()
                self._submits = [
                    resources.record(k, bound) if bound or resources.has_work(k) else None
                    for k, bound in enumerate(self._bound)
                ]
                core.pipelines.save()
            except BaseException:
                resources.close()
                raise
        self._profiler: Profiler | None = None
        self._inputs = [(p, _window(resources.writers[0], p)) for p in plan.inputs]
        self._outputs = [(p, _window(resources.readers[-1], p)) for p in plan.outputs]
        finalizer = weakref.finalize(self, core.orphans.append, resources)
        finalizer.atexit = False

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Inputs by name; one array per output, in the plan's order."""
        queue, fence, submits = self.core.queue, self.resources.fence, self._submits

        def submit(k: int) -> None:
            request = submits[k]
            if request is not None:
                queue.run(request, fence)

        return self._execute(feeds, submit, run_host_step)

    def profile(self, feeds: Mapping[str, Array]) -> tuple[list[Array], list[StepTime]]:
        """As ``run``, with every step's time: by GPU timestamps, or wall time without them."""
        times: list[StepTime] = []
        origin = time.perf_counter()

        def submit(k: int) -> None:
            if self._profiler is None:
                self._profiler = Profiler(self.core, self.resources, self._bound)
            times.extend(self._profiler.run(k, origin))

        def host(
            step: HostStep,
            slots: Slots,
            read: Callable[[View], Array],
            write: Callable[[View, Array], None],
        ) -> None:
            start = time.perf_counter()
            run_host_step(step, slots, read, write)
            duration = time.perf_counter() - start
            times.append(StepTime(step.node, step.op_type, "host", start - origin, duration))

        return self._execute(feeds, submit, host), times

    def close(self) -> None:
        """Frees its memory and recordings, once. Waits for a run in another thread."""
        self.core.system.check_usable()
        self.resources.close()

    def _execute(
        self,
        feeds: Mapping[str, Array],
        submit: Callable[[int], None],
        host: Callable[..., None],
    ) -> list[Array]:
        resources = self.resources
        with resources.lock:
            self.core.check_usable()
            if resources.closed:
                raise DeviceError("the session is closed")
            if (
                resources.fence.pending
            ):  # Ctrl-C ended the last run's wait; its work still uses the arena
                self.core.queue.wait(resources.fence)
            slots: Slots = {}
            for port, target in self._inputs:
                self._store(port, target, feeds, slots)
            for k, segment in enumerate(self._segments):
                submit(k)
                if segment.host_steps:
                    self._run_host_steps(k, segment, slots, host)
            return [
                from_device(source, port.dtype) if source is not None else self._output(port, slots)
                for port, source in self._outputs
            ]

    def _store(
        self, port: Port, target: Array | None, feeds: Mapping[str, Array], slots: Slots
    ) -> None:
        if port.place is None:
            return
        array = feed_of(port, feeds)
        if isinstance(port.place, HostSlot):
            slots[port.place.name] = array
        elif target is not None:
            # a float feed of any strides or width goes straight to its place, without a copy
            # between
            np.copyto(
                target,
                array if array.dtype.kind == "f" else to_device(array, port.name),
                "same_kind",
            )

    def _output(self, port: Port, slots: Slots) -> Array:
        return output_of(port, slots, lambda view: self.resources.read(-1, view))

    def _run_host_steps(
        self, k: int, segment: Segment, slots: Slots, host: Callable[..., None]
    ) -> None:
        resources = self.resources

        def read(view: View) -> Array:
            return resources.read(k, view)

        def write(view: View, array: Array) -> None:
            resources.write(k + 1, view, array)

        for step in segment.host_steps:
            host(step, slots, read, write)

    def _bind(self, dispatch: Dispatch, load: Load) -> BoundDispatch:
        core, ffi = self.core, self.core.api.ffi
        limit = core.probe.caps.max_workgroup_count
        if any(not 0 < n <= most for n, most in zip(dispatch.grid, limit, strict=True)):
            raise DeviceError(
                f"node '{dispatch.node}', kernel '{dispatch.kernel}': grid {dispatch.grid} exceeds "
                f"the device's {limit}"
            )
        module = load(dispatch.kernel, dispatch.variant)
        program = core.pipelines.program(module)
        data = push_bytes(module, dispatch.push, dispatch.node)
        return BoundDispatch(
            node=dispatch.node,
            kernel=dispatch.kernel,
            pipeline=core.pipelines.pipeline(program, dispatch.spec),
            layout=program.layout,
            sets=self.resources.descriptors.add(dispatch, program),
            push=ffi.new("char[]", data) if data else None,
            push_size=len(data),
            grid=dispatch.grid,
            barrier=dispatch.barrier,
        )


def _window(windows: Mapping[View, Array], port: Port) -> Array | None:
    return windows.get(port.place) if isinstance(port.place, View) else None


def _largest(plan: Plan) -> str:
    """The three largest storages, for a message about memory."""
    rows: list[Storage] = sorted((*plan.storages, *plan.constants), key=lambda s: -s.size)[:3]
    listed = ", ".join(f"'{s.name}' {s.size} bytes" for s in rows)
    return f"the largest tensors: {listed}" if rows else "the plan lists no tensors"
