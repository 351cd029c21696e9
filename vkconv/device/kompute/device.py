"""A Vulkan device opened through Kompute, with its constants.

Limits and kinds are read by the default engine's probe; what kernels may use is cut down to what kp
can offer: storage buffers, no texel buffers, no subgroup operations.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from vkconv import shaders
from vkconv.capabilities import DeviceCaps, DeviceInfo
from vkconv.device.kompute import loader
from vkconv.device.kompute.executable import KomputeExecutable
from vkconv.device.kompute.tensors import Tensors, padded
from vkconv.device.vulkan.device import Core
from vkconv.device.vulkan.enumerate import choose, probes
from vkconv.device.vulkan.loader import FORKED, instance
from vkconv.device.vulkan.probe import Probe
from vkconv.dispatch import Plan, Storage
from vkconv.errors import DeviceError
from vkconv.shaders import ShaderModule, Variant

Load = Callable[[str, Variant], ShaderModule]


def infos() -> list[DeviceInfo]:
    """The devices as this engine offers them; none where kp is not installed."""
    return [_info(p) for p in probes()] if loader.is_installed() else []


def _info(probe: Probe) -> DeviceInfo:
    return dataclasses.replace(
        probe.info,
        name=f"{probe.info.name} (Kompute)",
        driver=f"kp {loader.version()} on {probe.info.driver}",
        features=(),
    )


def _caps(caps: DeviceCaps) -> DeviceCaps:
    return dataclasses.replace(
        caps, storage_texel=False, uniform_texel=False, subgroup_shuffle=False, subgroup_size=1
    )


@dataclass(eq=False)
class _Constant:
    tensor: Any
    users: int = 0


class KomputeDevice:
    """A device that runs plans through kp. Threads may share it; their runs take turns."""

    def __init__(self, choice: str = "kompute", load: Load = shaders.load) -> None:
        """``choice``: "kompute", or with an index or a name behind a colon as the default engine
        takes it. Raises DeviceError where kp is missing, or returns wrong numbers."""
        self.kp = kp = loader.load()
        probe = choose(choice.strip().partition(":")[2].strip() or "auto", probes())
        self.load = load
        self.info, self.caps = _info(probe), _caps(probe.caps)
        self.lock = threading.RLock()
        self.closed = False
        #: why the device can no longer be used, or empty
        self.broken = ""
        self._pid = os.getpid()
        self._constants: dict[Storage, _Constant] = {}
        self._executables: weakref.WeakSet[KomputeExecutable] = weakref.WeakSet()
        self._core = Core(probe)
        # the instance closes what is open at exit, in the right order
        weakref.finalize(self, _close_quietly, self._core).atexit = False
        try:
            with loader.typed(f"opening '{probe.info.name}' with Kompute"):
                self.opened = kp.Manager(_position(probe))
                found = self.opened.get_device_properties()["device_name"]
            if found != probe.info.name:
                raise DeviceError(
                    f"Kompute opened '{found}' where '{probe.info.name}' was meant; it lists other "
                    "devices than the default engine"
                )
            loader.check_round_trip(kp, self.opened)
        except BaseException:
            self._core.close()
            raise
        self.tensors = Tensors(kp, self.opened, self._core)

    def prepare(self, plan: Plan) -> KomputeExecutable:
        """Allocates, uploads, compiles and records everything the plan needs."""
        with self.lock:
            self.check_usable()
            executable = KomputeExecutable(self, plan)
            self._executables.add(executable)
            return executable

    def check_usable(self) -> None:
        """Raises where the device is closed, lost, or belongs to the parent process."""
        if os.getpid() != self._pid:
            raise DeviceError(FORKED)
        if self.closed:
            raise DeviceError("the device is closed")
        if self.broken:
            raise DeviceError(self.broken)

    def close(self) -> None:
        """Closes its executables and frees everything; any number of times."""
        if os.getpid() != self._pid:
            raise DeviceError(FORKED)
        with self.lock:
            if self.closed:
                return
            for executable in list(self._executables):
                executable.close()
            self.closed = True
            self._constants.clear()
            self.opened.destroy()
            self._core.close()

    # --- constants -------------------------------------------------------------------------------

    def missing(self, storages: Iterable[Storage]) -> dict[Storage, int]:
        """The constants that are not on the device yet, and the bytes each will take."""
        return {s: padded(s.size) for s in storages if s not in self._constants}

    def acquire(self, storages: Iterable[Storage]) -> None:
        """Makes every constant resident and counts one more user of each; room was reserved."""
        storages = list(dict.fromkeys(storages))
        fresh = self.missing(storages)
        try:
            for storage, size in fresh.items():
                data = storage.data
                if data is None or data.nbytes > storage.size:
                    raise DeviceError(f"constant '{storage.name}' has no data (internal error)")
                self._constants[storage] = _Constant(self.tensors.constant(data, size))
            if fresh and not self.tensors.constants_are_mapped:
                made = [self.constant(storage) for storage in fresh]
                with loader.typed("uploading constants"):
                    self.opened.sequence().record(self.kp.OpTensorSyncDevice(made)).eval()
        except BaseException:
            for storage in fresh:
                self._constants.pop(storage, None)
            raise
        for storage in fresh:
            storage.drop()
        for storage in storages:
            self._constants[storage].users += 1

    def release(self, storages: Iterable[Storage]) -> None:
        """Counts one user less of each; what nobody uses is freed."""
        for storage in dict.fromkeys(storages):
            constant = self._constants.get(storage)
            if constant is not None:
                constant.users -= 1
                if constant.users <= 0:
                    del self._constants[storage]

    def constant(self, storage: Storage) -> Any:
        """The tensor of an acquired constant."""
        return self._constants[storage].tensor


def _close_quietly(core: Core) -> None:
    with contextlib.suppress(DeviceError):  # a finalizer has nobody to tell
        core.close()


def _position(probe: Probe) -> int:
    """Where kp finds the device: in the driver's list, of which ours leaves out what is too old."""
    return instance().physical_devices().index(probe.physical)
