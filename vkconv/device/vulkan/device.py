"""One open Vulkan device: its queue, memory, constants and pipelines, shared by its executables.

    VulkanDevice --prepare(plan)--> VulkanExecutable      what callers hold
         |                                |
       Core  <--------- uses ---------  Resources         what the driver holds

The two lower ones never refer to the upper, so that a session somebody forgot to close can be
collected, and its driver objects freed, in whatever order the interpreter chooses.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from vkconv import shaders
from vkconv.device.vulkan.constants import Constants
from vkconv.device.vulkan.enumerate import choose, probes
from vkconv.device.vulkan.executable import VulkanExecutable
from vkconv.device.vulkan.loader import Api, c_string, instance
from vkconv.device.vulkan.memory import Memory
from vkconv.device.vulkan.pipelines import Pipelines
from vkconv.device.vulkan.probe import Probe
from vkconv.device.vulkan.queue import Queue
from vkconv.dispatch import Plan
from vkconv.errors import DeviceError
from vkconv.shaders import ShaderModule, Variant

Load = Callable[[str, Variant], ShaderModule]


class Resource(Protocol):
    """Driver objects of one executable."""

    def close(self) -> bool:
        """Frees them, once; False when the device hangs and they had to be abandoned."""
        ...


def create_device(
    api: Api, probe: Probe, extensions: Sequence[str] = (), features: Any = None
) -> Any:
    """A VkDevice with one queue. ``features``: a structure of the extensions' features, or none."""
    queues = api.struct(
        "VkDeviceQueueCreateInfo",
        queueFamilyIndex=probe.queue_family,
        queueCount=1,
        pQueuePriorities=api.ffi.new("float[1]", [1.0]),
    )
    # VUID-VkDeviceCreateInfo-pProperties-04451: a device that lists it is opened with it
    wanted = [n for n in ("VK_KHR_portability_subset",) if n in probe.extensions]
    names = [c_string(api, name) for name in (*wanted, *extensions)]
    info = api.struct(
        "VkDeviceCreateInfo",
        pNext=api.ffi.NULL if features is None else features,
        queueCreateInfoCount=1,
        pQueueCreateInfos=queues,
        enabledExtensionCount=len(names),
        ppEnabledExtensionNames=api.ffi.new("char *[]", names),
        # Out-of-range reads give some value of the buffer or zero instead of anything at all:
        # models are untrusted. Every device has the feature (spec 47.1); on lavapipe its cost is
        # not measurable.
        pEnabledFeatures=api.struct("VkPhysicalDeviceFeatures", robustBufferAccess=1),
    )
    return api.create(
        api.lib.vkCreateDevice, probe.physical, info, "VkDevice", f"opening '{probe.info.name}'"
    )


class Core:
    """The driver objects behind a VulkanDevice."""

    def __init__(self, probe: Probe) -> None:
        self.system = instance()
        self.api = api = self.system.api
        self.probe = probe
        self.handle = create_device(api, probe)
        #: guards memory, constants and pipelines
        self.lock = threading.RLock()
        try:
            self.queue = Queue(api, self.handle, probe.queue_family)
            self.memory = Memory(api, self.handle, probe)
            self.constants = Constants(api, self.handle, self.memory, self.queue)
            self.pipelines = Pipelines(api, self.handle, probe)
        except BaseException:
            api.lib.vkDestroyDevice(self.handle, api.ffi.NULL)
            raise
        self.closed = False
        self._is_freeing = False
        self.resources: set[Resource] = set()
        #: resources whose executable was collected; a finalizer may run inside any call, so it only
        #: appends
        self.orphans: deque[Resource] = deque()
        self.system.open.add(self)

    def check_usable(self) -> None:
        """Raises DeviceError where the device is closed, lost, hung, or the parent process's."""
        self.queue.check_usable()
        if self.closed:
            raise DeviceError("the device is closed")

    def close_orphans(self) -> None:
        """Frees what collected executables left behind."""
        while self.orphans:
            self.orphans.popleft().close()

    def close(self) -> None:
        """Frees everything, once. The handles of a device that hangs are abandoned."""
        self.system.check_usable()
        with self.lock:
            if self._is_freeing:
                return
            self.closed = self._is_freeing = True
        try:
            self._free()
        except BaseException:
            # Ctrl-C: whoever closes next goes on here, at the latest the exit
            self._is_freeing = False
            raise

    def _free(self) -> None:
        settled = True
        for resource in list(self.resources):
            settled = resource.close() and settled
        if not settled:
            self.system.has_abandoned = True
            self.system.open.discard(self)
            return
        with self.lock:
            self.pipelines.close()
            self.constants.close()
            self.system.open.discard(self)
            self.api.lib.vkDestroyDevice(self.handle, self.api.ffi.NULL)


class VulkanDevice:
    """A Vulkan device that runs plans. Threads may share it."""

    def __init__(self, choice: str | int = "auto", load: Load = shaders.load) -> None:
        self._core = Core(choose(choice, probes()))
        self._load = load
        self.info = self._core.probe.info
        self.caps = self._core.probe.caps
        self._finalizer = weakref.finalize(self, _close_quietly, self._core)
        self._finalizer.atexit = (
            False  # the instance closes what is open at exit, in the right order
        )

    def prepare(self, plan: Plan) -> VulkanExecutable:
        """Allocates, uploads, compiles and records everything the plan needs."""
        core = self._core
        core.check_usable()
        core.close_orphans()
        return VulkanExecutable(self, core, plan, self._load)

    def close(self) -> None:
        """Closes its executables and frees everything; any number of times."""
        self._core.close()


def _close_quietly(core: Core) -> None:
    # a finalizer has nobody to tell, and in a forked child the driver must not be touched at all
    try:
        core.close()
    except DeviceError:
        return
