"""SIGINT and SIGTERM while a command runs: raised where it is, so that files and devices are put in
order.

Not in the middle of an import, though: modules there are half made, and some libraries turn what is
raised into an error of their own or pass over it. The import ends first.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Terminated", "raised_signals"]

#: seconds after which a signal that met an import is tried again
_LATER = 0.02


class Terminated(BaseException):
    """SIGTERM came."""


class _Handler:
    """Handles the two signals, and SIGALRM, which brings back the one that waits."""

    def __init__(self) -> None:
        self._waiting = 0
        self.has_raised = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        is_repeated = number == self._waiting  # who asks twice does not want to wait
        if number == _ALARM:
            number = self._waiting
        if _CAN_WAIT and not is_repeated and _is_importing(frame):
            self._waiting = number
            signal.setitimer(signal.ITIMER_REAL, _LATER)
            return
        self.stop_waiting()
        # The next one ends the process at once; raised, it would leave half-way what is put in
        # order now.
        self.has_raised = True
        for one in _DEFAULTS:
            if signal.getsignal(one) is self:
                signal.signal(one, signal.SIG_DFL)
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def stop_waiting(self) -> None:
        """No alarm comes any more; one of the caller's own is left to him."""
        if self._waiting:
            self._waiting = 0
            signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def raised_signals() -> Iterator[None]:
    """Within the block SIGINT raises KeyboardInterrupt and SIGTERM Terminated, once: a second one,
    in the block or after it, ends the process. Signals that the caller handles or ignores himself
    are left to him, and so are all outside the main thread."""
    before = {
        number: signal.getsignal(number)
        for number, default in _DEFAULTS.items()
        if threading.current_thread() is threading.main_thread()
        and signal.getsignal(number) == default
    }
    handler = _Handler()
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        if not handler.has_raised:
            handler.stop_waiting()
            for number, previous in before.items():
                signal.signal(number, previous)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


_CAN_WAIT = hasattr(signal, "setitimer")  # not on Windows
_ALARM = int(signal.SIGALRM) if _CAN_WAIT else -1
_DEFAULTS = {int(signal.SIGINT): signal.default_int_handler, int(signal.SIGTERM): signal.SIG_DFL}
if _CAN_WAIT:
    _DEFAULTS[_ALARM] = signal.SIG_DFL
