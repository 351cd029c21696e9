"""A device on which nothing can be right by luck.

Memory is not zeroed: what a kernel should have written, and did not, may lie there already, left by
the run before. So every arena is filled with NaN when it is made.
"""

from __future__ import annotations

from vkconv.device.base import Device, Executable
from vkconv.device.vulkan.arena import poison
from vkconv.device.vulkan.executable import VulkanExecutable
from vkconv.dispatch import Plan


class Poisoned:
    """``device``, with arenas that hold NaN before their first run. Kompute's and the reference's
    hold zeros then."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.info, self.caps = device.info, device.caps

    def prepare(self, plan: Plan) -> Executable:
        executable = self._device.prepare(plan)
        if isinstance(executable, VulkanExecutable) and plan.arena_size:
            poison(executable)
        return executable

    def close(self) -> None:
        self._device.close()
