"""``run_async``: order, overlap, errors through the future, cancelling, closing, forgetting."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import CancelledError, Future, wait
from typing import Any

import numpy as np
import pytest

from tests.device.handmade import run_python
from tests.small_models import assert_same, expected, floats, model, node
from tests.test_session import DEVICES, detector, feeds
from vkconv import InferenceSession
from vkconv.async_runs import UNDER_WAY, AsyncRuns
from vkconv.device.vulkan.device import VulkanDevice
from vkconv.errors import DeviceError, InvalidInputError, OutOfDeviceMemoryError, VkconvError
from vkconv.lanes import Lanes
from vkconv.stage_cache import PLAN_CACHE_SIZE

#: the shape of the second output depends on data: it is planned in the run
STAGED = model(
    [node("Relu", "x", "a"), node("NonZero", "a", "z"), node("Cast", "z", "y", to=1)],
    {"x": ["n", 5]}, {"a": None, "y": None},
)  # fmt: skip


@DEVICES
def test_results_are_those_of_run(device: str) -> None:
    proto = detector()
    given = [feeds(seed=seed) for seed in range(7)]
    with InferenceSession(proto, device=device) as session:
        futures = [session.run_async(None, f) for f in given]
        for future, f in zip(futures, given, strict=True):
            assert_same(future.result(20), expected(proto, f))
        means, again = session.run_async(["means", "means"], given[0]).result(20)
        means += 1
        assert_same([again], expected(proto, given[0])[1:])


def test_futures_end_in_the_order_of_the_calls() -> None:
    ended: list[int] = []
    with InferenceSession(detector(dynamic=True)) as session:
        futures: list[Future[Any]] = []
        for k in range(20):
            # sizes of very different cost, wrong requests among them
            given = feeds(1, 40, 40) if k % 5 == 0 else feeds(1, 3, 3) if k % 7 else {"z": 1}
            futures.append(session.run_async(None, given))
            futures[-1].add_done_callback(lambda _, k=k: ended.append(k))
        wait(futures, 60)
    assert ended == list(range(20))
    assert sum(f.exception() is not None for f in futures) == 2


@DEVICES
def test_shapes_that_change_and_plans_that_are_dropped(device: str) -> None:
    proto = detector(dynamic=True)
    sizes = [3 + i % (PLAN_CACHE_SIZE + 3) for i in range(2 * PLAN_CACHE_SIZE + 6)]
    with InferenceSession(proto, device=device) as session:
        futures = [session.run_async(["means"], feeds(1, h, 4, seed=h)) for h in sizes]
        for future, h in zip(futures, sizes, strict=True):
            assert_same(future.result(60), session.run(["means"], feeds(1, h, 4, seed=h)))


@DEVICES
def test_a_model_that_is_planned_in_the_run(device: str) -> None:
    with InferenceSession(STAGED, device=device) as session:
        given = [floats(4, 5, seed=s) for s in range(5)]
        futures = [session.run_async(None, {"x": x}) for x in given]
        for future, x in zip(futures, given, strict=True):
            assert_same(future.result(20), expected(STAGED, {"x": x}))


def test_two_runs_are_under_way_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    under_way, most = 0, 0
    start = Lanes.start

    def counted(lanes: Lanes, *arguments: Any) -> Any:
        nonlocal under_way, most
        finish = start(lanes, *arguments)
        under_way += 1
        most = max(most, under_way)

        def counted_finish() -> Any:
            nonlocal under_way
            under_way -= 1
            return finish()

        return counted_finish

    monkeypatch.setattr(Lanes, "start", counted)
    with InferenceSession(detector()) as session:
        alone = session.memory.arena  # Kompute's memory is not one arena, and takes more
        assert alone >= session.memory.arena_lower_bound
        wait([session.run_async(None, feeds()) for _ in range(12)], 20)
        assert most == UNDER_WAY == 2 and under_way == 0
        assert session.memory.arena == 2 * alone


def test_without_memory_for_a_second_lane_runs_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = detector()
    with InferenceSession(proto) as session:

        def refuse(*_: Any) -> None:
            raise OutOfDeviceMemoryError("full", 1)

        monkeypatch.setattr(VulkanDevice, "prepare", refuse)
        futures = [session.run_async(None, feeds(seed=s)) for s in range(5)]
        for seed, future in enumerate(futures):
            assert_same(future.result(20), expected(proto, feeds(seed=seed)))


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        (["nothing"], feeds(), "no output 'nothing'"),
        (None, {}, "is missing"),
        (None, feeds(h=13), "size 13 along axis 2"),
        (None, None, "feeds are a dict"),
    ],
)
def test_errors_are_the_futures(names: Any, given: Any, message: str) -> None:
    with InferenceSession(detector()) as session:
        future = session.run_async(names, given)
        with pytest.raises(InvalidInputError, match=message):
            future.result(20)
        assert session.run_async(["means"], feeds()).result(20)[0].shape == (2, 24, 1, 1)


def test_a_device_that_fails_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VKCONV_DEVICE", raising=False)  # the fences are the default engine's
    with InferenceSession(detector()) as session:
        queue = next(iter(session._stages.values()))._executable._lanes[0].core.queue
        settle = queue.wait
        calls: list[int] = []

        def fail_once(fence: Any) -> None:
            settle(fence)
            calls.append(1)
            if len(calls) == 2:
                raise DeviceError("gone for a moment")

        monkeypatch.setattr(queue, "wait", fail_once)
        futures = [session.run_async(["means"], feeds()) for _ in range(4)]
        wait(futures, 20)
        assert [f.exception() is not None for f in futures] == [False, True, False, False]


def test_a_run_that_waits_can_be_cancelled() -> None:
    runs, release = AsyncRuns(), threading.Event()

    def slow(drain: Any) -> Any:
        release.wait(20)
        return lambda: [np.zeros(1)]

    first = runs.submit(slow)
    second, third = runs.submit(slow), runs.submit(slow)
    assert second.cancel()
    release.set()
    assert third.result(20) and first.result(20)
    with pytest.raises(CancelledError):
        second.result(1)
    assert not first.cancel()
    runs.close()


def test_closing_ends_what_runs_and_cancels_what_waits() -> None:
    runs, begun, release = AsyncRuns(), threading.Event(), threading.Event()

    def slow(drain: Any) -> Any:
        begun.set()
        release.wait(20)
        return lambda: [np.ones(1)]

    first = runs.submit(slow)
    later = [runs.submit(slow) for _ in range(3)]
    begun.wait(20)
    closing = threading.Thread(target=runs.close)
    closing.start()
    done, _ = wait(later, 20)
    assert all(f.cancelled() for f in done) and len(done) == 3 and not first.done()
    release.set()
    closing.join(20)
    assert first.result(0)[0] == 1
    with pytest.raises(VkconvError, match="closed"):
        runs.submit(slow)
    runs.close()


def test_a_session_closed_with_runs_under_way() -> None:
    session = InferenceSession(detector())
    futures = [session.run_async(None, feeds()) for _ in range(30)]
    futures[0].result(20)
    session.close()
    assert all(f.done() for f in futures)
    for future in futures:
        assert future.cancelled() or future.exception() is None
    with pytest.raises(VkconvError, match="closed"):
        session.run_async(None, feeds())


def test_closing_from_a_callback() -> None:
    session = InferenceSession(detector())
    ended = threading.Event()

    def close(_: Any) -> None:
        session.close()
        ended.set()

    futures = [session.run_async(None, feeds()) for _ in range(6)]
    futures[0].add_done_callback(close)
    assert ended.wait(20)
    wait(futures, 20)
    assert all(f.done() for f in futures)
    assert all(f.cancelled() or f.exception() is None or isinstance(f.exception(), VkconvError)
               for f in futures)  # fmt: skip


def test_threads_run_both_ways_at_once() -> None:
    proto = detector(dynamic=True)
    sizes = [3, 4, 5, 6]
    with InferenceSession(proto) as session:
        wanted = {h: session.run(None, feeds(1, h, 5, seed=h)) for h in sizes}
        faults: list[BaseException] = []

        def use(k: int) -> None:
            try:
                for i in range(12):
                    h = sizes[(i + k) % len(sizes)]
                    given = feeds(1, h, 5, seed=h)
                    if k % 2:
                        assert_same(session.run(None, given), wanted[h])
                    else:
                        assert_same(session.run_async(None, given).result(30), wanted[h])
            except BaseException as error:
                faults.append(error)

        threads = [threading.Thread(target=use, args=(k,)) for k in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not faults and not any(t.is_alive() for t in threads)


def test_a_forgotten_session_is_collected_and_its_thread_ends() -> None:
    before = {t.ident for t in threading.enumerate()}
    session = InferenceSession(detector())
    assert session.run_async(["means"], feeds()).result(20)
    gone = weakref.ref(session)
    del session
    for _ in range(100):
        gc.collect()
        started = [t for t in threading.enumerate()
                   if t.name == "vkconv runs" and t.ident not in before]  # fmt: skip
        if gone() is None and not started:
            break
        time.sleep(0.05)
    assert gone() is None and not started


def test_what_was_asked_for_is_done_before_the_interpreter_ends() -> None:
    code = """
from tests.test_session import detector, feeds
from vkconv import InferenceSession
session = InferenceSession(detector())
for k in range(6):
    future = session.run_async(["means"], feeds())
    future.add_done_callback(lambda f, k=k: print(k, f.exception(), flush=True))
"""
    done = run_python(code)
    assert done.returncode == 0 and not done.stderr
    assert done.stdout.split() == [t for k in range(6) for t in (str(k), "None")]


def test_other_threads_run_meanwhile() -> None:
    """``run`` holds the interpreter only between the copies and the wait: with switching by time
    switched off, another thread gets on during most of the runs."""
    code = """
import sys, threading, time
import numpy as np
from tests.small_models import floats, model, node
from vkconv import InferenceSession
nodes = [node("Conv", "x w", "a", pads=[1, 1, 1, 1]), node("Relu", "a", "y")]
proto = model(nodes, {"x": [1, 32, 96, 96]}, {"y": None}, {"w": floats(32, 32, 3, 3)})
session, x = InferenceSession(proto), {"x": floats(1, 32, 96, 96)}
session.run(None, x)
sys.setswitchinterval(1000)
turns, stop = 0, False
def other():
    global turns
    while not stop:
        time.sleep(0.0002)
        turns += 1
thread = threading.Thread(target=other)
thread.start()
before, runs = turns, 0
while runs < 20:
    session.run(None, x)
    runs += 1
print((turns - before) / runs)
stop = True
thread.join()
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) >= 1.0
