"""The package ``kp``: imported on first use, and tried before it is trusted."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import logging
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from vkconv.device.vulkan.loader import load as load_vulkan
from vkconv.errors import DeviceError, DeviceLostError, OutOfDeviceMemoryError

BUILD = (
    "in a source checkout run 'scripts/build_kompute.sh', elsewhere "
    "'pip install vkconv[kompute]' with a C++ compiler and CMake at hand"
)
#: words that a wrong element type or a wrong item size would change: a NaN with a payload, a
#: negative zero, floats that are no whole numbers
PROBE = np.array([0x7FC0DEAD, 0x80000000, 0x3FA66666, 0x00000001, 0xFFFFFFFF], np.uint32)


def is_installed() -> bool:
    """Whether there is a package kp."""
    return importlib.util.find_spec("kp") is not None


@cache
def load() -> Any:
    """The module. Raises DeviceError where it is missing, another version, or does not load."""
    if not is_installed():
        raise DeviceError(
            f"device 'kompute' needs the package kp 0.9, which is not installed; {BUILD}"
        )
    load_vulkan()  # without a Vulkan loader, say so in one voice
    handlers = list(logging.root.handlers)
    try:
        kp = importlib.import_module("kp")
    except Exception as error:  # whatever an extension module may raise while it loads
        raise DeviceError(f"the package kp cannot be imported ({error}); {BUILD}") from None
    # importing kp calls logging.basicConfig(): whether this program logs is not for it to say
    logging.root.handlers[:] = handlers
    found = version()
    if found.split(".")[:2] != ["0", "9"]:
        raise DeviceError(f"the package kp is version {found}; vkconv speaks to 0.9; {BUILD}")
    return kp


def version() -> str:
    """What of kp is installed."""
    try:
        return importlib.metadata.version("kp")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def check_round_trip(kp: Any, opened: Any) -> None:
    """Sends words to the device and back. Raises DeviceError where they come back changed.

    A kp built against a pybind11 before 2.12 reads arrays of numpy 2 by the layout of numpy 1: it
    takes any array for an empty one or for zeros, and raises nothing.
    """
    try:
        tensor = opened.tensor_t(PROBE.copy(), kp.TensorTypes.device)
        same = tensor.size() == PROBE.size
        if same:
            opened.sequence().record(kp.OpTensorSyncDevice([tensor])).eval()
            tensor.data()[:] = 0
            opened.sequence().record(kp.OpTensorSyncLocal([tensor])).eval()
            same = bool(np.array_equal(np.asarray(tensor.data()).view(np.uint32), PROBE))
    except Exception:  # a wrong layout may also end in any error
        same = False
    if not same:
        raise DeviceError(
            f"the package kp does not return the numbers it is given (numpy {np.__version__}): it "
            f"was built against a pybind11 that does not know this numpy; build it anew: {BUILD}"
        )


@contextlib.contextmanager
def typed(doing: str) -> Iterator[None]:
    """Errors of kp (all are RuntimeError) as this package's own."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if "DeviceLost" in text:
            raise lost(doing) from None
        if "OutOfDeviceMemory" in text or "OutOfHostMemory" in text:
            raise OutOfDeviceMemoryError(f"{doing}: out of memory ({text})") from None
        raise DeviceError(f"{doing} failed: {text}") from None


def lost(doing: str) -> DeviceLostError:
    """The error for a device that no longer answers."""
    return DeviceLostError(
        f"{doing}: the device was lost (driver reset or crash); close the session and open another"
    )
