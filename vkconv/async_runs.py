"""Runs whose caller does not wait: one thread starts them in order, two at a time.

While the device computes one run, the thread uploads the next one and fetches the outputs of the
one before. A run knows how to start; what that returns knows how to finish:

    start(drain) -> finish          hands the work to the device; ``drain()`` finishes all others
    finish() -> outputs

The thread holds no session while it has nothing to do, so a session that nobody closed can be
collected.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from vkconv.errors import VkconvError
from vkconv.ir import Array

#: runs that the device has at a time: one computes, one is uploaded or fetched
UNDER_WAY = 2

Finish = Callable[[], "list[Array]"]
Start = Callable[[Callable[[], None]], Finish]


@dataclass(frozen=True)
class _Job:
    future: Future[list[Array]]
    start: Start


_Jobs = queue.SimpleQueue["_Job | None"]


class AsyncRuns:
    """The runs of one session, in the order of the calls. Any thread may submit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: _Jobs = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._closed = False

    def submit(self, start: Start) -> Future[list[Array]]:
        """Puts a run behind those that wait already."""
        future: Future[list[Array]] = Future()
        with self._lock:
            if self._closed:
                raise VkconvError("the session is closed; open another InferenceSession")
            if self._thread is None or self._pid != os.getpid():  # a fork leaves threads behind
                self._begin()
            self._jobs.put(_Job(future, start))
        return future

    def close(self) -> None:
        """Cancels what waits and lets what the device has come to its end; no run may follow."""
        with self._lock:
            self._closed = True
            thread = self._thread  # kept: Ctrl-C may end this, and whoever closes next goes on
        if thread is None or self._pid != os.getpid():
            return
        while (job := _waiting(self._jobs)) is not None:
            if job.future.cancel():
                job.future.set_running_or_notify_cancel()  # wakes those who wait for it
        self._jobs.put(None)
        if thread is not threading.current_thread():  # a callback of a future may close the session
            thread.join()

    def _begin(self) -> None:
        jobs: _Jobs = queue.SimpleQueue()
        # a daemon: idle, it must not keep the interpreter alive
        thread = threading.Thread(target=_work, args=(jobs,), name="vkconv runs", daemon=True)
        self._jobs, self._thread, self._pid = jobs, thread, os.getpid()
        weakref.finalize(self, jobs.put, None).atexit = False
        _at_work[thread] = jobs
        # again, so that it comes before what closes the device, which is registered by now
        atexit.unregister(_finish_at_exit)
        atexit.register(_finish_at_exit)
        thread.start()


#: threads and their jobs
_at_work: weakref.WeakKeyDictionary[threading.Thread, _Jobs] = weakref.WeakKeyDictionary()


def _finish_at_exit() -> None:
    """What was asked for is done before the interpreter goes, as with the futures of executors."""
    for thread, jobs in list(_at_work.items()):
        if thread.is_alive():
            jobs.put(None)
            thread.join()


def _waiting(jobs: _Jobs) -> _Job | None:
    try:
        return jobs.get_nowait()
    except queue.Empty:
        return None


def _work(jobs: _Jobs) -> None:
    under_way: deque[tuple[Future[list[Array]], Finish]] = deque()

    def finish_oldest() -> None:
        future, finish = under_way.popleft()
        _settle(future, finish)

    def drain() -> None:
        while under_way:
            finish_oldest()

    while True:
        try:
            job = jobs.get(block=not under_way)
        except queue.Empty:
            finish_oldest()
            continue
        if job is None:
            drain()
            return
        if len(under_way) == UNDER_WAY:
            finish_oldest()
        if job.future.set_running_or_notify_cancel():
            try:
                under_way.append((job.future, job.start(drain)))
            except BaseException as error:
                drain()  # futures end in order
                job.future.set_exception(error)
        del job


def _settle(future: Future[list[Array]], finish: Finish) -> None:
    try:
        outputs = finish()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(outputs)
