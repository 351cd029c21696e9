"""Command buffers: what a submission does, written once through raw calls and replayed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vkconv.device.vulkan.loader import Api
from vkconv.device.vulkan.memory import Buffer


@dataclass(eq=False)
class BoundDispatch:
    """A dispatch with every name resolved: handles and bytes ready for recording."""

    node: str
    kernel: str
    pipeline: Any
    layout: Any
    sets: Any  # VkDescriptorSet[1]
    push: Any  # char[], or None
    push_size: int
    grid: tuple[int, int, int]
    barrier: bool


@dataclass(frozen=True)
class Copy:
    """Bytes from one buffer to another."""

    source: Buffer
    source_offset: int
    target: Buffer
    target_offset: int
    size: int


class CommandPool:
    """Command buffers of one owner. Not thread-safe: the owner's lock guards it (spec 6.2)."""

    def __init__(self, api: Api, device: Any, family: int) -> None:
        self._api, self._device = api, device
        info = api.struct("VkCommandPoolCreateInfo", queueFamilyIndex=family)
        self._pool = api.create(
            api.lib.vkCreateCommandPool, device, info, "VkCommandPool", "creating a command pool"
        )

    def record(self) -> Recorder:
        """A recorder on a new command buffer."""
        api = self._api
        info = api.struct(
            "VkCommandBufferAllocateInfo", commandPool=self._pool, commandBufferCount=1
        )
        cell = api.ffi.new("VkCommandBuffer[1]")
        api.check(
            api.lib.vkAllocateCommandBuffers(self._device, info, cell),
            "allocating a command buffer",
        )
        return Recorder(api, cell)

    def close(self) -> None:
        """Frees every command buffer; none may be pending."""
        self._api.lib.vkDestroyCommandPool(self._device, self._pool, self._api.ffi.NULL)


class Recorder:
    """Writes one command buffer. ``finish`` returns the VkSubmitInfo that replays it."""

    def __init__(self, api: Api, cell: Any) -> None:
        self._api, self._lib, self._cell = api, api.lib, cell
        self._buffer = cell[0]
        c = api.c
        self._compute, self._transfer = (
            c.VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
            c.VK_PIPELINE_STAGE_TRANSFER_BIT,
        )
        self._shader_write = c.VK_ACCESS_SHADER_WRITE_BIT
        self._shader = c.VK_ACCESS_SHADER_READ_BIT | c.VK_ACCESS_SHADER_WRITE_BIT
        self._copies = c.VK_ACCESS_TRANSFER_READ_BIT | c.VK_ACCESS_TRANSFER_WRITE_BIT
        self._between = api.struct(
            "VkMemoryBarrier", srcAccessMask=self._shader_write, dstAccessMask=self._shader
        )
        self._bound: Any = None
        info = api.struct("VkCommandBufferBeginInfo")
        api.check(self._lib.vkBeginCommandBuffer(self._buffer, info), "recording")

    def after_earlier_work(self) -> None:
        """Orders everything here after all earlier submissions: they used the same arena."""
        c = self._api.c
        written = self._shader_write | c.VK_ACCESS_TRANSFER_WRITE_BIT
        both = self._compute | self._transfer
        self._barrier(both, written, both, self._shader | self._copies)

    def copies_before_dispatches(self, copies: Iterable[Copy]) -> None:
        """Uploads, and the barrier that lets shaders read and overwrite them."""
        if self._copy(copies):
            written = self._api.c.VK_ACCESS_TRANSFER_WRITE_BIT
            both = self._compute | self._transfer
            self._barrier(self._transfer, written, both, self._shader | self._copies)

    def copies_after_dispatches(self, copies: Iterable[Copy]) -> None:
        """Downloads of what shaders have written."""
        copies = list(copies)
        if copies:
            read = self._api.c.VK_ACCESS_TRANSFER_READ_BIT
            self._barrier(self._compute, self._shader_write, self._transfer, read)
            self._copy(copies)

    def visible_to_host(self) -> None:
        """Lets the CPU read what was written; a fence alone does not (spec 7.3)."""
        c = self._api.c
        written = self._shader_write | c.VK_ACCESS_TRANSFER_WRITE_BIT
        self._barrier(
            self._compute | self._transfer,
            written,
            c.VK_PIPELINE_STAGE_HOST_BIT,
            c.VK_ACCESS_HOST_READ_BIT,
        )

    def dispatch(self, d: BoundDispatch) -> None:
        """One dispatch, after a barrier where the plan asks for it."""
        lib, buffer, compute = self._lib, self._buffer, self._compute
        null = self._api.ffi.NULL
        if d.barrier:
            lib.vkCmdPipelineBarrier(
                buffer, compute, compute, 0, 1, self._between, 0, null, 0, null
            )
        if d.pipeline is not self._bound:
            lib.vkCmdBindPipeline(buffer, 1, d.pipeline)  # VK_PIPELINE_BIND_POINT_COMPUTE
            self._bound = d.pipeline
        lib.vkCmdBindDescriptorSets(buffer, 1, d.layout, 0, 1, d.sets, 0, null)
        if d.push is not None:
            lib.vkCmdPushConstants(buffer, d.layout, 0x20, 0, d.push_size, d.push)  # stage: compute
        lib.vkCmdDispatch(buffer, *d.grid)

    def fill(self, target: Buffer, word: int) -> None:
        """Every four bytes of ``target`` become ``word``."""
        self._lib.vkCmdFillBuffer(self._buffer, target.handle, 0, target.size, word)

    def reset_timestamps(self, pool: Any, count: int) -> None:
        """Makes ``count`` queries of ``pool`` writable."""
        self._lib.vkCmdResetQueryPool(self._buffer, pool, 0, count)

    def timestamp(self, pool: Any, index: int) -> None:
        """The time at which everything before has finished."""
        bottom = self._api.c.VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT
        self._lib.vkCmdWriteTimestamp(self._buffer, bottom, pool, index)

    def finish(self) -> Any:
        """Ends recording; the VkSubmitInfo to give to ``Queue.run`` any number of times."""
        self._api.check(self._lib.vkEndCommandBuffer(self._buffer), "recording")
        return self._api.struct("VkSubmitInfo", commandBufferCount=1, pCommandBuffers=self._cell)

    def _copy(self, copies: Iterable[Copy]) -> bool:
        any_copy = False
        for copy in copies:
            region = self._api.struct(
                "VkBufferCopy",
                srcOffset=copy.source_offset,
                dstOffset=copy.target_offset,
                size=copy.size,
            )
            self._lib.vkCmdCopyBuffer(
                self._buffer, copy.source.handle, copy.target.handle, 1, region
            )
            any_copy = True
        return any_copy

    def _barrier(self, source: int, written: int, target: int, used: int) -> None:
        null = self._api.ffi.NULL
        barrier = self._api.struct("VkMemoryBarrier", srcAccessMask=written, dstAccessMask=used)
        self._lib.vkCmdPipelineBarrier(
            self._buffer, source, target, 0, 1, barrier, 0, null, 0, null
        )
