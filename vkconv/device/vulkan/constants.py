"""Weights and tables on the device: each uploaded once, shared by all executables that use it.

A model planned again for another input shape keeps its Storage objects, and so its weights.
Constants are carved from blocks; a block goes when its last constant does.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vkconv.device.vulkan.loader import Api
from vkconv.device.vulkan.memory import Buffer, Memory
from vkconv.device.vulkan.pipelines import usable_cores
from vkconv.device.vulkan.queue import Queue
from vkconv.device.vulkan.recording import CommandPool, Copy
from vkconv.dispatch import ALIGNMENT, Storage
from vkconv.errors import DeviceError
from vkconv.ir import Array

BLOCK_BYTES = 64 << 20
STAGING_BYTES = 16 << 20


@dataclass(eq=False)
class Block:
    """A buffer and its free ranges (offset, size), ordered and never touching."""

    buffer: Buffer
    free: list[tuple[int, int]] = field(default_factory=list)

    def take(self, size: int) -> int | None:
        """The offset of a free range of ``size`` bytes, first fit."""
        for i, (offset, room) in enumerate(self.free):
            if room >= size:
                self.free[i : i + 1] = [(offset + size, room - size)] if room > size else []
                return offset
        return None

    def give(self, offset: int, size: int) -> None:
        """Returns a range, joined with its free neighbours."""
        merged: list[tuple[int, int]] = []
        for start, room in sorted([*self.free, (offset, size)]):
            if merged and merged[-1][0] + merged[-1][1] == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + room)
            else:
                merged.append((start, room))
        self.free = merged

    @property
    def is_empty(self) -> bool:
        return self.free == [(0, self.buffer.size)]


@dataclass(eq=False)
class _Entry:
    block: Block
    offset: int
    size: int
    users: int = 0


class Constants:
    """The device's constants. Not thread-safe: the device's lock guards it."""

    def __init__(self, api: Api, device: Any, memory: Memory, queue: Queue) -> None:
        self._api, self._device, self._memory, self._queue = api, device, memory, queue
        self._blocks: list[Block] = []
        self._entries: dict[Storage, _Entry] = {}

    def acquire(self, storages: Iterable[Storage]) -> None:
        """Makes every storage resident and counts one more user of each; all or none."""
        storages = list(dict.fromkeys(storages))
        missing = [s for s in storages if s not in self._entries]
        added: list[Storage] = []
        try:
            left = sum(_rounded(s.size) for s in missing)
            for storage in missing:
                size = _rounded(storage.size)
                self._entries[storage] = self._place(size, left, storage)
                added.append(storage)
                left -= size
            self._upload(missing)
        except BaseException:
            for storage in added:
                self._drop(storage)
            raise
        for storage in storages:
            self._entries[storage].users += 1

    def release(self, storages: Iterable[Storage]) -> None:
        """Counts one user less of each; what nobody uses is freed."""
        for storage in dict.fromkeys(storages):
            entry = self._entries[storage]
            entry.users -= 1
            if entry.users == 0:
                self._drop(storage)

    def place(self, storage: Storage) -> tuple[Buffer, int]:
        """Where an acquired storage lies."""
        entry = self._entries[storage]
        return entry.block.buffer, entry.offset

    @property
    def resident_bytes(self) -> int:
        """Device memory held by constants, free parts of blocks included."""
        return sum(b.buffer.size for b in self._blocks)

    def close(self) -> None:
        """Frees everything, used or not."""
        for storage in self._entries:
            storage.leave()
        self._entries.clear()
        while self._blocks:
            self._memory.free(self._blocks.pop().buffer)

    def _place(self, size: int, expected: int, storage: Storage) -> _Entry:
        for block in self._blocks:
            offset = block.take(size)
            if offset is not None:
                return _Entry(block, offset, size)
        # a small model gets a block of its own size; a constant above BLOCK_BYTES a block for
        # itself
        room = max(size, min(expected, BLOCK_BYTES))
        block = Block(self._memory.create(room, "device", f"constant '{storage.name}'"))
        block.free = [(0, block.buffer.size)]
        self._blocks.append(block)
        offset = block.take(size)
        assert offset is not None
        return _Entry(block, offset, size)

    def _drop(self, storage: Storage) -> None:
        storage.leave()
        entry = self._entries.pop(storage)
        entry.block.give(entry.offset, entry.size)
        if entry.block.is_empty:
            self._blocks.remove(entry.block)
            self._memory.free(entry.block.buffer)

    def _upload(self, storages: list[Storage]) -> None:
        """Where the host reaches the device's memory, constants are packed there, by several
        threads: numpy works without the interpreter's lock. Elsewhere through staging, in turn."""
        if not self._memory.unified:
            self._upload_staged([(*self.place(s), s) for s in storages])
        elif storages:
            with ThreadPoolExecutor(usable_cores(), "vkconv-upload") as threads:
                # the largest first, so that all threads end together
                list(threads.map(self._write, sorted(storages, key=lambda s: -s.size)))

    def _write(self, storage: Storage) -> None:
        """Straight into the device's memory, where reading it back is fast, too: a packing may."""
        buffer, offset = self.place(storage)
        assert buffer.mapped is not None
        target = buffer.mapped[offset : offset + storage.size]
        if buffer.cached:
            storage.drop(target[: _write(storage, target)])
        else:
            data = _bytes(storage)
            target[: data.size] = data
            storage.drop()

    def _upload_staged(self, rows: list[tuple[Buffer, int, Storage]]) -> None:
        """Through a staging buffer, one submission per filling of it."""
        if not rows:
            return
        total = sum(storage.size for _, _, storage in rows)
        fence = self._queue.fence()
        staging: Buffer | None = None
        try:
            staging = self._memory.create(
                min(total, STAGING_BYTES), "upload", "the staging of constants"
            )
            batch: list[Copy] = []
            filled = 0
            for target, offset, storage in rows:
                data, done = _bytes(storage), 0
                while done < data.size:
                    part = min(data.size - done, staging.size - filled)
                    assert staging.mapped is not None
                    staging.mapped[filled : filled + part] = data[done : done + part]
                    batch.append(Copy(staging, filled, target, offset + done, part))
                    filled, done = filled + part, done + part
                    if filled == staging.size:
                        self._submit(batch, fence)
                        batch, filled = [], 0
                storage.drop()
            if batch:
                self._submit(batch, fence)
        finally:
            if self._queue.settle(fence):
                self._queue.destroy(fence)
                if staging is not None:
                    self._memory.free(staging)

    def _submit(self, copies: list[Copy], fence: Any) -> None:
        pool = CommandPool(self._api, self._device, self._queue.family)
        try:
            recorder = pool.record()
            recorder.after_earlier_work()
            recorder.copies_before_dispatches(copies)
            self._queue.run(recorder.finish(), fence)
        finally:
            if self._queue.settle(fence):
                pool.close()


def _bytes(storage: Storage) -> Array:
    """The constant's bytes, in memory of their own."""
    target = np.empty(storage.size, np.uint8)
    return target[: _write(storage, target)]


def _write(storage: Storage, target: Array) -> int:
    """Puts the constant's bytes at the start of ``target``, and returns their number. Raises
    DeviceError where there are none, or more than the storage has room for."""
    try:
        return storage.write_to(target)
    except ValueError as error:
        raise DeviceError(f"{error} (internal error)") from None


def _rounded(size: int) -> int:
    return max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)
