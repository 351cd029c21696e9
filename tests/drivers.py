"""The drivers that the suite runs on, and the environment that selects one."""

from __future__ import annotations

import os
from pathlib import Path

#: where distributions put each driver's manifest, the usual place first
FILES: dict[str, tuple[str, ...]] = {
    "lavapipe": (
        "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json",
        "/usr/share/vulkan/icd.d/lvp_icd.aarch64.json",
        "/usr/share/vulkan/icd.d/lvp_icd.json",
    ),
    "swiftshader": (
        "/usr/lib/chromium/vk_swiftshader_icd.json",
        "/usr/lib64/chromium-browser/vk_swiftshader_icd.json",
        "/usr/share/vulkan/icd.d/vk_swiftshader_icd.json",
    ),
}
#: what names other drivers, and would win
_OTHERS = ("VK_DRIVER_FILES", "VK_ADD_DRIVER_FILES")


def manifest(name: str) -> str:
    """The driver's manifest; its usual place where it is not installed, so that opening it fails
    with the loader's own words."""
    return next((f for f in FILES[name] if Path(f).is_file()), FILES[name][0])


def select_driver(name: str) -> None:
    """Makes this process and those it starts use this driver only."""
    for variable in _OTHERS:
        os.environ.pop(variable, None)
    os.environ["VK_ICD_FILENAMES"] = manifest(name)
