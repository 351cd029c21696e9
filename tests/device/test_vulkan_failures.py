"""Lost, hung, closed and forked devices; after each the process can open another."""

from __future__ import annotations

import multiprocessing
import time

import numpy as np
import pytest

from tests.device.handmade import PlanMaker, chain, chain_expected, load, run_python
from tests.forked import tell
from vkconv.device.vulkan.device import VulkanDevice
from vkconv.errors import DeviceError, DeviceLostError, DeviceTimeoutError


def works() -> None:
    device = VulkanDevice("auto", load)
    x = np.ones(10, np.float32)
    (y,) = device.prepare(chain(3, 10)).run({"x": x})
    assert np.array_equal(y, chain_expected(x, 3))
    device.close()


def slow_plan(rounds: int):
    maker = PlanMaker(8192)
    x, y = maker.view("x"), maker.view("y")
    maker.input("x", x)
    maker.dispatch("slow", {"x": x, "y": y}, pad=(rounds, 0))
    maker.output("y", y)
    return maker.plan()


class Failing:
    """A driver in which one function returns an error."""

    def __init__(self, lib, name: str, result: int) -> None:
        self._lib, self._name, self._result = lib, name, result

    def __getattr__(self, name: str):
        if name == self._name:
            return lambda *_: self._result
        return getattr(self._lib, name)


@pytest.mark.parametrize("function", ["vkQueueSubmit", "vkWaitForFences"])
def test_a_lost_device(monkeypatch, function):
    device = VulkanDevice("auto", load)
    executable = device.prepare(chain(3, 10))
    other = device.prepare(chain(2, 10))
    feeds = {"x": np.ones(10, np.float32)}
    executable.run(feeds)
    api = device._core.api
    with monkeypatch.context() as patch:
        patch.setattr(api, "lib", Failing(api.lib, function, api.c.VK_ERROR_DEVICE_LOST))
        with pytest.raises(DeviceLostError, match="open another"):
            executable.run(feeds)
    for attempt in (
        lambda: executable.run(feeds),
        lambda: other.run(feeds),
        lambda: device.prepare(chain(1)),
    ):
        with pytest.raises(DeviceError, match="was lost"):
            attempt()
    executable.close()
    device.close()
    device.close()
    works()


def test_a_device_that_does_not_finish(monkeypatch):
    monkeypatch.setenv("VKCONV_TIMEOUT", "0.05")
    device = VulkanDevice("auto", load)
    executable = device.prepare(slow_plan(200_000))
    feeds = {"x": np.ones(8192, np.float32)}
    with pytest.raises(DeviceTimeoutError, match=r"0\.05 s.*VKCONV_TIMEOUT"):
        executable.run(feeds)
    with pytest.raises(DeviceError, match="did not finish"):
        executable.run(feeds)
    works_elsewhere = VulkanDevice("auto", load)  # while the first one still computes
    works_elsewhere.close()
    device.close()
    monkeypatch.delenv("VKCONV_TIMEOUT")
    works()


@pytest.mark.parametrize("ending", ["", "device.close(); device.close()", "del executable, device"])
def test_a_hung_device_is_abandoned_at_exit(ending):
    """The work outlives every wait; the interpreter must end all the same."""
    code = f"""
import numpy as np, time
from tests.device.test_vulkan_failures import slow_plan
from tests.device.handmade import load
from vkconv.device.vulkan.device import VulkanDevice
from vkconv.errors import DeviceTimeoutError
device = VulkanDevice("auto", load)
executable = device.prepare(slow_plan(3_000_000))
try:
    executable.run({{"x": np.ones(8192, np.float32)}})
except DeviceTimeoutError as error:
    print("timeout")
{ending}
"""
    done = run_python(code, VKCONV_TIMEOUT="0.05")
    assert done.returncode == 0 and "timeout" in done.stdout and not done.stderr, done.stderr


def test_closing_is_idempotent_and_ends_use(device):
    executable = device.prepare(chain(3, 10))
    feeds = {"x": np.ones(10, np.float32)}
    executable.close()
    executable.close()
    with pytest.raises(DeviceError, match="closed"):
        executable.run(feeds)
    second = device.prepare(chain(3, 10))
    device.close()
    device.close()
    with pytest.raises(DeviceError, match="closed"):
        second.run(feeds)
    with pytest.raises(DeviceError, match="closed"):
        second.profile(feeds)
    with pytest.raises(DeviceError, match="closed"):
        device.prepare(chain(1))
    second.close()
    works()


def test_ctrl_c_during_a_wait_leaves_the_session_usable(device, monkeypatch):
    executable = device.prepare(slow_plan(20_000))
    feeds = {"x": np.ones(8192, np.float32)}
    expected = executable.run(feeds)[0]
    api = device._core.api

    class Interrupted(Failing):
        def __getattr__(self, name: str):
            if name == "vkWaitForFences":
                raise KeyboardInterrupt
            return getattr(self._lib, name)

    with monkeypatch.context() as patch:
        patch.setattr(api, "lib", Interrupted(api.lib, "", 0))
        with pytest.raises(KeyboardInterrupt):
            executable.run(feeds)
    assert np.array_equal(executable.run(feeds)[0], expected)


def child(connection, executable, feeds) -> None:
    tell(
        connection,
        lambda: executable.run(feeds),
        lambda: VulkanDevice("auto", load),
        executable.close,
    )


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_to_spawn(device):
    executable = device.prepare(chain(3, 10))
    feeds = {"x": np.ones(10, np.float32)}
    executable.run(feeds)
    ours, theirs = multiprocessing.Pipe()
    worker = multiprocessing.get_context("fork").Process(
        target=child, args=(theirs, executable, feeds)
    )
    worker.start()
    assert ours.poll(30)
    for _ in range(3):
        assert "'spawn'" in ours.recv()
    worker.join(30)
    assert worker.exitcode == 0
    executable.run(feeds)


def test_a_forked_child_exits_quietly():
    code = """
import ctypes, os, warnings, numpy as np
from tests.device.handmade import chain, load
from vkconv.device.vulkan.device import VulkanDevice
device = VulkanDevice("auto", load)
executable = device.prepare(chain(3, 10))
executable.run({"x": np.ones(10, np.float32)})
# Python from 3.12 on warns of fork where there are threads, here the driver's
warnings.simplefilter("ignore", DeprecationWarning)
pid = os.fork()
if pid:
    _, status = os.waitpid(pid, 0)
    print("status", status)
else:
    # behind Python's own end, and before the exit handlers that a driver set: Mesa 26's wait for
    # threads that only the parent has
    libc = ctypes.CDLL(None)
    libc.on_exit(libc._exit, None)
"""
    done = run_python(code)
    assert "status 0" in done.stdout and not done.stderr, done.stderr


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "del device",
        "import gc; keep = executable; del device, executable; gc.collect()",
        "del executable, device; import gc; gc.collect(); device = VulkanDevice('auto', load)",
        "raise SystemExit(0)",
        "import threading; threading.Thread(target=loop, daemon=True).start(); time.sleep(0.1)",
    ],
)
def test_the_interpreter_ends_in_any_order(ending):
    code = f"""
import numpy as np, time
from tests.device.handmade import chain, load
from vkconv.device.vulkan.device import VulkanDevice
from vkconv.errors import DeviceError
device = VulkanDevice("auto", load)
executable = device.prepare(chain(3, 10))
feeds = {{"x": np.ones(10, np.float32)}}
executable.run(feeds)
def loop():
    try:
        while True:
            executable.run(feeds)
    except DeviceError:
        return
{ending}
"""
    done = run_python(code, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_a_device_nobody_holds_is_freed():
    import gc

    from vkconv.device.vulkan.loader import instance

    before = len(instance().open)
    device = VulkanDevice("auto", load)
    executable = device.prepare(chain(3, 10))
    assert len(instance().open) == before + 1
    del device
    gc.collect()
    assert np.all(executable.run({"x": np.ones(10, "f")})[0] == chain_expected(np.float32(1), 3))
    del executable
    gc.collect()
    assert len(instance().open) == before


def test_a_run_waits_its_turn_and_lets_other_threads_compute(device):
    """The interpreter lock is released during the wait."""
    import threading

    executable = device.prepare(slow_plan(60_000))
    feeds = {"x": np.ones(8192, np.float32)}
    executable.run(feeds)
    ticks = 0
    thread = threading.Thread(target=executable.run, args=(feeds,))
    start = time.perf_counter()
    thread.start()
    while thread.is_alive():
        ticks += 1
        time.sleep(0.001)
    assert time.perf_counter() - start > 0.02 and ticks > 5
