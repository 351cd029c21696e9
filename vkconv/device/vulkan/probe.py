"""What one physical device offers: limits, features and memory types, less what is switched off.

The only reader of device properties. ``VKCONV_DISABLE`` switches features off, ``VKCONV_LIMITS``
lowers limits, and ``VKCONV_PROFILE`` names a set of both, to imitate a small device on a large one;
QUIRKS switches off what a driver offers but does badly.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vkconv.capabilities import DeviceCaps, DeviceInfo, DeviceKind
from vkconv.device.vulkan.limits import allocation_limit, given_limits, with_lower_limits
from vkconv.device.vulkan.loader import API_VERSION, Api, text
from vkconv.device.vulkan.profiles import chosen_profile
from vkconv.errors import DeviceError

#: what VKCONV_DISABLE may name
FEATURES: Mapping[str, str] = {
    "subgroup": "subgroup shuffles",
    "texel": "all texel buffers",
    "storage_texel": "storage texel buffers (imageLoad)",
    "uniform_texel": "uniform texel buffers (texelFetch)",
    "unrolling": "tiles by specialization constants (kernels with fixed tiles are used)",
    "wide_tiles": "tiles of eight outputs by four pixels (four by four are used)",
    "unified": "reading and writing device memory directly, without staging",
    "huge_pages": "huge pages behind a CPU driver's memory",
    "timestamps": "GPU timestamps (profiles are then taken one submission per dispatch)",
    "pipeline_cache": "the pipeline cache on disk",
    "plan_cache": "the plan cache on disk",
    "tuning": "tuning records (kernels are chosen by rule)",
}


@dataclass(frozen=True)
class Quirk:
    """A driver that offers a feature but does it badly: what to switch off, and why."""

    vendor: int
    #: matches when the device's name contains it; empty for every device of the vendor
    name: str
    disable: str
    reason: str


#: A row needs a case that fails, or a measurement that suffers, without it. lavapipe of Mesa 22.3
#: needs none.
QUIRKS: tuple[Quirk, ...] = (
    Quirk(
        0x1AE0,
        "SwiftShader",
        "unrolling",
        "its compiler keeps loops over specialization constants, and with them the sums in memory",
    ),
    Quirk(0x1AE0, "SwiftShader", "storage_texel", "reads slower than uniform texel buffers"),
    Quirk(0x14E4, "V3D", "unrolling", "its compiler keeps such tiles' sums in scratch memory"),
    Quirk(0x14E4, "V3D", "wide_tiles", "32 sums spill: up to 1,600 bytes a subgroup"),
)


@dataclass(frozen=True)
class MemoryType:
    """One row of the device's memory types, with the size of its heap."""

    index: int
    flags: int
    heap_bytes: int


@dataclass(frozen=True)
class Probe:
    """Everything the engine needs to know of a device before opening it."""

    physical: Any
    info: DeviceInfo
    caps: DeviceCaps
    disabled: frozenset[str]
    extensions: frozenset[str]
    memory_types: tuple[MemoryType, ...]
    max_allocation_bytes: int
    max_allocation_count: int
    queue_family: int
    #: seconds per timestamp tick, 0.0 where the queue has none, and the bits of a tick that count
    timestamp_period: float
    timestamp_mask: int
    #: names the driver build: changes whenever cached pipelines stop being valid
    cache_key: str
    #: how its pipeline cache data begins, after the size (spec 10.7.5)
    cache_header: bytes

    def allows(self, feature: str) -> bool:
        """Whether ``feature`` (a key of FEATURES) is neither switched off nor a quirk."""
        return feature not in self.disabled


def disabled_features() -> frozenset[str]:
    """The features named by VKCONV_DISABLE, and those that VKCONV_PROFILE does without.

    Raises DeviceError for a name that does not exist.
    """
    names = {n.strip() for n in os.environ.get("VKCONV_DISABLE", "").split(",")} - {""}
    unknown = sorted(names - set(FEATURES))
    if unknown:
        raise DeviceError(
            f"VKCONV_DISABLE names unknown feature '{unknown[0]}'; it takes {', '.join(FEATURES)}"
        )
    return _with_parts(names | chosen_profile().disable)


def _with_parts(names: set[str]) -> frozenset[str]:
    return frozenset(names | {"storage_texel", "uniform_texel"} if "texel" in names else names)


def probe(api: Api, physical: Any, index: int) -> Probe:
    """Reads one physical device; ``index`` is its place in the list of devices."""
    extensions = frozenset(
        api.listed(
            api.lib.vkEnumerateDeviceExtensionProperties,
            "VkExtensionProperties",
            physical,
            api.ffi.NULL,
            pick=lambda e: text(api, e.extensionName),
        )
    )
    core = api.ffi.new("VkPhysicalDeviceProperties *")
    api.lib.vkGetPhysicalDeviceProperties(physical, core)
    name = text(api, core.deviceName)
    if core.apiVersion < API_VERSION:
        # a 1.0 device knows none of the structures that follow
        raise DeviceError(f"'{name}' speaks Vulkan {_version(core.apiVersion)}; vkconv needs 1.1")
    subgroup = api.struct("VkPhysicalDeviceSubgroupProperties")
    maintenance = api.struct("VkPhysicalDeviceMaintenance3Properties", pNext=subgroup)
    chain = maintenance
    sizes = driver = None
    if "VK_EXT_subgroup_size_control" in extensions:
        chain = sizes = api.struct("VkPhysicalDeviceSubgroupSizeControlProperties", pNext=chain)
    if "VK_KHR_driver_properties" in extensions:
        chain = driver = api.struct("VkPhysicalDeviceDriverProperties", pNext=chain)
    properties = api.struct("VkPhysicalDeviceProperties2", pNext=chain)
    api.lib.vkGetPhysicalDeviceProperties2(physical, properties)

    disabled = disabled_features() | _with_parts(
        {q.disable for q in QUIRKS if q.vendor == core.vendorID and q.name in name}
    )
    kind = _kind(api, core.deviceType)
    limits = given_limits()
    imitated = chosen_profile().kind or kind
    caps = _caps(api, physical, core.limits, subgroup, sizes, imitated, disabled)
    caps = with_lower_limits(caps, limits)
    types = _memory_types(api, physical)
    local = api.c.VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT
    family, bits = _queue_family(api, physical, name)
    ticks = core.limits.timestampPeriod * 1e-9 if bits and "timestamps" not in disabled else 0.0
    version = f"{core.vendorID:04x}-{core.deviceID:04x}-{core.driverVersion:08x}"
    about = [f"subgroup_shuffle({caps.subgroup_size})"] if caps.subgroup_shuffle else []
    about += [f for f in ("storage_texel", "uniform_texel") if getattr(caps, f)]
    about += ["timestamps"] if ticks else []
    return Probe(
        physical=physical,
        info=DeviceInfo(
            index=index,
            name=name,
            kind=kind,
            driver=_driver(api, core, driver),
            api_version=_version(core.apiVersion),
            memory_bytes=max((t.heap_bytes for t in types if t.flags & local), default=0),
            features=tuple(about),
        ),
        caps=caps,
        disabled=disabled,
        extensions=extensions,
        memory_types=types,
        max_allocation_bytes=allocation_limit(int(maintenance.maxMemoryAllocationSize), limits),
        max_allocation_count=int(core.limits.maxMemoryAllocationCount),
        queue_family=family,
        timestamp_period=ticks,
        timestamp_mask=(1 << bits) - 1,
        cache_key=f"{bytes(core.pipelineCacheUUID).hex()}-{version}",
        cache_header=struct.pack("<III", 1, core.vendorID, core.deviceID)
        + bytes(core.pipelineCacheUUID),
    )


def _caps(
    api: Api,
    physical: Any,
    limits: Any,
    subgroup: Any,
    sizes: Any,
    kind: DeviceKind,
    disabled: frozenset[str],
) -> DeviceCaps:
    c = api.c
    shuffle = (
        bool(subgroup.supportedStages & c.VK_SHADER_STAGE_COMPUTE_BIT)
        and bool(subgroup.supportedOperations & c.VK_SUBGROUP_FEATURE_SHUFFLE_BIT)
        and "subgroup" not in disabled
    )
    # Where the size varies (Intel: 8 to 32, chosen per shader) the smallest is the one to rely on:
    # every other is a multiple of it.
    size = int(sizes.minSubgroupSize) if sizes is not None and sizes.minSubgroupSize else 0
    size = min(size, int(subgroup.subgroupSize)) or int(subgroup.subgroupSize)
    storage, uniform = (
        _texel_formats(api, physical, bit)
        for bit in (
            c.VK_FORMAT_FEATURE_STORAGE_TEXEL_BUFFER_BIT,
            c.VK_FORMAT_FEATURE_UNIFORM_TEXEL_BUFFER_BIT,
        )
    )
    return DeviceCaps(
        kind=kind,
        max_storage_buffer_range=int(limits.maxStorageBufferRange),
        max_texel_buffer_elements=int(limits.maxTexelBufferElements),
        max_storage_buffers=min(
            int(limits.maxPerStageDescriptorStorageBuffers),
            int(limits.maxDescriptorSetStorageBuffers),
        ),
        max_storage_texel_buffers=min(
            int(limits.maxPerStageDescriptorStorageImages),
            int(limits.maxDescriptorSetStorageImages),
        ),
        max_uniform_texel_buffers=min(
            int(limits.maxPerStageDescriptorSampledImages),
            int(limits.maxDescriptorSetSampledImages),
        ),
        max_push_constants_size=int(limits.maxPushConstantsSize),
        max_workgroup_count=_three(limits.maxComputeWorkGroupCount),
        max_workgroup_size=_three(limits.maxComputeWorkGroupSize),
        max_workgroup_invocations=int(limits.maxComputeWorkGroupInvocations),
        max_shared_memory=int(limits.maxComputeSharedMemorySize),
        subgroup_size=size if shuffle else 1,
        subgroup_shuffle=shuffle,
        storage_texel=storage and "storage_texel" not in disabled,
        uniform_texel=uniform and "uniform_texel" not in disabled,
        unrolls_loops="unrolling" not in disabled,
        wide_tiles="wide_tiles" not in disabled,
    )


def _texel_formats(api: Api, physical: Any, bit: int) -> bool:
    """Whether buffers of both float formats that kernels use may be viewed as such texels."""
    found = api.ffi.new("VkFormatProperties *")
    for form in (api.c.VK_FORMAT_R32G32B32A32_SFLOAT, api.c.VK_FORMAT_R32_SFLOAT):
        api.lib.vkGetPhysicalDeviceFormatProperties(physical, form, found)
        if not found.bufferFeatures & bit:
            return False
    return True


def _three(values: Any) -> tuple[int, int, int]:
    return int(values[0]), int(values[1]), int(values[2])


def _kind(api: Api, device_type: int) -> DeviceKind:
    c = api.c
    kinds: dict[int, DeviceKind] = {
        c.VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU: "discrete",
        c.VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU: "integrated",
        c.VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU: "virtual",
        c.VK_PHYSICAL_DEVICE_TYPE_CPU: "cpu",
    }
    return kinds.get(device_type, "other")


def _memory_types(api: Api, physical: Any) -> tuple[MemoryType, ...]:
    memory = api.ffi.new("VkPhysicalDeviceMemoryProperties *")
    api.lib.vkGetPhysicalDeviceMemoryProperties(physical, memory)
    rows = (memory.memoryTypes[i] for i in range(memory.memoryTypeCount))
    return tuple(
        MemoryType(i, int(row.propertyFlags), int(memory.memoryHeaps[row.heapIndex].size))
        for i, row in enumerate(rows)
    )


def _queue_family(api: Api, physical: Any, name: str) -> tuple[int, int]:
    """The first family that computes, and its timestamp bits; one with timestamps is preferred."""
    count = api.ffi.new("uint32_t *")
    api.lib.vkGetPhysicalDeviceQueueFamilyProperties(physical, count, api.ffi.NULL)
    rows = api.ffi.new("VkQueueFamilyProperties[]", count[0])
    api.lib.vkGetPhysicalDeviceQueueFamilyProperties(physical, count, rows)
    compute = [
        (i, int(rows[i].timestampValidBits))
        for i in range(count[0])
        if rows[i].queueFlags & api.c.VK_QUEUE_COMPUTE_BIT
    ]
    if not compute:
        raise DeviceError(f"'{name}' has no queue that runs compute shaders")
    return next((row for row in compute if row[1]), compute[0])


def _version(packed: int) -> str:
    return f"{packed >> 22 & 0x7F}.{packed >> 12 & 0x3FF}.{packed & 0xFFF}"


def _driver(api: Api, core: Any, driver: Any) -> str:
    if driver is None:
        return f"vendor 0x{core.vendorID:04x}, driver 0x{core.driverVersion:x}"
    name, info = text(api, driver.driverName), text(api, driver.driverInfo)
    return f"{name} {info}".strip()
