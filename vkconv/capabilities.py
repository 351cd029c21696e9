"""What a device is and what it can do: the facts planning may ask for. Plain data, no device
behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

DeviceKind = Literal["discrete", "integrated", "virtual", "cpu", "other", "reference"]


@dataclass(frozen=True)
class DeviceInfo:
    """One device as ``vkconv.devices()`` lists it. ``memory_bytes`` is its largest device-local
    heap."""

    index: int
    name: str
    kind: DeviceKind
    driver: str
    api_version: str
    memory_bytes: int
    features: tuple[str, ...] = ()

    @property
    def choice(self) -> str:
        """What names this device to ``InferenceSession`` and on the command line."""
        if self.kind == "reference":
            return "reference"
        return f"kompute:{self.index}" if self.driver.startswith("kp ") else str(self.index)


#: how a device is named: "auto", "gpu", "cpu", a kind, part of a name, an index, what
#: ``vkconv.devices()`` lists, "reference" or "kompute"
DeviceChoice: TypeAlias = "str | int | DeviceInfo"


@dataclass(frozen=True)
class DeviceCaps:
    """Limits and features that choose kernels. The defaults are what Vulkan 1.1 guarantees
    everywhere.

    ``host_only`` plans every node as a host step (the reference device).
    """

    kind: DeviceKind = "other"
    max_storage_buffer_range: int = 1 << 27
    max_texel_buffer_elements: int = 65536
    max_storage_buffers: int = 4
    max_storage_texel_buffers: int = 4
    max_uniform_texel_buffers: int = 16
    max_push_constants_size: int = 128
    max_workgroup_count: tuple[int, int, int] = (65535, 65535, 65535)
    max_workgroup_size: tuple[int, int, int] = (128, 128, 64)
    max_workgroup_invocations: int = 128
    max_shared_memory: int = 16384
    subgroup_size: int = 1
    #: shuffle works in compute shaders and every subgroup of a full workgroup is full
    subgroup_shuffle: bool = False
    #: rgba32f buffers may be read with imageLoad / texelFetch
    storage_texel: bool = False
    uniform_texel: bool = False
    #: the shader compiler unrolls loops whose bounds are specialization constants, so that arrays
    #: indexed by them stay in registers
    unrolls_loops: bool = True
    #: 8 x 4 sums of an invocation fit into registers
    wide_tiles: bool = True
    host_only: bool = False

    @property
    def access(self) -> tuple[str, ...]:
        """How kernels read vec4 buffers, the preferred way first; storage buffers fit everywhere.

        Texel buffers read fastest on CPU drivers (measured on lavapipe: 1.3 ns a float against 5.1
        for a storage buffer). GPUs read storage buffers at full speed, so they stay with what
        every limit allows.
        """
        if self.kind != "cpu":
            return ("ssbo",)
        storage = ("storage_texel",) if self.storage_texel else ()
        uniform = ("uniform_texel", "weights_texel") if self.uniform_texel else ()
        return *storage, *uniform, "ssbo"
