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

from vkconv.device.base import StepTime, Targets, fill, from_device, to_device
from vkconv.device.host import Slots, feed_of, output_of, run_host_step
from vkconv.device.segments import Segment, split
from vkconv.device.vulkan.first_dispatch import dispatch_first
from vkconv.device.vulkan.named_constants import push_bytes
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
            # compiled on threads while the constants are uploaded
            core.pipelines.begin((load(d.kernel, d.variant), d.spec) for d in plan.dispatches)
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
                bound = (
                    (d, load(d.kernel, d.variant), b)
                    for segment, row in zip(self._segments, self._bound, strict=True)
                    for d, b in zip(segment.dispatches, row, strict=True)
                )
                dispatch_first(core, resources.fence, bound)
                self._submits = [
                    resources.record(k, bound) if bound or resources.has_work(k) else None
                    for k, bound in enumerate(self._bound)
                ]
                core.pipelines.save()
            except BaseException:
                resources.close()
                raise
        self._profiler: Profiler | None = None
        self._started: Slots = {}
        self._inputs = [(p, _window(resources.writers[0], p)) for p in plan.inputs]
        self._outputs = [(p, _window(resources.readers[-1], p)) for p in plan.outputs]
        finalizer = weakref.finalize(self, core.orphans.append, resources)
        finalizer.atexit = False

    @property
    def arena_bytes(self) -> int:
        """Device memory of the intermediate tensors."""
        return self.resources.arena.size

    @property
    def staging_bytes(self) -> int:
        """Memory of the copies between host and device; none where the host reaches the arena."""
        return self.resources.staging_bytes

    def run(self, feeds: Mapping[str, Array], targets: Targets | None = None) -> list[Array]:
        """Inputs by name; one array for each target, in their order, or for each output."""
        with self.resources.lock:
            slots = self._begin(feeds, self._submit, run_host_step)
            return self._end(slots, targets, run_host_step)

    def start(self, feeds: Mapping[str, Array]) -> None:
        """Uploads and submits. Holds the executable until ``finish`` is called by this thread."""
        self.resources.lock.acquire()
        try:
            self._started = self._begin(feeds, self._submit, run_host_step)
        except BaseException:
            self.resources.lock.release()
            raise

    def finish(self, targets: Targets | None = None) -> list[Array]:
        """Waits for what ``start`` submitted and fetches the outputs."""
        try:
            slots, self._started = self._started, {}
            return self._end(slots, targets, run_host_step)
        finally:
            self.resources.lock.release()

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

        with self.resources.lock:
            slots = self._begin(feeds, submit, host)
            return self._end(slots, None, host), times

    def close(self) -> None:
        """Frees its memory and recordings, once. Waits for a run in another thread."""
        self.core.system.check_usable()
        self.resources.close()

    def _submit(self, k: int) -> None:
        request = self._submits[k]
        if request is not None:
            self.core.queue.submit(request, self.resources.fence)

    def _begin(
        self,
        feeds: Mapping[str, Array],
        submit: Callable[[int], None],
        host: Callable[..., None],
    ) -> Slots:
        """Everything up to the submission of the last segment. The lock is held."""
        self.core.check_usable()
        if self.resources.closed:
            raise DeviceError("the session is closed")
        # Ctrl-C may have ended the last run's wait; its work still uses the arena
        self._settle()
        slots: Slots = {}
        for port, target in self._inputs:
            self._store(port, target, feeds, slots)
        last = len(self._segments) - 1
        for k, segment in enumerate(self._segments):
            submit(k)
            if k < last:
                self._settle()
                self._run_host_steps(k, segment, slots, host)
        return slots

    def _end(self, slots: Slots, targets: Targets | None, host: Callable[..., None]) -> list[Array]:
        """The rest of a run. The lock is held."""
        if self.resources.closed:
            raise DeviceError("the session was closed during the run")
        self._settle()
        self._run_host_steps(len(self._segments) - 1, self._segments[-1], slots, host)
        wanted = dict.fromkeys(range(len(self._outputs))) if targets is None else targets
        return [self._fetch(i, into, slots) for i, into in wanted.items()]

    def _settle(self) -> None:
        if self.resources.fence.pending:
            self.core.queue.wait(self.resources.fence)

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

    def _fetch(self, i: int, into: Array | None, slots: Slots) -> Array:
        """An output in its own dtype, in ``into`` or in a new array."""
        port, source = self._outputs[i]
        if source is None:
            array = output_of(port, slots, lambda view: self.resources.read(-1, view))
            return array if into is None else fill(into, array, port.name)
        return from_device(source, port.dtype) if into is None else fill(into, source, port.name)

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
