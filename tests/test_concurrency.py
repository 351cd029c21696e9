"""Sessions and threads in every combination: results always right, and a clear word to a fork."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.device.handmade import run_python
from tests.forked import tell
from tests.small_models import expected, floats, model, node
from vkconv import InferenceSession
from vkconv.errors import VkconvError
from vkconv.ir import Array

THREADS = 6
PROTO = model(
    [node("Conv", "x w", "a"), node("Relu", "a", "b"), node("Conv", "b v", "y")],
    {"x": ["n", 3, "h", 8]},
    {"y": None},
    {"w": floats(8, 3, 3, 3), "v": floats(4, 8, 1, 1)},
)
FIXED = model(
    [node("Conv", "x w", "y")], {"x": [1, 3, 8, 8]}, {"y": None}, {"w": floats(5, 3, 3, 3)}
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path / "cache"))


def close(found: Array, wanted: Array) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def together(work: Callable[[int], None], count: int = THREADS) -> None:
    """Calls ``work(k)`` on as many threads at once; raises what one of them raised."""
    barrier = threading.Barrier(count)

    def begin(k: int) -> None:
        barrier.wait(30)
        work(k)

    with ThreadPoolExecutor(count) as threads:
        for done in [threads.submit(begin, k) for k in range(count)]:
            done.result(120)


def test_one_session_used_from_many_threads() -> None:
    """Each with numbers and shapes of its own, so that plans are made while others run."""
    feeds = [{"x": floats(1 + k % 2, 3, 6 + k % 3, 8, seed=k)} for k in range(THREADS)]
    wanted = [expected(PROTO, f)[0] for f in feeds]
    with InferenceSession(PROTO) as session:

        def use(k: int) -> None:
            for turn in range(12):
                if turn % 3 == 2:
                    close(session.run_async(None, feeds[k]).result(60)[0], wanted[k])
                else:
                    close(session.run(None, feeds[k])[0], wanted[k])

        together(use)


def test_several_sessions_on_one_device_take_turns_in_one_thread() -> None:
    models = [PROTO, FIXED, PROTO, FIXED]
    sessions = [InferenceSession(m) for m in models]
    try:
        for turn in range(5):
            for k, (session, proto) in enumerate(zip(sessions, models, strict=True)):
                feeds = {"x": floats(1, 3, 8, 8, seed=10 * turn + k)}
                close(session.run(None, feeds)[0], expected(proto, feeds)[0])
        sessions[1].close()
        feeds = {"x": floats(1, 3, 8, 8)}
        close(sessions[0].run(None, feeds)[0], expected(PROTO, feeds)[0])
        with pytest.raises(VkconvError, match="closed"):
            sessions[1].run(None, feeds)
    finally:
        for session in sessions:
            session.close()


def test_several_threads_each_with_sessions() -> None:
    feeds = [{"x": floats(1, 3, 8, 8, seed=k)} for k in range(THREADS)]
    wanted = [(expected(PROTO, f)[0], expected(FIXED, f)[0]) for f in feeds]

    def use(k: int) -> None:
        for _ in range(3):
            with InferenceSession(PROTO) as one, InferenceSession(FIXED) as other:
                for _ in range(3):
                    close(one.run(None, feeds[k])[0], wanted[k][0])
                    close(other.run(None, feeds[k])[0], wanted[k][1])

    together(use)


def test_closing_while_others_run() -> None:
    """Who comes too late is told; whoever was in, gets a right result."""
    feeds = {"x": floats(1, 3, 8, 8)}
    (wanted,) = expected(FIXED, feeds)
    session = InferenceSession(FIXED)
    done, errors = [0] * THREADS, list[str]()

    def use(k: int) -> None:
        if k == 0:
            while min(done[1:]) < 3:
                os.sched_yield()
            session.close()
            return
        while True:
            try:
                (found,) = session.run(None, feeds)
            except VkconvError as error:
                errors.append(str(error))
                return
            close(found, wanted)
            done[k] += 1

    together(use)
    assert all(n >= 3 for n in done[1:])
    assert len(errors) == THREADS - 1 and all("closed" in error for error in errors)


def in_the_child(connection, session: InferenceSession, feeds: dict[str, Array]) -> None:
    tell(
        connection,
        lambda: session.run(None, feeds),
        lambda: session.run_async(None, feeds).result(30),
        lambda: InferenceSession(FIXED),
        lambda: InferenceSession(FIXED, device="reference").run(None, feeds),
    )


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_after_use_is_told_to_spawn_and_the_parent_goes_on() -> None:
    feeds = {"x": floats(1, 3, 8, 8)}
    (wanted,) = expected(FIXED, feeds)
    with InferenceSession(FIXED) as session:
        session.run_async(None, feeds).result(60)
        ours, theirs = multiprocessing.Pipe()
        child = multiprocessing.get_context("fork").Process(
            target=in_the_child, args=(theirs, session, feeds)
        )
        child.start()
        answers = [ours.recv() if ours.poll(60) else "nothing" for _ in range(4)]
        child.join(60)
        assert child.exitcode == 0
        assert all("'spawn'" in answer for answer in answers[:3]), answers
        assert answers[3] == "worked", "the reference device needs no driver"
        close(session.run(None, feeds)[0], wanted)
        close(session.run_async(None, feeds).result(60)[0], wanted)


def work_of_its_own(seed: int) -> Array:
    feeds = {"x": floats(1, 3, 8, 8, seed=seed)}
    with InferenceSession(FIXED) as session:
        return session.run(None, feeds)[0]


def test_spawned_processes_work_beside_the_parent() -> None:
    with InferenceSession(FIXED) as session:
        feeds = {"x": floats(1, 3, 8, 8)}
        (before,) = session.run(None, feeds)
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            found = pool.map(work_of_its_own, range(3), chunksize=1)
        for seed, y in enumerate(found):
            close(y, expected(FIXED, {"x": floats(1, 3, 8, 8, seed=seed)})[0])
        np.testing.assert_array_equal(session.run(None, feeds)[0], before)


def test_a_soak_in_small() -> None:
    """100 sessions and 2,000 runs: scripts/soak.py, in a process of its own."""
    done = run_python(
        "import runpy, sys\n"
        "sys.argv = ['soak.py', '--sessions', '100', '--runs', '2000']\n"
        "runpy.run_path('scripts/soak.py', run_name='__main__')",
        timeout=300,
        VKCONV_CACHE_DIR=os.environ["VKCONV_CACHE_DIR"],
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "nothing grew" in done.stdout and "runs" in done.stdout
