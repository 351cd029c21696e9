"""The arena from outside, for tests and verification: poisoned before a run, seen whole after it.

Device memory is not zeroed, so a kernel that reads what nobody wrote may pass by luck; a poisoned
arena takes the luck away, and bytes between storages that changed show a write out of bounds.
"""

from __future__ import annotations

import numpy as np

from vkconv.device.vulkan.executable import VulkanExecutable
from vkconv.device.vulkan.recording import CommandPool, Copy
from vkconv.ir import Array


def poison(executable: VulkanExecutable, word: int = 0x7FC0DEAD) -> None:
    """Every four bytes of the arena become ``word``; as a float the default is a NaN."""
    core, resources = executable.core, executable.resources
    with resources.lock, core.lock:
        pool = CommandPool(core.api, core.handle, core.queue.family)
        recorder = pool.record()
        recorder.after_earlier_work()
        recorder.fill(resources.arena, word)
        core.queue.run(recorder.finish(), resources.fence)
        pool.close()


def contents(executable: VulkanExecutable) -> Array:
    """A copy of the arena's bytes."""
    core, resources = executable.core, executable.resources
    arena = resources.arena
    with resources.lock, core.lock:
        staging = core.memory.create(arena.size, "download", "a copy of the arena")
        pool = CommandPool(core.api, core.handle, core.queue.family)
        recorder = pool.record()
        recorder.after_earlier_work()
        recorder.copies_after_dispatches([Copy(arena, 0, staging, 0, arena.size)])
        recorder.visible_to_host()
        core.queue.run(recorder.finish(), resources.fence)
        copy = np.array(staging.mapped)
        pool.close()
        core.memory.free(staging)
    return copy
