"""The drivers that the suite runs on, and the environment that selects one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

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


def null_hardware(family: str) -> dict[str, str]:
    """The environment of a process whose device is RADV's "null hardware": AMD's GPUs of a family
    ("raven", "navi21") to a compiler, and to nothing else. Skips the test where RADV has none."""
    folder = Path("/usr/share/vulkan/icd.d")
    files = os.pathsep.join(str(file) for file in sorted(folder.glob("radeon_icd*.json")))
    environment = dict.fromkeys(("VK_ICD_FILENAMES", "VK_DRIVER_FILES"), files)
    environment |= {"VK_ADD_DRIVER_FILES": "", "RADV_FORCE_FAMILY": family}
    environment |= dict.fromkeys(("VKCONV_PROFILE", "VKCONV_LIMITS", "VKCONV_DISABLE"), "")
    if not files or family.upper() not in _names(tuple(environment.items())):
        reason = "no radeon_icd*.json" if not files else "this RADV has no null hardware (Mesa 26)"
        # where it is known to be there, its absence is a fault of the test's environment
        assert "Debian GNU/Linux 12" not in _system(), reason
        pytest.skip(reason)
    return environment


@cache
def _names(environment: tuple[tuple[str, str], ...]) -> str:
    """The devices that there are in this environment; nothing where it has none."""
    code = "import vkconv; print([info.name for info in vkconv.devices()])"
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **dict(environment)},
        timeout=60,
    ).stdout


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""
