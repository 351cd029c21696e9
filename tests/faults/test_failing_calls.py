"""Every call to the driver that can fail, failing: a typed error or a right result, nothing leaked,
and the next session works."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from tests.device.handmade import PlanMaker, load
from tests.faults.injection import Driver, Site, driver, from_then_on, only
from tests.small_models import floats, model, node
from vkconv import InferenceSession
from vkconv.device.vulkan import first_dispatch
from vkconv.device.vulkan.device import VulkanDevice
from vkconv.device.vulkan.loader import load as load_api
from vkconv.dispatch import HostSlot, Plan, View
from vkconv.errors import (
    DeviceError,
    DeviceLostError,
    DeviceTimeoutError,
    OutOfDeviceMemoryError,
    VkconvError,
)
from vkconv.ir import Array

c = load_api().c
NO_MEMORY = (c.VK_ERROR_OUT_OF_DEVICE_MEMORY, c.VK_ERROR_OUT_OF_HOST_MEMORY)
#: calls that ask for memory of a known size
SIZED = ("vkCreateBuffer", "vkAllocateMemory", "vkMapMemory", "vkBindBufferMemory")
#: what the cache of compiled pipelines asks of the driver: work goes on without it
SPARED = ("vkCreatePipelineCache", "vkGetPipelineCacheData")

COUNT = 64
X = np.linspace(-1, 1, 4 * COUNT, dtype=np.float32)
FEEDS = {"x": X}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path / "cache"))


def plan() -> Plan:
    """Everything a plan can hold: constants, texel views, a host step between two submissions."""
    maker = PlanMaker(4 * COUNT)
    x, y, z = maker.view("x"), maker.view("y"), maker.view("z")
    weights = maker.constant("weights", np.arange(4 * COUNT, dtype=np.float32))
    slot = HostSlot("slot", (4 * COUNT,), "float32")
    maker.input("x", x)
    buffers = {"a": x, "b": weights, "c": x, "y": y}
    maker.dispatch("texels", buffers, count=COUNT)
    maker.host(lambda a: a + np.float32(1), [y], [z])
    maker.dispatch("scale", {"x": z, "y": y}, scale=2.0)
    maker.dispatch("scale", {"x": y, "y": z}, spec={"bias": 1.5})
    maker.dispatch("scale", {"x": z, "y": x}, spec={"bias": -1.5})
    maker.host(lambda a: -a, [x], [slot])
    maker.output("y", View(x.storage, (4 * COUNT,), "float32", "linear"))
    maker.output("negative", slot)
    return maker.plan()


def expected() -> list[Array]:
    """What the plan computes, by numpy."""
    x = X.reshape(COUNT, 4)
    w = np.arange(4 * COUNT, dtype=np.float32).reshape(COUNT, 4)
    y = x + 10 * w + 100 * X[:COUNT, None]
    y = (y + 1) * 2 + np.float32(0.5)
    return [y.reshape(-1), -y.reshape(-1)]


def on_the_device() -> list[Array]:
    """Opens a device, prepares the plan, runs it twice, profiles it, closes all."""
    device = VulkanDevice("auto", load)
    try:
        executable = device.prepare(plan())
        executable.run(FEEDS)
        outputs, _ = executable.profile(FEEDS)
        np.testing.assert_array_equal(outputs, executable.run(FEEDS))
        return outputs
    finally:
        device.close()


PROTO = model(
    [node("Mul", "x w", "a"), node("Relu", "a", "y")],
    {"x": [4 * COUNT]},
    {"y": None},
    {"w": floats(4 * COUNT)},
).SerializeToString()


def in_a_session() -> list[Array]:
    """Loads a model, runs it, waits for an asynchronous run, closes."""
    with InferenceSession(PROTO) as session:
        first = session.run(None, FEEDS)
        later = [session.run_async(None, FEEDS) for _ in range(3)]
        for future in later:
            np.testing.assert_array_equal(future.result(30), first)
        return first


@dataclass(frozen=True)
class Scenario:
    """What is done while calls fail, with features switched off, and what it computes."""

    act: Callable[[], list[Array]]
    expected: Callable[[], list[Array]]
    disabled: str = ""
    #: whether other devices help to compile, as they do where the driver compiles late
    helpers: bool = False

    def check(self) -> None:
        for found, wanted in zip(self.act(), self.expected(), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-6)


SCENARIOS = {
    "unified memory": Scenario(on_the_device, expected),
    "staging": Scenario(on_the_device, expected, "unified,timestamps"),
    "helpers": Scenario(on_the_device, expected, "unified", helpers=True),
    "session": Scenario(in_a_session, lambda: [np.maximum(X * floats(4 * COUNT), 0)]),
}


@pytest.fixture(params=SCENARIOS)
def scenario(request, monkeypatch) -> Scenario:
    found = SCENARIOS[request.param]
    monkeypatch.setenv("VKCONV_DISABLE", found.disabled)
    if found.helpers:
        monkeypatch.setattr(first_dispatch, "COMPILED", -1.0)
        monkeypatch.setattr(first_dispatch, "usable_cores", lambda: 2)
    return found


def attempt(
    scenario: Scenario, fail: Callable[[Site], int | None], again: bool = True
) -> tuple[BaseException | None, Driver]:
    """Does it under a failing driver; what it raised. Afterwards nothing is alive, and (``again``)
    all works on the same instance."""
    raised: BaseException | None = None
    with driver() as made:
        made.fail = fail
        try:
            scenario.check()
        except (VkconvError, KeyboardInterrupt) as error:
            raised = error.with_traceback(None)
            raised.__context__ = None
        made.fail = lambda site: None
        if isinstance(raised, KeyboardInterrupt) and len(made.live) > 1:
            gc.collect()  # one that came during close: what nobody holds goes on being closed
        kinds = [kind for kind, _ in made.live if kind != "Instance"]
        assert not kinds, f"left behind after {made.failed[:1]} {raised!r}: {kinds}"
        if again:
            scenario.check()
    assert not made.live and not made.misuse, (made.failed[:1], made.misuse)
    return raised, made


def sites_of(scenario: Scenario) -> list[Site]:
    scenario.check()  # the first time the driver compiles, and helpers may join in
    with driver() as made:
        scenario.check()
        found = made.sites
    assert not made.live and not made.misuse, made.misuse
    return found


def test_every_failing_call_is_an_error_or_does_no_harm(scenario):
    """One call fails, once, for every call there is."""
    sites = sites_of(scenario)
    assert len({name for name, _ in sites}) > 20 and len(sites) > 60, sites
    missed = 0
    for k, site in enumerate(sites):
        raised, made = attempt(scenario, only(site, result=NO_MEMORY[k % 2]), k % 5 == 0)
        missed += not made.failed  # asynchronous runs and helpers differ from run to run
        if site[0] in SPARED:
            assert raised is None, site
        else:
            assert isinstance(raised, DeviceError | None), site
        if isinstance(raised, OutOfDeviceMemoryError) and site[0] in SIZED:
            assert raised.requested > 0 and f"{raised.requested} bytes" in str(raised), site
    assert missed <= len(sites) // (2 if scenario.helpers else 10)


def test_memory_that_stays_exhausted(scenario):
    """From one call on no memory is to be had, for every call that takes some."""
    for site in sites_of(scenario):
        if site[0] not in SIZED:
            continue
        raised, made = attempt(scenario, from_then_on(site, NO_MEMORY[0]))
        if made.failed:  # an asynchronous run goes on with the memory that there is
            assert isinstance(raised, OutOfDeviceMemoryError | None), site
            in_the_first_half = site[1] <= 2
            assert raised is not None or not in_the_first_half, site
        if raised is not None:
            assert raised.requested > 0 and f"{raised.requested} bytes" in str(raised), site


@pytest.mark.parametrize("function", ["vkQueueSubmit", "vkWaitForFences"])
def test_the_device_is_lost_at_every_submission_and_wait(scenario, function):
    for site in sites_of(scenario):
        if site[0] != function:
            continue
        raised, made = attempt(scenario, only(site, result=c.VK_ERROR_DEVICE_LOST))
        lost = isinstance(raised, DeviceLostError)
        assert made.failed and (lost or scenario.helpers), site  # a helper's loss concerns nobody


@pytest.mark.parametrize("scenario", ["staging", "session"], indirect=True)
def test_ctrl_c_at_every_call(scenario):
    """KeyboardInterrupt comes out of a call, in the main thread."""
    met = 0
    for k, site in enumerate(sites_of(scenario)):
        raised, _ = attempt(scenario, interrupted(site), k % 5 == 0)
        assert isinstance(raised, KeyboardInterrupt | None)
        met += raised is not None
    assert met > 40


def interrupted(wanted: Site) -> Callable[[Site], int | None]:
    """Ctrl-C is answered in this call, if the main thread makes it."""

    def fail(site: Site) -> int | None:
        if site == wanted and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt(site)
        return None

    return fail


@pytest.mark.parametrize("function", ["vkCreateInstance", "vkEnumeratePhysicalDevices"])
def test_an_instance_that_cannot_be_made(function):
    with driver() as made:
        made.fail = only((function, 1), result=c.VK_ERROR_INITIALIZATION_FAILED)
        with pytest.raises(DeviceError, match="VK_ERROR_INITIALIZATION_FAILED"):
            InferenceSession(PROTO)
        SCENARIOS["session"].check()
    assert not made.live and not made.misuse


def test_a_device_that_never_finishes(monkeypatch):
    """Every wait of the run times out: no wait is without end, and the next session works."""
    monkeypatch.setenv("VKCONV_TIMEOUT", "0.1")
    with driver() as made:
        session = InferenceSession(PROTO)
        made.fail = lambda site: c.VK_TIMEOUT if site[0] == "vkWaitForFences" else None
        began = time.monotonic()
        with pytest.raises(DeviceTimeoutError, match=r"0\.1 s.*VKCONV_TIMEOUT"):
            session.run(None, FEEDS)
        with pytest.raises(DeviceError, match="did not finish"):
            session.run(None, FEEDS)
        session.close()
        assert time.monotonic() - began < 5
        assert {kind for kind, _ in made.live} > {"Device", "Memory"}, "abandoned, not freed"
        made.fail = lambda site: None
        SCENARIOS["session"].check()
    assert not made.misuse


def test_no_driver_is_one_line():
    with driver() as made:
        made.fail = only(("vkCreateInstance", 1), result=c.VK_ERROR_INCOMPATIBLE_DRIVER)
        with pytest.raises(DeviceError, match="install a Vulkan driver"):
            InferenceSession(PROTO)


def test_the_driver_under_test_notices_leaks_and_misuse():
    """The ledger itself: what is not destroyed, is destroyed twice, or outlives its device."""
    with driver() as made:
        device = VulkanDevice("auto", load)
        queue = device._core.queue
        kept, gone = queue.fence(), queue.fence()
        queue.destroy(gone)
        assert ("Fence", kept.handle) in made.live and ("Fence", gone.handle) not in made.live
        device.close()
        assert any("vkDestroyDevice while these are alive: ['Fence']" in m for m in made.misuse)
