"""Descriptor sets and texel views of one executable: allocated together, written in one call.

Dispatches that bind the same ranges of the same module share a set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vkconv.device.vulkan.loader import Api
from vkconv.device.vulkan.memory import Buffer
from vkconv.device.vulkan.pipelines import Program
from vkconv.device.vulkan.probe import Probe
from vkconv.dispatch import Dispatch, Storage
from vkconv.errors import DeviceError
from vkconv.shaders import BufferField

#: where a storage lies on the device
Locate = Callable[[Storage], "tuple[Buffer, int]"]
#: (binding, kind, components, buffer, offset, size)
_Row = tuple[int, str, int, Buffer, int, int]


class Descriptors:
    """Collects the sets that dispatches need, then makes them all."""

    def __init__(
        self, api: Api, device: Any, probe: Probe, types: dict[str, int], locate: Locate
    ) -> None:
        self._api, self._device, self._probe, self._types = api, device, probe, types
        self._locate = locate
        self._wanted: dict[tuple[Program, tuple[_Row, ...]], Any] = {}
        self._views: dict[tuple[Buffer, int, int, int], Any] = {}
        self._pool: Any = None

    def add(self, dispatch: Dispatch, program: Program) -> Any:
        """The ``VkDescriptorSet[1]`` that will hold the dispatch's set once ``create`` has run."""
        names = {f.name for f in program.module.buffers}
        if names != set(dispatch.buffers):
            wrong = ", ".join(sorted(names ^ set(dispatch.buffers)))
            raise DeviceError(
                f"node '{dispatch.node}', kernel '{dispatch.kernel}': buffers do not match: {wrong}"
            )
        rows = tuple(self._row(dispatch, f) for f in program.module.buffers)
        key = (program, rows)
        if key not in self._wanted:
            self._wanted[key] = self._api.ffi.new("VkDescriptorSet[1]")
        return self._wanted[key]

    def create(self) -> None:
        """Allocates every set from a pool of exactly the right size, and writes them."""
        api, lib = self._api, self._api.lib
        if not self._wanted:
            return
        counts = dict.fromkeys(self._types, 0)
        for _, rows in self._wanted:
            for row in rows:
                counts[row[1]] += 1
        used = {kind: n for kind, n in counts.items() if n}
        sizes = api.ffi.new("VkDescriptorPoolSize[]", max(1, len(used)))
        for size, (kind, n) in zip(sizes, used.items(), strict=False):
            size.type, size.descriptorCount = self._types[kind], n
        info = api.struct(
            "VkDescriptorPoolCreateInfo",
            maxSets=len(self._wanted),
            poolSizeCount=len(used),
            pPoolSizes=sizes,
        )
        self._pool = api.create(
            lib.vkCreateDescriptorPool,
            self._device,
            info,
            "VkDescriptorPool",
            "creating descriptors",
        )
        layouts = api.ffi.new("VkDescriptorSetLayout[]", [p.set_layout for p, _ in self._wanted])
        request = api.struct(
            "VkDescriptorSetAllocateInfo",
            descriptorPool=self._pool,
            descriptorSetCount=len(self._wanted),
            pSetLayouts=layouts,
        )
        sets = api.ffi.new("VkDescriptorSet[]", len(self._wanted))
        api.check(
            lib.vkAllocateDescriptorSets(self._device, request, sets), "allocating descriptor sets"
        )
        for made, cell in zip(sets, self._wanted.values(), strict=True):
            cell[0] = made
        self._write(sum(counts.values()))

    def close(self) -> None:
        """Destroys pool, sets and views; no submission may still use them."""
        lib, null = self._api.lib, self._api.ffi.NULL
        if self._pool is not None:
            lib.vkDestroyDescriptorPool(self._device, self._pool, null)
            self._pool = None
        for view in self._views.values():
            lib.vkDestroyBufferView(self._device, view, null)
        self._views.clear()

    def _row(self, dispatch: Dispatch, f: BufferField) -> _Row:
        bound = dispatch.buffers[f.name]
        buffer, base = self._locate(bound.storage)
        element = 4 * f.components
        # A last partial vec4 is bound whole: storages are padded to 256 bytes.
        size = max(element, -(-bound.size // element) * element)
        offset = base + bound.offset
        caps = self._probe.caps
        room = min(buffer.size, base + max(256, -(-bound.storage.size // 256) * 256)) - offset
        if offset % 256 or bound.offset < 0 or size > room:
            why = f"bytes {bound.offset} to {bound.offset + size} do not lie in its storage"
        elif f.kind == "storage_buffer" and size > caps.max_storage_buffer_range:
            why = f"{size} bytes exceed the device's {caps.max_storage_buffer_range} per binding"
        elif f.kind != "storage_buffer" and size // element > caps.max_texel_buffer_elements:
            why = f"{size // element} texels exceed the device's {caps.max_texel_buffer_elements}"
        else:
            return f.binding, f.kind, f.components, buffer, offset, size
        raise DeviceError(
            f"node '{dispatch.node}', kernel '{dispatch.kernel}', buffer '{f.name}': {why}"
        )

    def _view(self, buffer: Buffer, offset: int, size: int, components: int) -> Any:
        key = (buffer, offset, size, components)
        if key not in self._views:
            c = self._api.c
            form = c.VK_FORMAT_R32G32B32A32_SFLOAT if components == 4 else c.VK_FORMAT_R32_SFLOAT
            info = self._api.struct(
                "VkBufferViewCreateInfo",
                buffer=buffer.handle,
                format=form,
                offset=offset,
                range=size,
            )
            self._views[key] = self._api.create(
                self._api.lib.vkCreateBufferView,
                self._device,
                info,
                "VkBufferView",
                "creating a view",
            )
        return self._views[key]

    def _write(self, count: int) -> None:
        ffi = self._api.ffi
        writes = ffi.new("VkWriteDescriptorSet[]", max(1, count))
        buffers = ffi.new("VkDescriptorBufferInfo[]", max(1, count))
        views = ffi.new("VkBufferView[]", max(1, count))
        n = 0
        for (_, rows), cell in self._wanted.items():
            for binding, kind, components, buffer, offset, size in rows:
                write = writes[n]
                write.sType = self._api.c.VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET
                write.dstSet, write.dstBinding = cell[0], binding
                write.descriptorCount, write.descriptorType = 1, self._types[kind]
                if kind == "storage_buffer":
                    info = buffers[n]
                    info.buffer, info.offset, info.range = buffer.handle, offset, size
                    write.pBufferInfo = buffers + n
                else:
                    views[n] = self._view(buffer, offset, size, components)
                    write.pTexelBufferView = views + n
                n += 1
        self._api.lib.vkUpdateDescriptorSets(self._device, n, writes, 0, ffi.NULL)
