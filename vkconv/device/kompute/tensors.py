"""kp tensors for storages: each an allocation of its own, bound from its first byte to its last.

kp ignores what vkCreateBuffer and vkAllocateMemory return and goes on with a null handle, which
ends the process. So the driver is asked first, with the same sizes and through this package's own
engine, and what it grants is given back before kp asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vkconv.device.kompute import loader
from vkconv.device.vulkan.device import Core
from vkconv.errors import DeviceError
from vkconv.ir import Array

#: the type of tensors that only kernels touch: without staging memory
INTERMEDIATE = "storage"


def padded(size: int) -> int:
    """Bytes of the tensor for a storage. Kernels take its last partial vec4 whole; a power of two
    is avoided, since llvmpipe compiles a kernel once more for such buffers."""
    size = max(256, -(-size // 256) * 256)
    return size + 256 if size & (size - 1) == 0 else size


class Tensors:
    """Makes tensors on one device. Not thread-safe: the device's lock guards it."""

    def __init__(self, kp: Any, opened: Any, core: Core) -> None:
        self._kp, self._opened, self._core = kp, opened, core
        # where the CPU reaches the device's memory, constants lie there once, without staging
        self._resident = "host" if core.memory.unified else "device"

    @property
    def constants_are_mapped(self) -> bool:
        """Whether what the host writes into a constant is on the device without a copy."""
        return self._resident == "host"

    def reserve(self, sizes: Mapping[str, int]) -> None:
        """Raises OutOfDeviceMemoryError, or DeviceError naming a limit, where tensors of these
        sizes (bytes, by what they are for) do not fit together."""
        limit = self._core.probe.caps.max_storage_buffer_range
        granted = []
        try:
            for what, size in sizes.items():
                if size > limit:
                    raise DeviceError(
                        f"{what} takes {size} bytes, and Kompute binds tensors whole: more than "
                        f"the device's maxStorageBufferRange of {limit}; use a smaller input size "
                        "or the default engine"
                    )
                granted.append(self._core.memory.create(size, "device", what))
        finally:
            for buffer in granted:
                self._core.memory.free(buffer)

    def intermediate(self, size: int) -> Any:
        """A tensor for kernels only, of ``size`` bytes."""
        return self._create(np.empty(size // 4, np.uint32), INTERMEDIATE)

    def border(self, size: int) -> Any:
        """A tensor with staging memory, through which the host writes and reads it."""
        return self._create(np.zeros(size // 4, np.uint32), "device")

    def constant(self, data: Array, size: int) -> Any:
        """A tensor that holds ``data`` (elements of four bytes) once it is synchronized."""
        words = np.zeros(size // 4, np.uint32)
        words[: data.size] = np.ascontiguousarray(data).reshape(-1).view(np.uint32)
        return self._create(words, self._resident)

    def _create(self, words: Array, kind: str) -> Any:
        with loader.typed("creating a tensor"):
            return self._opened.tensor_t(words, getattr(self._kp.TensorTypes, kind))
