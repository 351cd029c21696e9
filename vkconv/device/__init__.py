"""Where plans run: the Vulkan engine, Kompute, a numpy reference. Importing this touches no driver.

This room executes ``vkconv.dispatch`` data with kernels from ``vkconv.shaders``; it knows neither
ONNX nor operators.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vkconv.capabilities import DeviceChoice, DeviceInfo
from vkconv.device.base import Device, Executable, StepTime
from vkconv.device.reference import ReferenceDevice
from vkconv.errors import DeviceError

if TYPE_CHECKING:
    from vkconv.device.vulkan.statistics import PipelineCompiler

__all__ = ["Device", "Executable", "StepTime", "devices", "open_compiler", "open_device"]


def devices() -> list[DeviceInfo]:
    """The Vulkan devices of this system. Raises DeviceError where there is no loader or no driver.

    "reference" (numpy) is always there besides, and is not listed.
    """
    from vkconv.device.vulkan import enumerate as vulkan

    return vulkan.infos()


def open_device(choice: DeviceChoice = "auto") -> Device:
    """Opens a device: "auto", an index, "gpu", "cpu", part of a name, what ``devices`` lists,
    "reference", or "kompute" (also "kompute:1", "kompute:NAME").

    "auto" takes what the environment variable VKCONV_DEVICE says, else the first discrete GPU, then
    integrated, then virtual, then a CPU driver. Raises DeviceError, listing what there is, where
    nothing fits.
    """
    choice = _meant(choice)
    engine = _engine(choice)
    if engine == "reference":
        return ReferenceDevice()
    if engine == "kompute":
        from vkconv.device.kompute.device import KomputeDevice

        return KomputeDevice(str(choice))
    from vkconv.device.vulkan.device import VulkanDevice

    return VulkanDevice(choice)


def open_compiler(choice: DeviceChoice = "auto") -> PipelineCompiler:
    """A Vulkan device that compiles and runs nothing, for what its driver says of the kernels.

    The choice as ``open_device`` takes it; "reference" and "kompute" have no compiler to ask.
    Raises DeviceError for these, where nothing fits, and where the driver says nothing.
    """
    choice = _meant(choice)
    from vkconv.device.vulkan.statistics import EXTENSION, PipelineCompiler

    if _engine(choice) != "vulkan":
        raise DeviceError(
            f"device '{choice}' compiles nothing that could be asked about by {EXTENSION}; choose "
            "a Vulkan device, as 'vkconv devices' lists them"
        )
    return PipelineCompiler(choice)


def _meant(choice: DeviceChoice) -> str | int:
    """The choice by name or index, with what VKCONV_DEVICE says for "auto"."""
    if isinstance(choice, DeviceInfo):
        return choice.choice
    if not isinstance(choice, str | int):
        raise DeviceError(
            f"a device is chosen by name, index or DeviceInfo, not by {type(choice).__name__}"
        )
    if choice == "auto":
        return os.environ.get("VKCONV_DEVICE", "").strip() or "auto"
    return choice


def _engine(choice: str | int) -> str:
    """Of what a choice names a device: "reference", "kompute" or "vulkan"."""
    named = str(choice).strip().lower()
    if named == "reference":
        return "reference"
    return "kompute" if named.partition(":")[0] == "kompute" else "vulkan"
