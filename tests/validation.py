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
khronos_validation.log_filename = {pipe}
khronos_validation.enables = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT,\
VALIDATION_CHECK_ENABLE_SYNCHRONIZATION_VALIDATION_QUEUE_SUBMIT
khronos_validation.duplicate_message_limit = 0
"""


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
        settings = folder / "vk_layer_settings.txt"
        settings.write_text(SETTINGS.format(pipe=path))
        self.environment = {
            "VK_INSTANCE_LAYERS": LAYER,
            "VK_LAYER_SETTINGS_PATH": str(settings),
        }

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
    single bytes in tests/plan/test_barriers.py). The layer knows ranges only, and would report it.
    Models of one image at a time, and all without slices, are planned as ever.
    """
    from vkconv.plan import lowering

    lowering._pieces = lambda view: (1, 0)


def layer_is_installed() -> bool:
    """Whether the loader finds the layer; one that is missing is left out without a word."""
    from vkconv.device.vulkan.loader import load, text

    api = load()
    count = api.ffi.new("uint32_t *")
    api.lib.vkEnumerateInstanceLayerProperties(count, api.ffi.NULL)
    rows = api.ffi.new("VkLayerProperties[]", count[0])
    api.lib.vkEnumerateInstanceLayerProperties(count, rows)
    return any(text(api, row.layerName) == LAYER for row in rows)


def close_instance() -> None:
    """Closes all devices and the instance, as the interpreter's end would: leaks are reported."""
    from vkconv.device.vulkan import loader

    opened, loader._instance = loader._instance, None
    if opened is not None:
        atexit.unregister(opened.close)
        opened.close()
