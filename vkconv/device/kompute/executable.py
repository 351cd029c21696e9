"""A plan through Kompute: tensors, algorithms and sequences made once, evaluated by ``run``.

    uploads | dispatches | dispatches | ... | dispatches, downloads | host steps | uploads | ...

Each part between bars is a kp sequence: one submission, waited for. A run also sends a number to
the device and back: kp drops what vkQueueSubmit returns, so that a lost device would otherwise
leave the outputs of an earlier run and say nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from vkconv.device.base import StepTime, Targets, fill, from_device, to_device
from vkconv.device.host import Slots, feed_of, output_of, run_host_step
from vkconv.device.kompute import loader
from vkconv.device.kompute.binding import Border, Placement, algorithm
from vkconv.device.kompute.submissions import in_submissions
from vkconv.device.segments import Segment, split
from vkconv.dispatch import Dispatch, HostSlot, HostStep, Plan, View
from vkconv.errors import DeviceError
from vkconv.ir import Array

if TYPE_CHECKING:
    from vkconv.device.kompute.device import KomputeDevice


@dataclass(eq=False)
class Bound:
    """A dispatch with its kp algorithm; ``alone``: a submission of it alone, for profiles."""

    dispatch: Dispatch
    algorithm: Any
    alone: Any = None


class KomputeExecutable:
    """A plan ready to run. Threads may call it; their runs take turns."""

    def __init__(self, device: KomputeDevice, plan: Plan) -> None:
        """Called with the device's lock held."""
        self._device, self._plan = device, plan
        self._segments = split(plan)
        groups = [in_submissions(s.dispatches) for s in self._segments]
        self._lock = threading.RLock()
        self._closed = False
        self._started: Slots = {}
        self._runs = 0
        self._place = Placement(device, plan, self._segments, groups)
        try:
            self._border = Border(self._place, self._segments)
            self._stamp = device.tensors.border(256)
            self._number = np.asarray(self._stamp.data()).view(np.uint32)[:1]
            with loader.typed("recording the plan"):
                self._bound = [
                    [[Bound(d, algorithm(device, self._place, d)) for d in group] for group in row]
                    for row in groups
                ]
                self._sequences = [self._record(k) for k in range(len(self._segments))]
        except BaseException:
            self._place.close()
            raise

    @property
    def arena_bytes(self) -> int:
        """Device memory of the intermediate tensors."""
        return self._place.arena_bytes

    @property
    def staging_bytes(self) -> int:
        """Memory of the copies between host and device."""
        return self._place.staging_bytes

    @property
    def submissions(self) -> int:
        """How many a run makes."""
        return sum(len(row) for row in self._sequences)

    def run(self, feeds: Mapping[str, Array], targets: Targets | None = None) -> list[Array]:
        """Inputs by name; one array for each target, in their order, or for each output."""
        with self._lock:
            slots = self._begin(feeds, self._evaluate, run_host_step)
            return self._end(slots, targets)

    def start(self, feeds: Mapping[str, Array]) -> None:
        """Runs: kp waits for every submission. Holds the executable until ``finish`` is called by
        this thread."""
        self._lock.acquire()
        try:
            self._started = self._begin(feeds, self._evaluate, run_host_step)
        except BaseException:
            self._lock.release()
            raise

    def finish(self, targets: Targets | None = None) -> list[Array]:
        """Fetches the outputs of what ``start`` ran."""
        try:
            slots, self._started = self._started, {}
            return self._end(slots, targets)
        finally:
            self._lock.release()

    def profile(self, feeds: Mapping[str, Array]) -> tuple[list[Array], list[StepTime]]:
        """As ``run``, with every step's wall time, a submission for each dispatch. (kp's timestamps
        are written to queries that it never resets, which the standard does not allow.)"""
        times: list[StepTime] = []
        origin = time.perf_counter()

        def timed(node: str, kernel: str, track: str, work: Callable[[], None]) -> None:
            start = time.perf_counter()
            work()
            end = time.perf_counter()
            times.append(StepTime(node, kernel, track, start - origin, end - start))

        def evaluate(k: int) -> None:
            before, after = self._copies(k)
            if before:
                self._evaluate_one(before)
            self._sent(k)
            for bound in (b for group in self._bound[k] for b in group):
                sequence = self._alone(bound)
                node, kernel = bound.dispatch.node, bound.dispatch.kernel
                timed(node, kernel, "gpu", partial(self._evaluate_one, sequence))
            if after:
                self._evaluate_one(after)

        def host(step: HostStep, slots: Slots, read: Any, write: Any) -> None:
            work = partial(run_host_step, step, slots, read, write)
            timed(step.node, step.op_type, "host", work)

        with self._lock:
            slots = self._begin(feeds, evaluate, host)
            return self._end(slots, None), times

    def close(self) -> None:
        """Frees its memory and recordings, once. Waits for a run in another thread."""
        with self._lock, self._device.lock:
            if self._closed:
                return
            self._closed = True
            self._border.close()
            self._number = np.zeros(1, np.uint32)
            bound = [b for row in self._bound for group in row for b in group]
            alone = [b.alone for b in bound if b.alone is not None]
            for sequence in [s for row in self._sequences for s in row] + alone:
                sequence.destroy()
            for row in bound:
                row.algorithm.destroy()
            self._sequences, self._bound = [], []
            self._stamp.destroy()
            self._place.close()

    # --- recording -------------------------------------------------------------------------------

    def _record(self, k: int) -> list[Any]:
        """The sequences of a segment: uploads; dispatches; the last dispatches with downloads."""
        before, after = self._operations(k)
        rows: list[list[Any]] = [[before]] if before else []
        rows += [[self._operation(b) for b in group] for group in self._bound[k]]
        if after and self._bound[k]:
            rows[-1].append(after)
        elif after:
            rows.append([after])
        return [self._sequence(row) for row in rows]

    def _operations(self, k: int) -> tuple[Any, Any]:
        """The copies to the device before segment ``k``, and those from it behind."""
        kp = self._device.kp
        up, down = self._border.uploads[k], self._border.downloads[k]
        up = [*up, self._stamp] if k == 0 else up
        down = [*down, self._stamp] if k == len(self._segments) - 1 else down
        return (
            kp.OpTensorSyncDevice(up) if up else None,
            kp.OpTensorSyncLocal(down) if down else None,
        )

    def _operation(self, bound: Bound) -> Any:
        return self._device.kp.OpAlgoDispatch(bound.algorithm)

    def _sequence(self, operations: list[Any]) -> Any:
        sequence = self._device.opened.sequence()
        for operation in operations:
            sequence.record(operation)
        return sequence

    def _copies(self, k: int) -> tuple[Any, Any]:
        """The copies of segment ``k``, each as a sequence of its own."""
        before, after = self._operations(k)
        return (
            self._sequence([before]) if before else None,
            self._sequence([after]) if after else None,
        )

    def _alone(self, bound: Bound) -> Any:
        if bound.alone is None:
            bound.alone = self._sequence([self._operation(bound)])
        return bound.alone

    # --- running ---------------------------------------------------------------------------------

    def _evaluate(self, k: int) -> None:
        for i, sequence in enumerate(self._sequences[k]):
            self._evaluate_one(sequence)
            if i == 0:
                self._sent(k)

    def _evaluate_one(self, sequence: Any) -> None:
        # other executables of the device use the same queue, and kp guards nothing
        with self._device.lock, loader.typed("running the plan"):
            sequence.eval()

    def _sent(self, k: int) -> None:
        """The number is on the device: only from there can it come back."""
        if k == 0:
            self._number[0] = ~np.uint32(self._runs)

    def _begin(
        self, feeds: Mapping[str, Array], evaluate: Callable[[int], None], host: Callable[..., None]
    ) -> Slots:
        """The whole run but for fetching the outputs. The lock is held."""
        self._device.check_usable()
        if self._closed:
            raise DeviceError("the session is closed")
        slots: Slots = {}
        for port in self._plan.inputs:
            if port.place is None:
                continue
            array = feed_of(port, feeds)
            if isinstance(port.place, HostSlot):
                slots[port.place.name] = array
            elif isinstance(port.place, View):
                self._border.write(0, port.place, to_device(array, port.name))
        self._runs = (self._runs + 1) & 0x7FFFFFFF
        self._number[0] = self._runs
        for k, segment in enumerate(self._segments):
            evaluate(k)
            if k == len(self._segments) - 1:
                self._check_alive()
            self._run_host_steps(k, segment, slots, host)
        return slots

    def _check_alive(self) -> None:
        if int(self._number[0]) != self._runs:
            error = loader.lost("running the plan")
            self._device.broken = str(error)
            raise error

    def _run_host_steps(
        self, k: int, segment: Segment, slots: Slots, host: Callable[..., None]
    ) -> None:
        def write(view: View, array: Array) -> None:
            self._border.write(k + 1, view, array)

        for step in segment.host_steps:
            host(step, slots, self._border.read, write)

    def _end(self, slots: Slots, targets: Targets | None) -> list[Array]:
        """The outputs that are wanted, fetched. The lock is held."""
        if self._closed:
            raise DeviceError("the session was closed during the run")
        wanted = dict.fromkeys(range(len(self._plan.outputs))) if targets is None else targets
        return [self._fetch(i, into, slots) for i, into in wanted.items()]

    def _fetch(self, i: int, into: Array | None, slots: Slots) -> Array:
        """An output in its own dtype, in ``into`` or in a new array."""
        port = self._plan.outputs[i]
        source = self._border.window(port.place) if isinstance(port.place, View) else None
        if source is None:
            array = output_of(port, slots, self._border.read)
            return array if into is None else fill(into, array, port.name)
        return from_device(source, port.dtype) if into is None else fill(into, source, port.name)
