"""Sentinel bands around every storage of the arena, and a poisoned arena before a run.

Bytes that no storage owns must hold the poison afterwards (a kernel that wrote there wrote out of
bounds), and a value read before it is written is a NaN that shows in the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np

from tests.kompute_tensors import TensorGuard, guarded_tensors
from vkconv.device.vulkan import arena as device_arena
from vkconv.device.vulkan.device import VulkanDevice
from vkconv.device.vulkan.executable import VulkanExecutable
from vkconv.dispatch import ALIGNMENT, Plan
from vkconv.plan import arena as plan_arena

#: a NaN as a float, and nothing a kernel computes as an integer
POISON = 0x7FC0DEAD


@dataclass
class Guard:
    """The executables prepared while the guard was up."""

    prepared: list[tuple[VulkanExecutable, Plan]] = field(default_factory=list)
    kompute: TensorGuard = field(default_factory=TensorGuard)

    def poison(self) -> None:
        self.kompute.poison()
        for executable, plan in self.prepared:
            if plan.arena_size:
                device_arena.poison(executable, POISON)

    def check(self) -> None:
        """Every word outside the storages still holds the poison."""
        self.kompute.check()
        for executable, plan in self.prepared:
            if not plan.arena_size:
                continue
            words = device_arena.contents(executable)[: plan.arena_size // 4 * 4].view(np.uint32)
            outside = np.ones(len(words), bool)
            for storage in plan.storages:
                start = storage.offset // 4
                outside[start : start + -(-storage.size // 4)] = False
            spoiled = np.flatnonzero(outside & (words != POISON))
            assert not spoiled.size, f"written out of bounds: words {spoiled[:8]} of the arena"


@contextmanager
def guarded_arenas() -> Iterator[Guard]:
    """Plans made inside have a band behind each storage, and are known to the guard."""
    guard = Guard()
    plain, prepare = plan_arena.aligned, VulkanDevice.prepare

    def banded(size: int) -> int:
        return plain(size) + ALIGNMENT

    def remember(device: VulkanDevice, plan: Plan) -> Any:
        executable = prepare(device, plan)
        guard.prepared.append((executable, plan))
        return executable

    with (
        mock.patch.object(plan_arena, "aligned", banded),
        mock.patch.object(VulkanDevice, "prepare", remember),
        guarded_tensors() as guard.kompute,
    ):
        yield guard
