"""What the driver's own compiler says of a plan's pipelines: registers, spilling, code size.

By VK_KHR_pipeline_executable_properties (spec, chapter "Pipelines"): pipelines are compiled and
asked about, and nothing runs. No memory is taken and no fence made, so that a driver without its
hardware will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vkconv import shaders
from vkconv.device.vulkan.device import Load, create_device
from vkconv.device.vulkan.enumerate import choose, probes
from vkconv.device.vulkan.loader import Api, instance, text
from vkconv.device.vulkan.named_constants import specialization
from vkconv.device.vulkan.pipelines import Pipelines
from vkconv.device.vulkan.probe import Probe
from vkconv.dispatch import Dispatch, Number
from vkconv.errors import DeviceError

EXTENSION = "VK_KHR_pipeline_executable_properties"


@dataclass(frozen=True)
class Statistic:
    """One number, with the driver's own name and description for it."""

    name: str
    description: str
    value: int | float | bool


@dataclass(frozen=True)
class PipelineExecutable:
    """Machine code of a pipeline. A driver may make several, as for subgroups of 8, 16 and 32.
    ``subgroup_size`` is 0 where the driver does not say it."""

    name: str
    description: str
    subgroup_size: int
    statistics: tuple[Statistic, ...]


@dataclass(frozen=True)
class PipelineStatistics:
    """A kernel, variant and specialization, the number of dispatches that use it, and what the
    compiler made of it."""

    kernel: str
    variant: Mapping[str, str]
    specialization: Mapping[str, Number]
    dispatches: int
    executables: tuple[PipelineExecutable, ...]


class PipelineCompiler:
    """A device that compiles pipelines and tells of them. It runs nothing.

    Raises DeviceError where there is no such device, or it lacks the extension.
    """

    def __init__(self, choice: str | int = "auto", load: Load = shaders.load) -> None:
        found = probes()
        probe = choose(choice, found)
        self.info, self.caps = probe.info, probe.caps
        self._load = load
        self._system = instance()
        self._api = api = self._system.api
        features = _features(api, probe)
        if features is None:
            raise DeviceError(_lacking(probe, found))
        self._handle = create_device(api, probe, (EXTENSION,), features)
        try:
            self._pipelines = Pipelines(api, self._handle, probe, captures=True)
        except BaseException:
            api.lib.vkDestroyDevice(self._handle, api.ffi.NULL)
            raise
        self._system.open.add(self)

    def compile(self, dispatches: Iterable[Dispatch]) -> list[PipelineStatistics]:
        """One entry for each distinct pipeline, in the order of their first use.

        Raises DeviceError where the driver refuses one or runs out of memory.
        """
        users: dict[object, list[Dispatch]] = {}
        for dispatch in dispatches:
            module = self._load(dispatch.kernel, dispatch.variant)
            key = module, specialization(module, dispatch.spec)
            users.setdefault(key, []).append(dispatch)
        firsts = [(self._load(d.kernel, d.variant), d.spec) for d, *_ in users.values()]
        self._pipelines.begin(firsts)
        made = []
        for (module, spec), own in zip(firsts, users.values(), strict=True):
            pipeline = self._pipelines.pipeline(self._pipelines.program(module), spec)
            variant = dict(own[0].variant)
            executables = self._executables(pipeline)
            made.append(
                PipelineStatistics(module.kernel, variant, dict(spec), len(own), executables)
            )
        return made

    def close(self) -> None:
        """Frees everything, once."""
        if self in self._system.open:
            self._system.check_usable()
            self._pipelines.close()
            self._system.open.discard(self)
            self._api.lib.vkDestroyDevice(self._handle, self._api.ffi.NULL)

    def __enter__(self) -> PipelineCompiler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _executables(self, pipeline: Any) -> tuple[PipelineExecutable, ...]:
        api = self._api
        rows = api.listed(
            api.extension_function(self._handle, "vkGetPipelineExecutablePropertiesKHR"),
            "VkPipelineExecutablePropertiesKHR",
            self._handle,
            api.struct("VkPipelineInfoKHR", pipeline=pipeline),
            pick=lambda e: (text(api, e.name), text(api, e.description), int(e.subgroupSize)),
        )
        return tuple(
            PipelineExecutable(*row, self._statistics(pipeline, i)) for i, row in enumerate(rows)
        )

    def _statistics(self, pipeline: Any, index: int) -> tuple[Statistic, ...]:
        api = self._api
        rows = api.listed(
            api.extension_function(self._handle, "vkGetPipelineExecutableStatisticsKHR"),
            "VkPipelineExecutableStatisticKHR",
            self._handle,
            api.struct("VkPipelineExecutableInfoKHR", pipeline=pipeline, executableIndex=index),
            pick=lambda s: Statistic(text(api, s.name), text(api, s.description), _value(api, s)),
        )
        return tuple(rows)


def _features(api: Api, probe: Probe) -> Any:
    """The extension's features, on, for opening the device with; None where it lacks them."""
    if EXTENSION not in probe.extensions:
        return None
    features = api.struct("VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR")
    whole = api.struct("VkPhysicalDeviceFeatures2", pNext=features)
    api.lib.vkGetPhysicalDeviceFeatures2(probe.physical, whole)
    return features if features.pipelineExecutableInfo else None


def _lacking(probe: Probe, found: Sequence[Probe]) -> str:
    others = [p.info for p in found if EXTENSION in p.extensions and p is not probe]
    listed = ", ".join(f"{info.index}: {info.name}" for info in others)
    remedy = f"use one that has it: {listed}" if others else "no device here has it"
    return (
        f"'{probe.info.name}' lacks {EXTENSION}, by which a driver tells what its compiler made of "
        f"a kernel; {remedy}"
    )


def _value(api: Api, row: Any) -> int | float | bool:
    c = api.c
    if row.format == c.VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_BOOL32_KHR:
        return bool(row.value.b32)
    if row.format == c.VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_FLOAT64_KHR:
        return float(row.value.f64)
    is_signed = row.format == c.VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_INT64_KHR
    return int(row.value.i64 if is_signed else row.value.u64)
