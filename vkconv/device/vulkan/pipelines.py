"""Compute pipelines: one per (module, specialization values), with the module's layouts.

Layer dimensions are push constants, so a net of a hundred dispatches needs a dozen pipelines; they
live as long as the device and are shared by its executables.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from vkconv.device.vulkan.loader import Api, c_string
from vkconv.device.vulkan.named_constants import Specialization, specialization
from vkconv.device.vulkan.pipeline_cache import PipelineCache
from vkconv.device.vulkan.probe import Probe
from vkconv.device.vulkan.shared_memory import shared_memory_bytes
from vkconv.dispatch import Number
from vkconv.errors import DeviceError
from vkconv.shaders import ShaderModule

#: threads that compile at once; more gain nothing, since a net has a few dozen pipelines
MOST_THREADS = 8
#: bytes of maxComputeSharedMemorySize that every device has (spec 47.1)
LEAST_SHARED_MEMORY = 16384


@dataclass(eq=False)
class Program:
    """A module on the device: its layouts, and its pipelines by specialization."""

    module: ShaderModule
    handle: Any
    set_layout: Any
    layout: Any
    pipelines: dict[Specialization, Any] = field(default_factory=dict)
    #: those that threads make, or have made
    pending: dict[Specialization, Future[None]] = field(default_factory=dict)


class Pipelines:
    """Makes and keeps pipelines. Not thread-safe: the device's lock guards it.

    captures: the driver is to keep what its compiler says of each (``statistics``). Nothing goes to
    or comes from the cache on disk then: a pipeline from there was not compiled now.
    """

    def __init__(self, api: Api, device: Any, probe: Probe, *, captures: bool = False) -> None:
        self._api, self._device, self._probe = api, device, probe
        self._flags = api.c.VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR if captures else 0
        self._programs: dict[ShaderModule, Program] = {}
        # half-made ones, and what was made twice, too: a failure or Ctrl-C leaks nothing
        self._made: list[Program] = []
        self._handles: list[Any] = []
        is_kept = probe.allows("pipeline_cache") and not captures
        self._cache = PipelineCache(api, device, probe.cache_key, probe.cache_header, is_kept)
        self._grown = False
        # Ctrl-C may lose a future, but not this count: the device stays until it is nought
        self._making = 0
        self._closing = False
        self._changed = threading.Condition()
        #: those that the driver has seen dispatched (``first_dispatch``)
        self.dispatched: set[Any] = set()
        #: processor seconds that making each one took: how much code it is, its loops unrolled
        self.effort: dict[Any, float] = {}
        c = api.c
        self.descriptor_types: dict[str, int] = {
            "storage_buffer": c.VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
            "storage_texel": c.VK_DESCRIPTOR_TYPE_STORAGE_TEXEL_BUFFER,
            "uniform_texel": c.VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER,
        }

    def program(self, module: ShaderModule) -> Program:
        """The module's layouts. Raises DeviceError where the device lacks what it needs."""
        found = self._programs.get(module)
        if found is None:
            self._check_fits(module)
            found = self._programs[module] = self._create_program(module)
        return found

    def pipeline(self, program: Program, spec: Mapping[str, Number]) -> Any:
        """``program`` specialized by the named constants; others keep their default."""
        key = specialization(program.module, spec)
        if key not in program.pipelines:
            pending = program.pending.get(key)
            if pending is None:
                self._create_pipeline(program, key)
            else:
                pending.result()
        return program.pipelines[key]

    def begin(self, wanted: Iterable[tuple[ShaderModule, Mapping[str, Number]]]) -> None:
        """Starts to make these pipelines on threads of their own; ``pipeline`` waits for its one.

        A driver compiles outside Python's lock, and may be asked by several threads at once: it
        guards the pipeline cache itself (spec 10.7.1). The largest modules begin.
        """
        new: dict[tuple[ShaderModule, Specialization], Program] = {}
        for module, spec in wanted:
            key = specialization(module, spec)
            program = self.program(module)
            if key not in program.pipelines and not _is_under_way(program.pending.get(key)):
                new[module, key] = program
        if not new:
            return
        threads = ThreadPoolExecutor(min(MOST_THREADS, usable_cores(), len(new)), "vkconv-compile")
        for (_, key), program in sorted(new.items(), key=lambda i: -len(i[0][0].code)):
            program.pending[key] = threads.submit(self._create_apart, program, key)
        threads.shutdown(wait=False)  # they end when all is made

    def save(self) -> None:
        """Writes the cache file if pipelines were made since the last time."""
        if self._grown:
            self._grown = False
            self._cache.save()

    def close(self) -> None:
        """Destroys everything and saves the cache (some drivers compile at first dispatch)."""
        lib, null = self._api.lib, self._api.ffi.NULL
        with self._changed:
            self._closing = True  # what no thread has begun is not begun any more
            self._changed.wait_for(lambda: not self._making)
        while self._handles:
            lib.vkDestroyPipeline(self._device, self._handles.pop(), null)
        while self._made:
            program = self._made.pop()
            lib.vkDestroyPipelineLayout(self._device, program.layout, null)
            lib.vkDestroyDescriptorSetLayout(self._device, program.set_layout, null)
            lib.vkDestroyShaderModule(self._device, program.handle, null)
        self._programs.clear()
        self._cache.close()

    def _check_fits(self, module: ShaderModule) -> None:
        caps = self._probe.caps
        counts = {
            kind: sum(b.kind == kind for b in module.buffers) for kind in self.descriptor_types
        }
        limits = {
            "storage_buffer": (caps.max_storage_buffers, "StorageBuffers"),
            "storage_texel": (
                caps.max_storage_texel_buffers if caps.storage_texel else 0,
                "StorageImages",
            ),
            "uniform_texel": (
                caps.max_uniform_texel_buffers if caps.uniform_texel else 0,
                "SampledImages",
            ),
        }
        lacks = [
            f"{n} {kind} bindings (maxPerStageDescriptor{limits[kind][1]} is {limits[kind][0]})"
            for kind, n in counts.items()
            if n > limits[kind][0]
        ]
        if module.push_size > caps.max_push_constants_size:
            lacks.append(
                f"{module.push_size} bytes of push constants "
                f"(maxPushConstantsSize is {caps.max_push_constants_size})"
            )
        # this package's own kernels fit every device, so that reading them is spared
        if "." in module.kernel or caps.max_shared_memory < LEAST_SHARED_MEMORY:
            shared = shared_memory_bytes(module.code)
            if shared > caps.max_shared_memory:
                lacks.append(
                    f"{shared} bytes of shared memory "
                    f"(maxComputeSharedMemorySize is {caps.max_shared_memory})"
                )
        if not caps.subgroup_shuffle and "GroupNonUniformShuffle" in module.capabilities:
            lacks.append("subgroup shuffles")
        if lacks:
            raise DeviceError(
                f"kernel '{module.kernel}' {dict(module.variant)} needs {', '.join(lacks)}, which "
                f"'{self._probe.info.name}' does not have; use another device or "
                "device='reference'"
            )

    def _create_program(self, module: ShaderModule) -> Program:
        api, lib, c = self._api, self._api.lib, self._api.c
        doing = f"loading kernel '{module.kernel}'"
        code = api.ffi.new("uint32_t[]", len(module.code) // 4)
        api.ffi.memmove(code, module.code, len(code) * 4)
        info = api.struct("VkShaderModuleCreateInfo", codeSize=len(code) * 4, pCode=code)
        handle = api.create(lib.vkCreateShaderModule, self._device, info, "VkShaderModule", doing)
        program = Program(module, handle, api.ffi.NULL, api.ffi.NULL)
        self._made.append(program)
        stage = c.VK_SHADER_STAGE_COMPUTE_BIT
        bindings = api.ffi.new("VkDescriptorSetLayoutBinding[]", max(1, len(module.buffers)))
        for row, buffer in zip(bindings, module.buffers, strict=False):
            row.binding = buffer.binding
            row.descriptorType = self.descriptor_types[buffer.kind]
            row.descriptorCount = 1
            row.stageFlags = stage
        info = api.struct(
            "VkDescriptorSetLayoutCreateInfo", bindingCount=len(module.buffers), pBindings=bindings
        )
        program.set_layout = api.create(
            lib.vkCreateDescriptorSetLayout, self._device, info, "VkDescriptorSetLayout", doing
        )
        layouts = api.ffi.new("VkDescriptorSetLayout[]", [program.set_layout])
        ranges = api.struct(
            "VkPushConstantRange", stageFlags=stage, offset=0, size=module.push_size
        )
        info = api.struct(
            "VkPipelineLayoutCreateInfo",
            setLayoutCount=1,
            pSetLayouts=layouts,
            pushConstantRangeCount=1 if module.push_size else 0,
            pPushConstantRanges=ranges,
        )
        program.layout = api.create(
            lib.vkCreatePipelineLayout, self._device, info, "VkPipelineLayout", doing
        )
        return program

    def _create_apart(self, program: Program, key: Specialization) -> None:
        """On a thread: ``close`` waits for it."""
        with self._changed:
            if self._closing:
                raise CancelledError
            self._making += 1
        try:
            self._create_pipeline(program, key)
        finally:
            with self._changed:
                self._making -= 1
                self._changed.notify_all()

    def _create_pipeline(self, program: Program, key: Specialization) -> None:
        api = self._api
        entries = api.ffi.new("VkSpecializationMapEntry[]", max(1, len(key)))
        for i, (constant, _) in enumerate(key):
            entries[i].constantID, entries[i].offset, entries[i].size = constant, 4 * i, 4
        data = api.ffi.new("char[]", b"".join(value for _, value in key))
        special = api.struct(
            "VkSpecializationInfo",
            mapEntryCount=len(key),
            pMapEntries=entries,
            dataSize=4 * len(key),
            pData=data,
        )
        info = api.struct("VkComputePipelineCreateInfo", flags=self._flags, layout=program.layout)
        info.stage.sType = api.c.VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO
        info.stage.stage = api.c.VK_SHADER_STAGE_COMPUTE_BIT
        info.stage.module = program.handle
        info.stage.pName = c_string(api, "main")
        info.stage.pSpecializationInfo = special
        out = api.ffi.new("VkPipeline *")
        began = time.thread_time()
        api.check(
            api.lib.vkCreateComputePipelines(
                self._device, self._cache.handle, 1, info, api.ffi.NULL, out
            ),
            f"compiling kernel '{program.module.kernel}'",
        )
        made = out[0]
        self._handles.append(made)
        self.effort[made] = time.thread_time() - began
        program.pipelines[key] = made
        self._grown = True


def _is_under_way(pending: Future[None] | None) -> bool:
    """Whether a pipeline is being made, or made; what failed once is tried again."""
    return pending is not None and not (pending.done() and pending.exception() is not None)


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
