"""vkconv: ONNX detectors on any GPU that speaks Vulkan.

    import vkconv
    session = vkconv.InferenceSession("model.onnx")
    outputs = session.run(None, {"images": array})

Importing the package is light: nothing touches Vulkan, onnx or an image library before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vkconv.errors import (
    BuildError,
    DeviceError,
    DeviceLostError,
    DeviceTimeoutError,
    InvalidInputError,
    InvalidModelError,
    OutOfDeviceMemoryError,
    UnsupportedModelError,
    VkconvError,
)

if TYPE_CHECKING:
    from vkconv.capabilities import DeviceInfo
    from vkconv.device import devices
    from vkconv.session import InferenceSession, NodeArg

__version__ = "0.1.0"

__all__ = [
    "BuildError",
    "DeviceError",
    "DeviceInfo",
    "DeviceLostError",
    "DeviceTimeoutError",
    "InferenceSession",
    "InvalidInputError",
    "InvalidModelError",
    "NodeArg",
    "OutOfDeviceMemoryError",
    "UnsupportedModelError",
    "VkconvError",
    "devices",
]

_LAZY = {
    "DeviceInfo": "vkconv.capabilities",
    "InferenceSession": "vkconv.session",
    "NodeArg": "vkconv.session",
    "devices": "vkconv.device",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'vkconv' has no attribute '{name}'")
