"""The machine around Vulkan: versions, driver files, environment, cache folder, what to install.

Reads files and the environment only; no driver is touched.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from vkconv.files import cache_folder

__all__ = [
    "DriverFile",
    "cache_facts",
    "driver_files",
    "home_hidden",
    "install_remedy",
    "locked_render_nodes",
    "render_nodes",
    "switches",
    "versions",
]

#: of the environment, what Vulkan's loader, Mesa and this package read
_PREFIXES = ("VKCONV_", "VK_", "MESA_", "LVP_", "RADV_", "ANV_", "NVIDIA_DRIVER_CAPABILITIES")
_PACKAGES = ("numpy", "onnx", "vulkan", "Pillow", "rich", "platformdirs", "kp")
#: packages that hold the loader and drivers, by the distribution's ID (os-release)
_INSTALL = {
    "debian": "apt install libvulkan1 mesa-vulkan-drivers",
    "fedora": "dnf install vulkan-loader mesa-vulkan-drivers",
    "arch": "pacman -S vulkan-icd-loader vulkan-swrast, and vulkan-radeon or vulkan-intel",
    "suse": "zypper install libvulkan1 libvulkan_radeon libvulkan_intel libvulkan_lvp",
    "alpine": "apk add vulkan-loader mesa-vulkan-swrast, and mesa-vulkan-ati or mesa-vulkan-intel",
}
_LIKE = {"ubuntu": "debian", "rhel": "fedora", "centos": "fedora", "opensuse": "suse"}


def versions() -> list[tuple[str, str]]:
    """Of the package, Python, the system, and the packages needed."""
    import vkconv

    found = [
        ("vkconv", vkconv.__version__),
        ("Python", f"{platform.python_version()} ({sys.implementation.name})"),
        ("system", f"{_system_name()}, {platform.machine()}, {os.cpu_count()} processors"),
    ]
    for package in _PACKAGES:
        try:
            found.append((package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            if package != "kp":  # an extra
                found.append((package, "not installed"))
    return found


def switches() -> list[tuple[str, str]]:
    """Environment variables that change what happens, with their values."""
    found = sorted((k, v) for k, v in os.environ.items() if k.startswith(_PREFIXES))
    return [(name, home_hidden(value)) for name, value in found]


def home_hidden(text: str) -> str:
    """Text without the user's name: the home folder is ``~``."""
    home = os.path.expanduser("~")
    return text.replace(home, "~") if len(home) > 1 else text


# --- drivers -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class DriverFile:
    """A file that tells Vulkan's loader of a driver, the library it names, and what is wrong with
    them ("" when nothing is)."""

    path: str
    library: str
    problem: str


def driver_files() -> list[DriverFile]:
    """The files that the loader reads; on Windows only those that the environment names, the others
    are in the registry."""
    return [_driver_file(path) for path in _driver_paths()]


def _driver_paths() -> list[Path]:
    given = os.environ.get("VK_DRIVER_FILES") or os.environ.get("VK_ICD_FILENAMES")
    found = [os.environ.get("VK_ADD_DRIVER_FILES", "")] if not given else []
    paths = [p for text in [given or "", *found] for p in text.split(os.pathsep) if p]
    listed = [q for p in paths for q in _in_folder(Path(p))]
    if given or sys.platform == "win32":
        return listed
    folders = (folder / "vulkan" / "icd.d" for folder in _search_folders())
    listed += [path for folder in folders if folder.is_dir() for path in _in_folder(folder)]
    return list(dict.fromkeys(listed))


def _in_folder(path: Path) -> list[Path]:
    try:
        return sorted(path.glob("*.json")) if path.is_dir() else [path]
    except OSError:
        return [path]


def _search_folders() -> Iterator[Path]:
    """In the order of the loader's documentation."""
    home = Path(os.path.expanduser("~"))
    yield Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    configured = os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    yield from map(Path, filter(None, configured.split(":")))
    yield from map(Path, ("/usr/local/etc", "/etc"))
    yield Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    yield from map(Path, filter(None, shared.split(":")))
    if sys.platform == "darwin":
        yield from map(Path, ("/opt/homebrew/etc", "/opt/homebrew/share"))


def _driver_file(path: Path) -> DriverFile:
    shown = home_hidden(str(path))
    try:
        content = json.loads(path.read_text("utf-8"))
        library = str(content["ICD"]["library_path"])
    except FileNotFoundError:
        return DriverFile(shown, "", "there is no such file")
    except OSError as error:
        return DriverFile(shown, "", f"it cannot be read: {error.strerror or error}")
    except (ValueError, RecursionError, KeyError, TypeError):
        return DriverFile(shown, "", "it is no driver file: JSON with ICD.library_path")
    # a name alone is looked for by the system, a path is relative to the file
    is_path = "/" in library or "\\" in library
    target = str(path.parent / library) if is_path else library
    try:
        ctypes.CDLL(target)
    except OSError as error:
        return DriverFile(shown, home_hidden(library), home_hidden(f"it cannot be loaded: {error}"))
    return DriverFile(shown, home_hidden(library), "")


def render_nodes() -> list[str]:
    """GPUs as Linux has them, with or without a driver for Vulkan."""
    with contextlib.suppress(OSError):
        return sorted(str(p) for p in Path("/dev/dri").glob("renderD*"))
    return []


def locked_render_nodes() -> list[str]:
    """Those that this user may not use."""
    return [node for node in render_nodes() if not os.access(node, os.R_OK | os.W_OK)]


# --- what to install ---------------------------------------------------------------------------


def install_remedy() -> str:
    """How to get a loader and a driver on this system."""
    if sys.platform == "win32":
        return (
            "install the current driver of the graphics card (AMD, Intel or NVIDIA); it brings "
            "the Vulkan loader"
        )
    if sys.platform == "darwin":
        return "brew install vulkan-loader molten-vk"
    command = _INSTALL.get(_distribution(), "")
    if not command:
        command = f"on Debian and Ubuntu: {_INSTALL['debian']}; on Fedora: {_INSTALL['fedora']}"
    return (
        f"{command} (covers AMD, Intel, and the processor where there is no GPU); for an NVIDIA "
        "card NVIDIA's own driver; in a container pass the GPU in (--device /dev/dri, or --gpus "
        "all with NVIDIA_DRIVER_CAPABILITIES=all)"
    )


def _distribution() -> str:
    release = _os_release()
    for name in (release.get("ID", ""), *release.get("ID_LIKE", "").split()):
        known = _LIKE.get(name.partition("-")[0], name.partition("-")[0])
        if known in _INSTALL:
            return known
    return ""


def _os_release() -> dict[str, str]:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release()
    return {}


def _system_name() -> str:
    return _os_release().get("PRETTY_NAME") or f"{platform.system()} {platform.release()}"


# --- the cache folder --------------------------------------------------------------------------


def cache_facts() -> tuple[list[tuple[str, str]], str]:
    """What the cache folder holds, and why it cannot be used ("" when it can)."""
    try:
        folder = cache_folder()
    except (RuntimeError, OSError) as error:
        return [("folder", "none")], f"no cache folder was found: {error}"
    rows = [("folder", home_hidden(str(folder)))]
    problem = _writing_problem(folder)
    count, size = _contents(folder)
    rows.append(("contents", f"{count} files, {size / 2**20:.1f} MiB"))
    rows.append(("writable", "yes" if not problem else "no"))
    return rows, problem


def _writing_problem(folder: Path) -> str:
    """Why no file can be written to a folder; it is not made where it does not exist yet."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    shown = home_hidden(str(place))
    if not place.is_dir():
        return f"'{shown}' is no folder"
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(1 << 16))
    except OSError as error:
        return f"nothing can be written to '{shown}': {error.strerror or error}"
    return ""


def _contents(folder: Path) -> tuple[int, int]:
    count = size = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.stat(os.path.join(root, name)).st_size
                count += 1
    return count, size
