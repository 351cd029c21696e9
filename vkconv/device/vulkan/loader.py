"""The door to Vulkan: the lazily imported binding, typed errors, and the process's one instance.

Nothing here knows plans or devices' contents. Every other file of this room gets its ``Api`` from
here, so that ``import vkconv`` never touches a driver and a missing one is a single clear line.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import re
import threading
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol, TypeVar

from vkconv.errors import DeviceError, DeviceLostError, OutOfDeviceMemoryError

INSTALL_DRIVER = "install a Vulkan driver, e.g. mesa-vulkan-drivers"
API_VERSION = (1 << 22) | (1 << 12)  # VK_API_VERSION_1_1
_T = TypeVar("_T")
FORKED = (
    "this process was forked after Vulkan was started, and drivers do not survive that; "
    "start worker processes with multiprocessing's 'spawn' method"
)


class Api:
    """The raw cffi binding: ``lib`` (functions), ``ffi`` (structs and arrays), ``c`` (constants).

    The functions are called through ``lib`` and not through the binding's Python wrappers:
    recording one dispatch takes 3 us this way against 20 us.
    """

    def __init__(self, binding: Any) -> None:
        self.c = binding
        self.ffi = binding.ffi
        self.lib = binding.lib
        self._alive: weakref.WeakKeyDictionary[Any, tuple[Any, ...]] = weakref.WeakKeyDictionary()

    def struct(self, name: str, /, **fields: Any) -> Any:
        """A new ``name *`` with sType filled in; what it points to lives as long as it does."""
        stype = _structure_type(name)
        if stype is not None:
            fields["sType"] = getattr(self.c, stype)
        made = self.ffi.new(f"{name} *", fields)
        self._alive[made] = tuple(v for v in fields.values() if isinstance(v, self.ffi.CData))
        return made

    def check(self, result: int, doing: str) -> None:
        """Raises the typed error for a negative VkResult; ``doing`` names the action."""
        if result < 0:
            raise self.error(result, doing)

    def error(self, result: int, doing: str) -> DeviceError:
        """The typed error for a VkResult."""
        name = self.result_name(result)
        if name == "VK_ERROR_DEVICE_LOST":
            return DeviceLostError(
                f"{doing}: the device was lost (driver reset or crash); close the session and open "
                "another"
            )
        if name in ("VK_ERROR_OUT_OF_DEVICE_MEMORY", "VK_ERROR_OUT_OF_HOST_MEMORY"):
            return OutOfDeviceMemoryError(f"{doing}: out of memory ({name})")
        return DeviceError(f"{doing} failed: {name}")

    def result_name(self, result: int) -> str:
        """A VkResult's name, e.g. ``VK_ERROR_DEVICE_LOST``."""
        for name in dir(self.c):
            if (
                name.startswith("VK_ERROR_")
                and "__" not in name
                and getattr(self.c, name) == result
            ):
                return name
        return f"VkResult {result}"

    def listed(
        self, function: Any, element: str, *head: Any, pick: Callable[[Any], _T]
    ) -> list[_T]:
        """Calls an enumeration twice (count, then fill); ``pick`` takes what is wanted of each."""
        count = self.ffi.new("uint32_t *")
        result = function(*head, count, self.ffi.NULL)
        found = self.ffi.new(f"{element}[]", count[0])
        stype = _structure_type(element)
        if stype is not None:
            for row in found:
                row.sType = getattr(self.c, stype)
        if result is None or result == 0:
            result = function(*head, count, found)
        self.check(result or 0, f"listing {element}")
        return [pick(found[i]) for i in range(count[0])]

    def extension_function(self, device: Any, name: str) -> Any:
        """A function of an extension that the device was opened with: libvulkan exports none."""
        address = self.lib.vkGetDeviceProcAddr(device, c_string(self, name))
        return self.ffi.cast(f"PFN_{name}", address)

    def create(self, function: Any, parent: Any, info: Any, handle: str, doing: str) -> Any:
        """Calls ``vkCreateX(parent, info, NULL, &handle)`` and returns the handle."""
        out = self.ffi.new(f"{handle} *")
        self.check(function(parent, info, self.ffi.NULL, out), doing)
        return out[0]


#: where a word of a structure's name ends: a suffix in capitals (KHR, EXT) is one word
_WORD_END = re.compile("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[a-z])(?=[0-9])")


@cache
def _structure_type(name: str) -> str | None:
    """``VkBufferCopy`` -> None, ``VkPipelineInfoKHR`` -> ``VK_STRUCTURE_TYPE_PIPELINE_INFO_KHR``.

    The registry's own name for most structures; not where letters and digits mix (Win32, 8Bit).
    """
    kind = load().ffi.typeof(name)
    if kind.kind != "struct" or all(field != "sType" for field, _ in kind.fields or ()):
        return None
    return "VK_STRUCTURE_TYPE_" + _WORD_END.sub("_", name.removeprefix("Vk")).upper()


@cache
def load() -> Api:
    """The binding, imported on first use. Raises DeviceError where there is no Vulkan loader."""
    try:
        return Api(importlib.import_module("vulkan"))
    except ImportError as error:
        raise DeviceError(
            f"the Python package 'vulkan' cannot be imported ({error}); run 'pip install vulkan'"
        ) from None
    except OSError:
        raise DeviceError(
            "no Vulkan loader (libvulkan) on this system; install it and a driver, e.g. "
            "'apt install libvulkan1 mesa-vulkan-drivers', or use device='reference'"
        ) from None


class Closeable(Protocol):
    """An open device, as the loader sees it at exit."""

    def close(self) -> None:
        """Frees everything."""
        ...


class Instance:
    """The process's VkInstance and the devices opened on it."""

    def __init__(self) -> None:
        self.api = api = load()
        self.pid = os.getpid()
        self.open: set[Closeable] = set()
        #: a device hangs and keeps its handles, so the instance must outlive it
        self.has_abandoned = False
        app = api.struct(
            "VkApplicationInfo", pEngineName=c_string(api, "vkconv"), apiVersion=API_VERSION
        )
        wanted = []
        flags = 0
        portability = "VK_KHR_portability_enumeration"
        if portability in _instance_extensions(api):
            # without this flag the loader hides MoltenVK (spec, VkInstanceCreateFlagBits)
            wanted.append(c_string(api, portability))
            flags = 1
        names = api.ffi.new("char *[]", wanted)
        info = api.struct(
            "VkInstanceCreateInfo",
            flags=flags,
            pApplicationInfo=app,
            enabledExtensionCount=len(wanted),
            ppEnabledExtensionNames=names,
        )
        out = api.ffi.new("VkInstance *")
        result = api.lib.vkCreateInstance(info, api.ffi.NULL, out)
        if result == api.c.VK_ERROR_INCOMPATIBLE_DRIVER:
            raise DeviceError(f"no Vulkan driver on this system; {INSTALL_DRIVER}")
        api.check(result, "creating the Vulkan instance")
        self.handle = out[0]

    def check_usable(self) -> None:
        """Raises DeviceError in a forked child."""
        if os.getpid() != self.pid:
            raise DeviceError(FORKED)

    def physical_devices(self) -> list[Any]:
        """Handles of all devices that the installed drivers offer."""
        self.check_usable()
        api = self.api
        try:
            found = api.listed(
                api.lib.vkEnumeratePhysicalDevices,
                "VkPhysicalDevice",
                self.handle,
                pick=lambda d: d,
            )
        except DeviceError as error:
            raise DeviceError(f"no working Vulkan driver ({error}); {INSTALL_DRIVER}") from None
        if not found:
            raise DeviceError(f"no Vulkan device on this system; {INSTALL_DRIVER}")
        return found

    def close(self) -> None:
        """Closes the devices still open, then the instance; run at exit, before module teardown."""
        if os.getpid() != self.pid:
            return
        for device in list(self.open):
            with contextlib.suppress(DeviceError):
                device.close()
        if not self.has_abandoned:
            self.api.lib.vkDestroyInstance(self.handle, self.api.ffi.NULL)


_lock = threading.Lock()
_instance: Instance | None = None


def instance() -> Instance:
    """The process-wide instance, created on first use and destroyed at exit."""
    global _instance
    with _lock:
        if _instance is None:
            _instance = Instance()
            atexit.register(_instance.close)
        _instance.check_usable()
        return _instance


def _instance_extensions(api: Api) -> set[str]:
    return set(
        api.listed(
            api.lib.vkEnumerateInstanceExtensionProperties,
            "VkExtensionProperties",
            api.ffi.NULL,
            pick=lambda e: text(api, e.extensionName),
        )
    )


def text(api: Api, chars: Any) -> str:
    """A C string as str; bytes that are no UTF-8 are replaced."""
    return str(api.ffi.string(chars).decode("utf-8", "replace"))


def c_string(api: Api, value: str) -> Any:
    """A NUL-terminated copy of a fixed name, kept for the life of the program."""
    if value not in _interned:
        _interned[value] = api.ffi.new("char[]", value.encode())
    return _interned[value]


#: C strings that structs point to, by their text
_interned: dict[str, Any] = {}
