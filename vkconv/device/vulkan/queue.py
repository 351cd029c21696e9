"""The device's one queue: submissions, finite waits, and one-off copies."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import Any

from vkconv.device.vulkan.loader import FORKED, Api
from vkconv.errors import DeviceError, DeviceLostError, DeviceTimeoutError, InvalidInputError

#: a wait is cut into slices of this length so that Ctrl-C is answered
SLICE_NS = 250_000_000


def timeout_seconds() -> float:
    """How long one submission may take: VKCONV_TIMEOUT, or 60 s."""
    given = os.environ.get("VKCONV_TIMEOUT", "")
    if not given:
        return 60.0
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < 1e9:
        raise InvalidInputError(f"VKCONV_TIMEOUT is '{given}'; it takes seconds, e.g. 60")
    return seconds


class Fence:
    """A VkFence, and whether a submission that signals it is on its way."""

    def __init__(self, handle: Any, cell: Any) -> None:
        self.handle, self.cell = handle, cell
        self.pending = False


class Queue:
    """Submits from any thread (spec 3.6: a queue is externally synchronized, hence the lock)."""

    def __init__(self, api: Api, device: Any, family: int) -> None:
        self._api, self._device, self.family = api, device, family
        out = api.ffi.new("VkQueue *")
        api.lib.vkGetDeviceQueue(device, family, 0, out)
        self.handle = out[0]
        self.timeout = timeout_seconds()
        self._lock = threading.Lock()
        self._pid = os.getpid()
        #: why the device can no longer be used, or empty
        self.broken = ""

    def check_usable(self) -> None:
        """Raises where the device was lost, hangs, or belongs to the parent process."""
        if os.getpid() != self._pid:
            raise DeviceError(FORKED)
        if self.broken:
            raise DeviceError(self.broken)

    def fence(self) -> Fence:
        """A new unsignalled fence."""
        api = self._api
        cell = api.ffi.new("VkFence[1]")
        info = api.struct("VkFenceCreateInfo")
        api.check(api.lib.vkCreateFence(self._device, info, api.ffi.NULL, cell), "creating a fence")
        return Fence(cell[0], cell)

    def destroy(self, fence: Fence) -> None:
        """Destroys a fence that is not pending."""
        self._api.lib.vkDestroyFence(self._device, fence.handle, self._api.ffi.NULL)

    def run(self, submit: Any, fence: Fence) -> None:
        """Submits one VkSubmitInfo and waits for it."""
        self.submit(submit, fence)
        self.wait(fence)

    def submit(self, submit: Any, fence: Fence) -> None:
        """Submits one VkSubmitInfo; ``fence`` signals its end."""
        lib = self._api.lib
        if fence.pending:  # an earlier wait was interrupted
            self.wait(fence)
        # a fence that stayed signalled would let the wait end before the work
        self._api.check(lib.vkResetFences(self._device, 1, fence.cell), "resetting a fence")
        try:
            fence.pending = True  # before, so that Ctrl-C cannot come between
            with self._lock:
                result = lib.vkQueueSubmit(self.handle, 1, submit, fence.handle)
        except BaseException:  # Ctrl-C, before the driver got the work or after
            self._drain(fence)
            raise
        if result != 0:
            fence.pending = False
            self._failed(result, "submitting work")

    def wait(self, fence: Fence) -> None:
        """Waits for a submitted fence. Raises DeviceTimeoutError after the time allowed."""
        if not self._signals_within(fence, self.timeout):
            self.broken = (
                f"the device did not finish within {self.timeout:g} s and may hang; close the "
                "session and open another, or allow more time with VKCONV_TIMEOUT (seconds)"
            )
            raise DeviceTimeoutError(self.broken)

    def settle(self, fence: Fence) -> bool:
        """Before freeing what a submission uses: waits for it, and says whether it ended."""
        try:
            return not fence.pending or self._signals_within(fence, min(self.timeout, 10.0))
        except DeviceLostError:
            return True  # spec 5.2.3: work on a lost device counts as ended
        except DeviceError:
            return False

    def _drain(self, fence: Fence) -> None:
        """Waits for all that was submitted, ``fence``'s work among it or not.

        A fence signals after everything submitted before (spec 7.3), so one more tells.
        """
        with contextlib.suppress(DeviceError):
            last = self.fence()
            with self._lock:
                result = self._api.lib.vkQueueSubmit(
                    self.handle, 0, self._api.ffi.NULL, last.handle
                )
            last.pending = result == 0
            if result == 0 and self.settle(last):
                fence.pending = False
            if not last.pending:
                self.destroy(last)

    def _signals_within(self, fence: Fence, seconds: float) -> bool:
        lib, timed_out = self._api.lib, self._api.c.VK_TIMEOUT
        left = int(seconds * 1e9)
        end = time.monotonic_ns() + left
        while True:
            result = lib.vkWaitForFences(
                self._device, 1, fence.cell, 1, max(0, min(left, SLICE_NS))
            )
            if result == 0:
                fence.pending = False
                return True
            if result != timed_out:
                # still pending: whoever frees what the work uses asks the driver again
                self._failed(result, "waiting for the device")
            left = end - time.monotonic_ns()
            if left <= 0:
                return False

    def _failed(self, result: int, doing: str) -> None:
        error = self._api.error(result, doing)
        if isinstance(error, DeviceLostError):
            self.broken = str(error)
        raise error
