"""``--validate``: tests under Khronos' validation layer; a message fails the test that made it.

The layer writes to a named pipe, which this process reads after each test. It is handed on by the
environment, so what a command does in a process of its own counts too. Synchronization is validated
within a submission and between submissions.
"""

from __future__ import annotations

import atexit
import os
import re
import select
import threading
from collections.abc import Iterator
from pathlib import Path

LAYER = "VK_LAYER_KHRONOS_validation"
VULKAN_1_4 = (1 << 22) | (4 << 12)
#: what ``--validate`` leaves out, and why
NOT_VALIDATED = {
    "tests/device": "runs each of its processes under the layer itself (test_validation.py)",
    "tests/faults": "makes the driver's calls fail on purpose",
    "tests/fuzz": "its trials are the other tests' operators on garbage, mostly never run",
    "tests/models/test_kompute.py": "the kp library's calls are not ours",
    "tests/ops/test_kompute.py": "the kp library's calls are not ours",
}
#: messages that are no fault of ours: (what the message contains, why)
ALLOWED: tuple[tuple[str, str], ...] = ()

SETTINGS = """\
khronos_validation.report_flags = error,warn
khronos_validation.debug_action = VK_DBG_LAYER_ACTION_LOG_MSG
khronos_validation.log_filename = {log}
khronos_validation.duplicate_message_limit = 0
"""
#: synchronization, within a submission and (by default) between them
SYNCHRONIZATION = """\
khronos_validation.validate_sync = true
khronos_validation.syncval_shader_accesses_heuristic = true
"""
#: the same before Vulkan 1.4's layers, which know other names
OLD_SYNCHRONIZATION = """\
khronos_validation.enables = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT,\
VALIDATION_CHECK_ENABLE_SYNCHRONIZATION_VALIDATION_QUEUE_SUBMIT
"""
#: what newer layers print to standard output, once for each instance
ANNOUNCEMENT = "Validation Layer Info - Logging validation error to "


def layer_environment(folder: Path, log: str) -> dict[str, str]:
    """What makes a process's messages go to the file ``log`` ("stdout" included); the settings are
    written into ``folder``."""
    settings = folder / "vk_layer_settings.txt"
    is_old = (layer_version() or 0) < VULKAN_1_4
    settings.write_text(
        SETTINGS.format(log=log) + (OLD_SYNCHRONIZATION if is_old else SYNCHRONIZATION)
    )
    return {"VK_INSTANCE_LAYERS": LAYER, "VK_LAYER_SETTINGS_PATH": str(settings)}


def without_announcement(output: str) -> str:
    """What a process printed of its own accord."""
    lines = output.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(ANNOUNCEMENT))


class Messages:
    """The layer's pipe, and what came out of it since the last look."""

    def __init__(self, folder: Path) -> None:
        import fcntl  # named pipes as files are POSIX's

        path = folder / "messages"
        os.mkfifo(path)
        # open for writing too, so that opening never waits and the pipe outlives its writers
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._text = bytearray()
        self._lock = threading.Lock()
        # a full pipe would stop the program under test: 1 MiB, and a thread that empties it
        fcntl.fcntl(self._pipe, getattr(fcntl, "F_SETPIPE_SZ", 1031), 1 << 20)
        threading.Thread(target=self._empty, daemon=True, name="validation messages").start()
        self.environment = layer_environment(folder, str(path))

    def take(self) -> list[str]:
        """The messages since the last call, those allowed left out."""
        with self._lock:
            self._read()
            text = self._text.decode("utf-8", "replace")
            self._text.clear()
        return [m for m in _split(text) if not any(part in m for part, _ in ALLOWED)]

    def _empty(self) -> None:
        while True:
            select.select([self._pipe], [], [])
            with self._lock:
                self._read()

    def _read(self) -> None:
        try:
            while chunk := os.read(self._pipe, 1 << 16):
                self._text += chunk
        except BlockingIOError:
            return


def _split(text: str) -> Iterator[str]:
    """One message each: it begins with a word such as VUID-..., SYNC-... or UNASSIGNED-..."""
    for part in re.split(r"(?m)^(?=(?:VUID|SYNC|UNASSIGNED|Validation)\b)", text):
        if part.strip():
            yield part.strip()


def take_whole_ranges() -> None:
    """From here on barriers stand wherever the ranges of two descriptors meet, one of them written.

    The batches of a channel slice lie between those of its neighbours, and the planner puts no
    barrier between dispatches on such slices, which share no byte (``Access.meets``, held against
    single bytes in tests/plan/test_barriers.py). Nor does a range begin where the bytes do, but at
    the alignment before. The layer knows ranges only, and would report both.
    """
    from vkconv.dispatch import ALIGNMENT, Storage
    from vkconv.plan import lowering

    exact = lowering.Access

    def whole(storage: Storage, start: int, end: int, *rest: object) -> object:
        return exact(storage, start // ALIGNMENT * ALIGNMENT, -(-end // 16) * 16, *rest)

    lowering.Access = whole
    lowering._pieces = lambda view: (1, 0)


def layer_version() -> int | None:
    """The Vulkan version that the layer was made for. The loader leaves out one that is missing
    without a word: None."""
    from vkconv.device.vulkan.loader import load, text

    api = load()
    count = api.ffi.new("uint32_t *")
    api.lib.vkEnumerateInstanceLayerProperties(count, api.ffi.NULL)
    rows = api.ffi.new("VkLayerProperties[]", count[0])
    api.lib.vkEnumerateInstanceLayerProperties(count, rows)
    found = (row.specVersion for row in rows if text(api, row.layerName) == LAYER)
    return next(found, None)


def close_instance() -> None:
    """Closes all devices and the instance, as the interpreter's end would: leaks are reported."""
    from vkconv.device.vulkan import loader

    opened, loader._instance = loader._instance, None
    if opened is not None:
        atexit.unregister(opened.close)
        opened.close()
