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
    FusionError,
    InvalidInputError,
    InvalidModelError,
    OutOfDeviceMemoryError,
    UnsupportedModelError,
    VkconvError,
)

if TYPE_CHECKING:
    from vkconv.arguments import NodeArg
    from vkconv.capabilities import DeviceInfo
    from vkconv.ceilings import Ceilings, measure_ceilings
    from vkconv.compilation import compile_model
    from vkconv.device import devices
    from vkconv.fusion import FusedModel, fuse
    from vkconv.image_inputs import ImageInput
    from vkconv.io_binding import IOBinding
    from vkconv.memory_report import MemoryReport
    from vkconv.session import InferenceSession
    from vkconv.tuning import Tuning
    from vkconv.verification import Verification, verify

__version__ = "0.1.0"

__all__ = [
    "BuildError",
    "Ceilings",
    "DeviceError",
    "DeviceInfo",
    "DeviceLostError",
    "DeviceTimeoutError",
    "FusedModel",
    "FusionError",
    "IOBinding",
    "ImageInput",
    "InferenceSession",
    "InvalidInputError",
    "InvalidModelError",
    "MemoryReport",
    "NodeArg",
    "OutOfDeviceMemoryError",
    "Tuning",
    "UnsupportedModelError",
    "Verification",
    "VkconvError",
    "compile_model",
    "devices",
    "fuse",
    "measure_ceilings",
    "register_operator",
    "verify",
]

_LAZY = {
    "Ceilings": "vkconv.ceilings",
    "DeviceInfo": "vkconv.capabilities",
    "FusedModel": "vkconv.fusion",
    "InferenceSession": "vkconv.session",
    "IOBinding": "vkconv.io_binding",
    "ImageInput": "vkconv.image_inputs",
    "MemoryReport": "vkconv.memory_report",
    "NodeArg": "vkconv.arguments",
    "Tuning": "vkconv.tuning",
    "Verification": "vkconv.verification",
    "compile_model": "vkconv.compilation",
    "devices": "vkconv.device",
    "fuse": "vkconv.fusion",
    "measure_ceilings": "vkconv.ceilings",
    "register_operator": "vkconv.custom_operators",
    "verify": "vkconv.verification",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'vkconv' has no attribute '{name}'")
