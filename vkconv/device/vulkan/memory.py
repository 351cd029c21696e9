"""Device memory: one buffer per allocation, its memory type chosen by what it is for.

On a device whose local memory the CPU can reach (integrated GPUs, CPU drivers) the arena and the
constants are mapped, and uploads are plain copies; elsewhere staging buffers are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vkconv.device.vulkan.heap import prefer_huge_pages
from vkconv.device.vulkan.loader import Api
from vkconv.device.vulkan.probe import MemoryType, Probe
from vkconv.errors import OutOfDeviceMemoryError
from vkconv.ir import Array

#: what to do where something is too large for a device
_SMALLER = "use a smaller input size or batch, or a device with more memory"

Purpose = Literal["device", "upload", "download"]


@dataclass(eq=False)
class Buffer:
    """A VkBuffer with memory of its own; ``mapped`` shows its bytes where the CPU reaches them."""

    handle: Any
    memory: Any
    size: int
    mapped: Array | None
    #: reading ``mapped`` is fast (spec 11.2: without HOST_CACHED, host reads are slow)
    cached: bool


class Memory:
    """Allocates buffers on one device, within its limits."""

    def __init__(self, api: Api, device: Any, probe: Probe) -> None:
        self._api, self._device, self._probe = api, device, probe
        self._count = 0
        c = api.c
        self._local = c.VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT
        self._host = c.VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | c.VK_MEMORY_PROPERTY_HOST_COHERENT_BIT
        self._cached = c.VK_MEMORY_PROPERTY_HOST_CACHED_BIT
        both = self._local | self._host
        #: device buffers are mapped. Not on discrete GPUs: there such memory lies behind PCIe
        self.unified = (
            probe.allows("unified")
            and probe.info.kind in ("integrated", "cpu")
            and any(t.flags & both == both for t in probe.memory_types)
        )
        #: what is mapped is memory of this process, and no device's
        self._in_process = probe.info.kind == "cpu" and probe.allows("huge_pages")
        self._usage = (
            c.VK_BUFFER_USAGE_STORAGE_BUFFER_BIT
            | c.VK_BUFFER_USAGE_TRANSFER_SRC_BIT
            | c.VK_BUFFER_USAGE_TRANSFER_DST_BIT
        )
        if probe.caps.storage_texel:
            self._usage |= c.VK_BUFFER_USAGE_STORAGE_TEXEL_BUFFER_BIT
        if probe.caps.uniform_texel:
            self._usage |= c.VK_BUFFER_USAGE_UNIFORM_TEXEL_BUFFER_BIT

    def create(self, size: int, purpose: Purpose, what: str) -> Buffer:
        """A buffer of at least ``size`` bytes, or OutOfDeviceMemoryError naming ``what``."""
        api, lib = self._api, self._api.lib
        size = max(256, -(-size // 256) * 256)
        heap = max(t.heap_bytes for t in self._probe.memory_types)
        limit = min(self._probe.max_allocation_bytes, heap)
        if size > limit:
            # asked here because drivers on overcommitting systems accept what they cannot back
            name = "largest memory heap" if limit == heap else "maxMemoryAllocationSize"
            raise self._no_room(size, what, f"the device's {name} is {limit}", _SMALLER)
        if self._count >= self._probe.max_allocation_count:
            raise self._no_room(
                size, what, f"the device's maxMemoryAllocationCount is {self._count}",
                "close sessions that are no longer used",
            )  # fmt: skip
        # llvmpipe compiles a kernel once more for buffers whose size is a power of two: 0.08 s a
        # kernel, and blocks of constants were 64 MiB
        spare = (512 if size == 256 else 256) if size & (size - 1) == 0 and size < limit else 0
        info = api.struct("VkBufferCreateInfo", size=size + spare, usage=self._usage)
        try:
            handle = api.create(
                lib.vkCreateBuffer, self._device, info, "VkBuffer", "creating a buffer"
            )
        except OutOfDeviceMemoryError as error:
            raise self._no_room(size, what, str(error)) from None
        needs = api.ffi.new("VkMemoryRequirements *")
        lib.vkGetBufferMemoryRequirements(self._device, handle, needs)
        try:
            memory, kind = self._allocate(needs, purpose, size, what)
        except BaseException:
            lib.vkDestroyBuffer(self._device, handle, api.ffi.NULL)
            raise
        self._count += 1
        buffer = Buffer(handle, memory, size, None, bool(kind.flags & self._cached))
        try:
            api.check(lib.vkBindBufferMemory(self._device, handle, memory, 0), "binding memory")
            if purpose != "device" or self.unified:
                where = api.ffi.new("void **")
                api.check(
                    lib.vkMapMemory(self._device, memory, 0, needs.size, 0, where), "mapping memory"
                )
                buffer.mapped = np.frombuffer(api.ffi.buffer(where[0], size), np.uint8)
                if self._in_process:
                    prefer_huge_pages(buffer.mapped)
        except OutOfDeviceMemoryError as error:
            self.free(buffer)
            raise self._no_room(size, what, str(error)) from None
        except BaseException:
            self.free(buffer)
            raise
        return buffer

    def free(self, buffer: Buffer) -> None:
        """Gives a buffer back; views of ``mapped`` must no longer be used."""
        null = self._api.ffi.NULL
        buffer.mapped = None
        self._api.lib.vkDestroyBuffer(self._device, buffer.handle, null)
        self._api.lib.vkFreeMemory(self._device, buffer.memory, null)
        self._count -= 1

    def _allocate(
        self, needs: Any, purpose: Purpose, size: int, what: str
    ) -> tuple[Any, MemoryType]:
        """Memory of the best type that has room."""
        api = self._api
        failure = "no memory type fits"
        for kind in self._types(int(needs.memoryTypeBits), purpose):
            request = api.struct(
                "VkMemoryAllocateInfo", allocationSize=needs.size, memoryTypeIndex=kind.index
            )
            out = api.ffi.new("VkDeviceMemory *")
            result = api.lib.vkAllocateMemory(self._device, request, api.ffi.NULL, out)
            if result == 0:
                return out[0], kind
            failure = api.result_name(result)
        raise self._no_room(size, what, failure)

    def _types(self, bits: int, purpose: Purpose) -> list[MemoryType]:
        """The memory types to try, best first; of equals the driver lists the faster first."""
        local, host, cached = self._local, self._host, self._cached
        fitting = [t for t in self._probe.memory_types if bits >> t.index & 1]
        if purpose == "device" and self.unified:
            wanted = [local | host | cached, local | host]
        elif purpose == "device":
            # the part of local memory that the CPU can reach is often small: leave it to those who
            # need it
            away = [t for t in fitting if t.flags & local and not t.flags & host]
            return away + [t for t in fitting if t.flags & local and t.flags & host]
        elif purpose == "download":
            wanted = [host | cached, host]
        else:
            wanted = [host]
        chosen: list[MemoryType] = []
        for flags in wanted:
            chosen += [t for t in fitting if t.flags & flags == flags and t not in chosen]
        return chosen

    def _no_room(self, size: int, what: str, why: str, remedy: str = "") -> OutOfDeviceMemoryError:
        remedy = remedy or f"close what else uses the device, or {_SMALLER}"
        return OutOfDeviceMemoryError(
            f"'{self._probe.info.name}' has no room for {what}: {size} bytes ({_human(size)}) "
            f"asked for, {why}; {remedy}",
            requested=size,
        )


def _human(size: int) -> str:
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"
