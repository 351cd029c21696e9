"""Sentinels for Kompute: a band behind every tensor, and poison in all of them before a run.

What ``tests/sentinels.py`` does for the arena of the default engine. Kompute's tensors cannot be
looked into where only kernels use them, so for the time of a test all of them can.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np

from vkconv.device.kompute import binding, tensors
from vkconv.device.kompute import device as kompute_device
from vkconv.device.kompute.device import KomputeDevice
from vkconv.device.kompute.executable import KomputeExecutable
from vkconv.dispatch import Plan

#: as in tests/sentinels.py
POISON = 0x7FC0DEAD
BAND = 256


@dataclass
class TensorGuard:
    """The executables prepared while the guard was up."""

    prepared: list[tuple[KomputeDevice, KomputeExecutable]] = field(default_factory=list)

    def poison(self) -> None:
        for device, executable in self.prepared:
            held = list(_storages(executable))
            for tensor in held:
                _words(tensor)[:] = POISON
            if held:
                device.opened.sequence().record(device.kp.OpTensorSyncDevice(held)).eval()

    def check(self) -> None:
        """Every word behind the storages still holds the poison."""
        for device, executable in self.prepared:
            held = _storages(executable)
            if held:
                device.opened.sequence().record(device.kp.OpTensorSyncLocal(list(held))).eval()
            for tensor, size in held.items():
                spoiled = np.flatnonzero(_words(tensor)[-(-size // 4) :] != POISON)
                assert not spoiled.size, f"written out of bounds: words {spoiled[:8]} of the band"


def _storages(executable: KomputeExecutable) -> dict[Any, int]:
    """The executable's tensors, and the bytes of the largest storage in each."""
    sizes: dict[Any, int] = {}
    for storage, tensor in executable._place.tensors.items():
        sizes[tensor] = max(sizes.get(tensor, 0), storage.size)
    return sizes


def _words(tensor: Any) -> Any:
    return np.asarray(tensor.data()).view(np.uint32)


@contextmanager
def guarded_tensors() -> Iterator[TensorGuard]:
    """Tensors made inside have a band behind them, and are known to the guard."""
    guard = TensorGuard()
    plain, prepare = tensors.padded, KomputeDevice.prepare

    def banded(size: int) -> int:
        return plain(size) + BAND

    def remember(device: KomputeDevice, plan: Plan) -> KomputeExecutable:
        executable = prepare(device, plan)
        guard.prepared.append((device, executable))
        return executable

    with (
        mock.patch.object(binding, "padded", banded),
        mock.patch.object(kompute_device, "padded", banded),
        mock.patch.object(tensors, "INTERMEDIATE", "device"),
        mock.patch.object(KomputeDevice, "prepare", remember),
    ):
        yield guard
