"""Compiled pipelines kept on disk between runs.

Nothing in here may fail: a cache that cannot be used is a miss. One file per driver build. The spec
lets a driver trust its data blindly (VUID-VkPipelineCacheCreateInfo-initialDataSize-00769), so a
file carries a digest, and only bytes that match it and this very device reach the driver.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from vkconv.device.vulkan.loader import Api
from vkconv.errors import InvalidInputError
from vkconv.files import cache_folder, remove_leftovers, write_bytes

MAGIC = b"vkconv pipelines 1\n"
#: neither one file nor the folder grows beyond this
MAX_BYTES = 64 << 20


def read(path: Path) -> bytes:
    """The driver's data in ``path``, or nothing where it is missing, damaged or too large."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return b""
        content = path.read_bytes()
    except OSError:
        return b""
    digest, data = content[len(MAGIC) : len(MAGIC) + 32], content[len(MAGIC) + 32 :]
    if not content.startswith(MAGIC) or hashlib.sha256(data).digest() != digest:
        return b""
    return data


def write(path: Path, data: bytes) -> bool:
    """Replaces ``path`` in one step, so that no reader sees half a file; False if it cannot."""
    content = MAGIC + hashlib.sha256(data).digest() + data
    if len(content) > MAX_BYTES:
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(str(path), content, "compiled pipelines")
        _prune(path)
        remove_leftovers(path.parent)
    except (OSError, InvalidInputError):
        return False
    return True


def _prune(newest: Path) -> None:
    """Deletes the oldest files (of drivers since updated) until the folder is within MAX_BYTES."""
    others = [p for p in newest.parent.glob("*.pipelines*") if p != newest]
    room = MAX_BYTES - newest.stat().st_size
    for path in sorted(others, key=lambda p: p.stat().st_mtime, reverse=True):
        room -= path.stat().st_size
        if room < 0:
            with contextlib.suppress(OSError):
                path.unlink()


class PipelineCache:
    """A VkPipelineCache that starts from the file and is written back when it has changed."""

    def __init__(self, api: Api, device: object, key: str, header: bytes, enabled: bool) -> None:
        self._api, self._device = api, device
        self._path: Path | None = None
        data = b""
        if enabled:
            with contextlib.suppress(RuntimeError, OSError):  # no home folder
                self._path = cache_folder() / f"{key}.pipelines"
                data = read(self._path)
        if data[4:32] != header:  # made for another device, or by another driver
            data = b""
        self._saved = hashlib.sha256(data).digest()
        self.handle = self._create(data)

    def _create(self, data: bytes) -> object:
        api = self._api
        initial = api.ffi.from_buffer(data) if data else api.ffi.NULL
        info = api.struct(
            "VkPipelineCacheCreateInfo",
            initialDataSize=len(data),
            pInitialData=api.ffi.cast("void *", initial),
        )
        out = api.ffi.new("VkPipelineCache *")
        create = api.lib.vkCreatePipelineCache
        if create(self._device, info, api.ffi.NULL, out) == 0:
            return out[0]
        return self._create(b"") if data else api.ffi.NULL  # pipelines may be made without a cache

    def save(self) -> None:
        """Writes the file when the driver's data has changed."""
        api, lib = self._api, self._api.lib
        if self._path is None or self.handle == api.ffi.NULL:
            return
        size = api.ffi.new("size_t *")
        if lib.vkGetPipelineCacheData(self._device, self.handle, size, api.ffi.NULL) != 0:
            return
        if not 0 < size[0] <= MAX_BYTES:
            return
        content = api.ffi.new("char[]", size[0])
        if lib.vkGetPipelineCacheData(self._device, self.handle, size, content) != 0:
            return
        data = bytes(api.ffi.buffer(content, size[0]))
        digest = hashlib.sha256(data).digest()
        if digest != self._saved and write(self._path, data):
            self._saved = digest

    def close(self) -> None:
        """Saves, and destroys the driver's object."""
        null = self._api.ffi.NULL
        try:
            self.save()
        finally:
            handle, self.handle = self.handle, null
            if handle != null:
                self._api.lib.vkDestroyPipelineCache(self._device, handle, null)
