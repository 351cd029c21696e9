"""``VKCONV_PROFILE``: a device imitates a class of GPUs, by what these lack and their limits.

    VKCONV_PROFILE=videocore

The rows are what drivers of that class report, the lowest of several generations where they differ;
no row raises anything. Kernels are chosen as for such a GPU. ``VKCONV_DISABLE`` and
``VKCONV_LIMITS`` take away more. What a CPU driver cannot imitate: subgroups wider than its own,
speed, and a shader compiler's faults.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from vkconv.capabilities import DeviceKind
from vkconv.errors import DeviceError


@dataclass(frozen=True)
class Profile:
    """What to do without: features as VKCONV_DISABLE names them, limits as VKCONV_LIMITS does; and
    for which kind of device kernels are chosen, if not for the real one's."""

    about: str
    disable: frozenset[str] = frozenset()
    limits: Mapping[str, int] = field(default_factory=dict)
    kind: DeviceKind | None = None


#: what no profile's devices are trusted to have: half of them stamp no time on compute queues
_NO_CLOCK = frozenset({"timestamps"})

PROFILES: Mapping[str, Profile] = {
    "minimum": Profile(
        "the least that Vulkan 1.1 guarantees (spec 47.1), and memory that needs staging",
        _NO_CLOCK | {"subgroup", "unified"},
        {
            "max_workgroup_size": 64,  # the least of the three axes: 128, 128, 64
            "max_workgroup_invocations": 128,
            "max_workgroup_count": 65535,
            "max_shared_memory": 16 << 10,
            "max_storage_buffer_range": 1 << 27,
            "max_texel_buffer_elements": 65536,
            "max_storage_buffers": 4,
            "max_storage_texel_buffers": 4,
            "max_uniform_texel_buffers": 16,
            "max_push_constants_size": 128,
            "max_allocation_bytes": 1 << 30,
        },
        "integrated",
    ),
    "mali": Profile(
        "Arm Mali, Bifrost: subgroups of 4 and groups of 384 at most, unified memory",
        _NO_CLOCK,
        {
            "max_workgroup_size": 384,
            "max_workgroup_invocations": 384,
            "max_workgroup_count": 65535,
            "max_shared_memory": 32 << 10,
            "max_storage_buffer_range": 1 << 27,
            "max_texel_buffer_elements": 65536,
            "max_storage_buffers": 35,
            "max_storage_texel_buffers": 6,
            "max_push_constants_size": 128,
            "max_allocation_bytes": 1 << 30,
            "subgroup_size": 4,
        },
        "integrated",
    ),
    "adreno": Profile(
        "Qualcomm Adreno 5xx and 6xx: 128 MiB a binding, few texels, four storage images",
        _NO_CLOCK,
        {
            "max_workgroup_size": 512,
            "max_workgroup_invocations": 512,
            "max_workgroup_count": 65535,
            "max_shared_memory": 32 << 10,
            "max_storage_buffer_range": 1 << 27,
            "max_texel_buffer_elements": 65536,
            "max_storage_buffers": 24,
            "max_storage_texel_buffers": 4,
            "max_push_constants_size": 128,
            "max_allocation_bytes": 1 << 30,
        },
        "integrated",
    ),
    "videocore": Profile(
        "Broadcom VideoCore VI (Raspberry Pi 4): groups of 256, no shuffles, no texel buffers",
        # it has texel buffers; but the other profiles keep theirs, and this way both are tested
        _NO_CLOCK | {"subgroup", "texel", "unrolling", "wide_tiles"},
        {
            "max_workgroup_size": 256,
            "max_workgroup_invocations": 256,
            "max_workgroup_count": 65535,
            "max_shared_memory": 16 << 10,
            "max_storage_buffer_range": 1 << 27,
            "max_texel_buffer_elements": 65536,
            "max_storage_buffers": 8,
            "max_storage_texel_buffers": 4,
            "max_uniform_texel_buffers": 16,
            "max_push_constants_size": 128,
            "max_allocation_bytes": 1 << 29,
        },
        "integrated",
    ),
    "desktop": Profile(
        "a discrete GPU: memory that needs staging, products through shared memory",
        frozenset({"unified"}),
        kind="discrete",
    ),
}


def chosen_profile() -> Profile:
    """What VKCONV_PROFILE names; one that takes nothing away where it is not set.

    Raises DeviceError for a name that does not exist.
    """
    name = os.environ.get("VKCONV_PROFILE", "").strip()
    if not name:
        return Profile("the device as it is")
    if name not in PROFILES:
        raise DeviceError(
            f"VKCONV_PROFILE names unknown profile '{name}'; it takes {', '.join(PROFILES)}"
        )
    return PROFILES[name]
