"""Compiling at load what a driver would only compile at a pipeline's first dispatch.

Mesa's CPU driver (llvmpipe) makes machine code when a pipeline is first dispatched, on the one
thread that works for the device's queue: the first run of a YOLOv7-tiny takes 2.2 s there, the next
0.07 s. A dispatch of no workgroups compiles and computes nothing, so every pipeline gets one at
load. To use the other cores, further devices are opened for the while: each compiles a share, and
leaves the code in Mesa's cache on disk, where the queue that will run it finds it (2.1 s of
compiling became 1.1 s on two cores). On all other drivers nothing of this is needed or done.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vkconv.device.vulkan.descriptors import Descriptors
from vkconv.device.vulkan.heap import GROWTH, give_back
from vkconv.device.vulkan.memory import Buffer
from vkconv.device.vulkan.pipelines import usable_cores
from vkconv.device.vulkan.probe import Probe
from vkconv.device.vulkan.queue import Fence, Queue
from vkconv.device.vulkan.recording import BoundDispatch, CommandPool
from vkconv.dispatch import Dispatch, Storage
from vkconv.errors import VkconvError
from vkconv.shaders import ShaderModule

if TYPE_CHECKING:
    from vkconv.device.vulkan.device import Core

#: seconds above which a first dispatch has compiled: found in Mesa's cache it takes 2 to 5 ms, and
#: the cheapest kernel takes 20 ms to compile
COMPILED = 0.010
#: devices that compile besides the one that will run
MOST_TWINS = 3
NO_WORK = (0, 0, 0)

#: a dispatch as planned, its module, and as bound on the device that will run it
Item = tuple[Dispatch, ShaderModule, BoundDispatch]


def compiles_late(probe: Probe) -> bool:
    """Whether the driver makes machine code at the first dispatch."""
    return probe.info.name.startswith("llvmpipe")


def dispatch_first(core: Core, fence: Fence, items: Iterable[Item]) -> None:
    """Has the driver compile the pipelines of ``items`` that were never dispatched, if it would
    otherwise do so in the first run. The descriptor sets are written; nothing is computed."""
    if not compiles_late(core.probe):
        return
    fresh = {bound.pipeline: (dispatch, module, bound) for dispatch, module, bound in items}
    todo = [item for pipeline, item in fresh.items() if pipeline not in core.pipelines.dispatched]
    if not todo:
        return
    # the smallest tells whether Mesa has them on disk; then the largest first
    todo.sort(key=lambda item: core.pipelines.effort.get(item[2].pipeline, 0.0))
    pool = CommandPool(core.api, core.handle, core.queue.family)
    try:
        began = time.perf_counter()
        _dispatch_nothing(core, pool, fence, [todo[0][2]])
        rest = deque(reversed(todo[1:]))
        if time.perf_counter() - began > COMPILED:
            give_back()  # what loading has freed: it shall not add to what compiling takes
            _share(core, pool, fence, rest)
            give_back()
        _dispatch_nothing(core, pool, fence, [bound for _, _, bound in todo[1:]])
    finally:
        if core.queue.settle(fence):
            pool.close()
    core.pipelines.dispatched.update(fresh)


def _share(core: Core, pool: CommandPool, fence: Fence, items: deque[Item]) -> None:
    """Compiles ``items`` on this device and on twins of it, until none is left."""
    count = min(MOST_TWINS, usable_cores() - 1, len(items) - 1) if _mesa_keeps_code() else 0
    room = max((r.size for d, _, _ in items for r in d.buffers.values()), default=0)
    threads = [
        threading.Thread(target=_compile_apart, args=(core, items, room)) for _ in range(count)
    ]
    try:
        for thread in threads:
            thread.start()
        while (item := _taken(items)) is not None:
            _dispatch_nothing(core, pool, fence, [item[2]])
            give_back(GROWTH)
    finally:
        items.clear()  # after an error or Ctrl-C
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def _compile_apart(core: Core, items: deque[Item], room: int) -> None:
    """Another device of the same kind compiles ``items`` while there are any. Its failures concern
    nobody: what it has not compiled, the device that will run it does."""
    with contextlib.suppress(VkconvError):
        twin = type(core)(core.probe)
        try:
            _compile_on(twin, items, room)
        finally:
            twin.close()


def _compile_on(twin: Core, items: deque[Item], room: int) -> None:
    """Takes and compiles ``items``; their buffers are stand-ins of ``room`` bytes, never touched
    (what matters to the driver is their format, and that sizes are no powers of two)."""
    made = _Made(twin.queue)
    twin.resources.add(made)
    buffer = twin.memory.create(room, "device", "a stand-in for tensors")
    made.undo.callback(twin.memory.free, buffer)
    pool = CommandPool(twin.api, twin.handle, twin.queue.family)
    made.undo.callback(pool.close)
    while (item := _taken(items)) is not None:
        _dispatch_nothing(twin, pool, made.fence, [_bind(twin, item, buffer, made)])
        give_back(GROWTH)


class _Made:
    """What a twin has made on its device, which frees it when it is closed."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.fence = queue.fence()
        self.undo = contextlib.ExitStack()

    def close(self) -> bool:
        if not self._queue.settle(self.fence):
            return False  # the device hangs, and keeps all of it
        self.undo.close()
        self._queue.destroy(self.fence)
        return True


def _bind(twin: Core, item: Item, buffer: Buffer, made: _Made) -> BoundDispatch:
    """The item on another device, every buffer bound to the start of ``buffer``."""
    dispatch, module, bound = item

    def locate(_: Storage) -> tuple[Buffer, int]:
        return buffer, 0

    ranges = {name: replace(r, offset=0) for name, r in dispatch.buffers.items()}
    program = twin.pipelines.program(module)
    sets = Descriptors(twin.api, twin.handle, twin.probe, twin.pipelines.descriptor_types, locate)
    made.undo.callback(sets.close)
    cell = sets.add(replace(dispatch, buffers=ranges), program)
    sets.create()
    pipeline = twin.pipelines.pipeline(program, dispatch.spec)
    return replace(bound, pipeline=pipeline, layout=program.layout, sets=cell)


def _dispatch_nothing(
    core: Core, pool: CommandPool, fence: Fence, bound: Sequence[BoundDispatch]
) -> None:
    recorder = pool.record()
    recorder.after_earlier_work()
    for dispatch in bound:
        # no invocation, no hazard; but validation looks at the buffers alone
        recorder.dispatch(replace(dispatch, grid=NO_WORK, barrier=True))
    core.queue.run(recorder.finish(), fence)


def _taken(items: deque[Item]) -> Item | None:
    try:
        return items.popleft()
    except IndexError:
        return None


def _mesa_keeps_code() -> bool:
    """Whether Mesa's cache on disk is on: without it twins would compile for themselves only."""
    switches = ("MESA_SHADER_CACHE_DISABLE", "MESA_GLSL_CACHE_DISABLE")
    return not any(os.environ.get(s, "").lower() in ("1", "true", "yes", "y") for s in switches)
