"""The driver objects of one executable: arena, staging, descriptors, command buffers, fence.

Also the executable's border: for every view that the host reads or writes, the array in mapped
memory where it does so, in the arena itself or in staging.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vkconv.device.base import from_device
from vkconv.device.segments import Segment, byte_range
from vkconv.device.vulkan.descriptors import Descriptors
from vkconv.device.vulkan.memory import Buffer
from vkconv.device.vulkan.recording import BoundDispatch, CommandPool, Copy, Recorder
from vkconv.dispatch import Plan, Storage, View
from vkconv.errors import DeviceError
from vkconv.ir import Array

if TYPE_CHECKING:
    from vkconv.device.vulkan.device import Core

STAGING_ALIGNMENT = 64  # a cache line: neighbours are not written through the same one


class Resources:
    """Made under the device's lock. ``lock`` is held by a run, and by whoever closes."""

    def __init__(self, core: Core, plan: Plan, segments: Sequence[Segment]) -> None:
        self._core = core
        self.lock = threading.RLock()
        self.closed = False
        self._constants: tuple[Storage, ...] = ()
        self._buffers: list[Buffer] = []
        self.staging_bytes = 0
        self._query_pools: list[Any] = []
        #: per segment: where each view is written before it, and read after it
        self.writers: list[dict[View, Array]] = []
        self.readers: list[dict[View, Array]] = []
        self._uploads: list[list[Copy]] = []
        self._downloads: list[list[Copy]] = []
        self.fence = core.queue.fence()
        self.pool: CommandPool | None = None
        self.descriptors = Descriptors(
            core.api, core.handle, core.probe, core.pipelines.descriptor_types, self.locate
        )
        try:
            core.constants.acquire(plan.constants)
            self._constants = plan.constants
            self.arena = self._create(
                plan.arena_size, "device", "the arena of intermediate tensors"
            )
            self._lay_out(segments)
            self.pool = CommandPool(core.api, core.handle, core.queue.family)
        except BaseException:
            self.close()
            raise

    def locate(self, storage: Storage) -> tuple[Buffer, int]:
        """The buffer and offset of a storage."""
        if storage.is_constant:
            return self._core.constants.place(storage)
        return self.arena, storage.offset

    def read(self, k: int, view: View) -> Array:
        """The view's numbers after segment ``k``, in its ONNX dtype; a copy."""
        array = self.readers[k].get(view)
        if array is None:
            data = view.storage.data
            if data is None:
                return np.zeros(
                    view.shape, view.dtype
                )  # only tensors without elements have no place
            flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
            array = _shown(flat, view, *byte_range(view))
        return from_device(array, view.dtype)

    def write(self, k: int, view: View, array: Array) -> None:
        """Puts device elements where segment ``k`` takes them; a view nobody takes is dropped."""
        target = self.writers[k].get(view) if k < len(self.writers) else None
        if target is not None:
            np.copyto(target, array)

    def has_work(self, k: int) -> bool:
        """Whether segment ``k`` copies anything (dispatches apart)."""
        return bool(self._uploads[k] or self._downloads[k])

    def record(self, k: int, dispatches: Sequence[BoundDispatch]) -> Any:
        """The VkSubmitInfo of a whole segment."""
        recorder = self.begin(k)
        for dispatch in dispatches:
            recorder.dispatch(dispatch)
        return self.end(k, recorder)

    def begin(self, k: int, uploads: bool = True) -> Recorder:
        """A command buffer, ordered after earlier work, that begins with the segment's uploads."""
        assert self.pool is not None
        recorder = self.pool.record()
        recorder.after_earlier_work()
        if uploads:
            recorder.copies_before_dispatches(self._uploads[k])
        return recorder

    def end(self, k: int, recorder: Recorder, downloads: bool = True) -> Any:
        """Ends it with the segment's downloads; the VkSubmitInfo."""
        if downloads:
            recorder.copies_after_dispatches(self._downloads[k])
        recorder.visible_to_host()
        return recorder.finish()

    def timestamps(self, count: int) -> Any:
        """A query pool of ``count`` timestamps."""
        api = self._core.api
        info = api.struct(
            "VkQueryPoolCreateInfo", queryType=api.c.VK_QUERY_TYPE_TIMESTAMP, queryCount=count
        )
        made = api.create(
            api.lib.vkCreateQueryPool, self._core.handle, info, "VkQueryPool", "creating timestamps"
        )
        self._query_pools.append(made)
        return made

    def close(self) -> bool:
        """Frees everything, once; False when the device hangs: then they are abandoned."""
        core = self._core
        with self.lock:
            if self.closed:
                return True
            if not core.queue.settle(self.fence):
                return False
            self.closed = True
            self.writers, self.readers = [], []
            with core.lock:
                lib, null = core.api.lib, core.api.ffi.NULL
                if self.pool is not None:
                    self.pool.close()
                for pool in self._query_pools:
                    lib.vkDestroyQueryPool(core.handle, pool, null)
                self.descriptors.close()
                core.queue.destroy(self.fence)
                for buffer in self._buffers:
                    core.memory.free(buffer)
                core.constants.release(self._constants)
                core.resources.discard(self)
        return True

    def _create(self, size: int, purpose: Any, what: str) -> Buffer:
        buffer = self._core.memory.create(size, purpose, what)
        self._buffers.append(buffer)
        return buffer

    def _lay_out(self, segments: Sequence[Segment]) -> None:
        """Decides for every view whether the host meets it in the arena or in staging."""
        direct_up = self.arena.mapped is not None
        direct_down = direct_up and self.arena.cached
        up = _Staging()
        down = _Staging()
        for segment in segments:
            up.add(segment.uploads)
            down.add(segment.downloads)
        inward = self.arena if direct_up else up.create(self, "upload")
        outward = self.arena if direct_down else down.create(self, "download")
        for segment, ups, downs in zip(segments, up.rows, down.rows, strict=True):
            self.writers.append({})
            self.readers.append({})
            self._uploads.append([])
            self._downloads.append([])
            for view, staged in zip(segment.uploads, ups, strict=True):
                place, size = self._arena_range(view)
                assert inward.mapped is not None
                self.writers[-1][view] = _shown(
                    inward.mapped, view, place if direct_up else staged, size
                )
                if not direct_up:
                    self._uploads[-1].append(Copy(inward, staged, self.arena, place, size))
            for view, staged in zip(segment.downloads, downs, strict=True):
                place, size = self._arena_range(view)
                assert outward.mapped is not None
                self.readers[-1][view] = _shown(
                    outward.mapped, view, place if direct_down else staged, size
                )
                if not direct_down:
                    self._downloads[-1].append(Copy(self.arena, place, outward, staged, size))

    def _arena_range(self, view: View) -> tuple[int, int]:
        offset, size = byte_range(view)
        if view.layout != "linear":
            raise DeviceError(
                f"'{view.storage.name}' meets the host in layout {view.layout} (internal error)"
            )
        if (
            offset + size > view.storage.size
            or view.storage.offset + offset + size > self.arena.size
        ):
            raise DeviceError(
                f"a view of '{view.storage.name}' leaves its storage (internal error)"
            )
        return view.storage.offset + offset, size


class _Staging:
    """Offsets in a staging buffer, one per view and segment."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self._size = 0

    def add(self, views: Sequence[View]) -> None:
        row = []
        for view in views:
            row.append(self._size)
            step = byte_range(view)[1]
            self._size += math.ceil(step / STAGING_ALIGNMENT) * STAGING_ALIGNMENT
        self.rows.append(row)

    def create(self, owner: Resources, purpose: Any) -> Buffer:
        buffer = owner._create(self._size, purpose, f"the staging of {purpose}s")
        owner.staging_bytes += buffer.size
        return buffer


def _shown(mapped: Array, view: View, offset: int, size: int) -> Array:
    """A window on mapped memory with the view's shape and device type."""
    dtype = np.int32 if view.is_integer else np.float32
    return mapped[offset : offset + size].view(dtype).reshape(view.shape)
