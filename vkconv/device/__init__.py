"""Where plans run: the Vulkan engine, Kompute, a numpy reference. Importing this touches no driver.

This room executes ``vkconv.dispatch`` data with kernels from ``vkconv.shaders``; it knows neither
ONNX nor operators.
"""

from __future__ import annotations

import os

from vkconv.capabilities import DeviceInfo
from vkconv.device.base import Device, Executable, StepTime
from vkconv.device.reference import ReferenceDevice

__all__ = ["Device", "Executable", "StepTime", "devices", "open_device"]


def devices() -> list[DeviceInfo]:
    """The Vulkan devices of this system. Raises DeviceError where there is no loader or no driver.

    "reference" (numpy) is always there besides, and is not listed.
    """
    from vkconv.device.vulkan import enumerate as vulkan

    return vulkan.infos()


def open_device(choice: str | int = "auto") -> Device:
    """Opens a device: "auto", an index, "gpu", "cpu", part of a name, "reference", or "kompute"
    (also "kompute:1", "kompute:NAME").

    "auto" takes what the environment variable VKCONV_DEVICE says, else the first discrete GPU, then
    integrated, then virtual, then a CPU driver. Raises DeviceError, listing what there is, where
    nothing fits.
    """
    if choice == "auto":
        choice = os.environ.get("VKCONV_DEVICE", "").strip() or "auto"
    if isinstance(choice, str) and choice.strip().lower() == "reference":
        return ReferenceDevice()
    if isinstance(choice, str) and choice.strip().lower().partition(":")[0] == "kompute":
        from vkconv.device.kompute.device import KomputeDevice

        return KomputeDevice(choice)
    from vkconv.device.vulkan.device import VulkanDevice

    return VulkanDevice(choice)
