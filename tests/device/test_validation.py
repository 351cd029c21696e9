"""The engine under Khronos' validation layer with synchronization validation: not one message.

A planted missing barrier shows that the layer watches.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.device.handmade import LAVAPIPE, SWIFTSHADER, run_python
from tests.validation import layer_environment

DONE = "finished without an exception"

EVERYTHING = """
import gc
import numpy as np
from tests.device.handmade import PlanMaker, chain, chain_expected, load
from vkconv.device.vulkan import arena, probe
from vkconv.device.vulkan.device import VulkanDevice
from vkconv.dispatch import HostSlot, Storage

probe.QUIRKS = ()  # so that storage texels are read on SwiftShader too
device = VulkanDevice("auto", load)
x = np.ones(700, np.float32)
weight = Storage(2800, "w", np.arange(700, dtype=np.float32))

def mixed():
    maker = PlanMaker(700)
    a, b, c, d, e, y = (maker.view(name) for name in "abcdey")
    slot = HostSlot("s", (), "int64")
    maker.constants = [weight]
    maker.input("a", a)
    maker.dispatch("scale", {"x": a, "y": b}, scale=2.0)
    maker.dispatch("scale", {"x": a, "y": d}, scale=2.0, barrier=False)
    maker.dispatch("add_reversed", {"a": b, "b": weight, "y": c})
    maker.host(lambda v: (np.sort(v), np.int64(v.size)), [c], [e, slot])
    maker.host(np.negative, [e], [c])
    maker.dispatch("add_reversed", {"a": c, "b": d, "y": y})
    maker.output("y", y)
    maker.output("c", c)
    maker.output("s", slot)
    return maker.plan()

def texels():
    maker = PlanMaker(7)
    a, c, t, y = (maker.view(n, (s,)) for n, s in zip("acty", (28, 7, 28, 28)))
    maker.input("a", a)
    maker.input("c", c)
    maker.dispatch("texels", {"a": a, "b": a, "c": c, "y": t})
    maker.dispatch("texels", {"a": t, "b": a, "c": c, "y": y})
    maker.output("y", y)
    return maker.plan()

first, second, third = (device.prepare(p) for p in (mixed(), mixed(), chain(30, 700)))
fourth = device.prepare(texels()) if device.caps.storage_texel else None
for _ in range(3):
    for executable in (first, second):
        outputs = executable.run({"a": x})
        executable.profile({"a": x})
    arena.poison(third)
    assert np.array_equal(third.run({"x": x})[0], chain_expected(x, 30))
    arena.contents(third)
    assert len(third.profile({"x": x})[1]) == 30
    if fourth is not None:
        fourth.run({"a": x[:28], "c": x[:7]})
first.close()
second.run({"a": x})
del second
gc.collect()
other = VulkanDevice("auto", load)
other.prepare(chain(2)).run({"x": np.ones(1000, np.float32)})
try:
    big = PlanMaker()
    big.arena = 1 << 50
    device.prepare(big.plan())
except Exception as error:
    assert "GiB" in str(error)
device.close()
"""

MISSING_BARRIER = """
import numpy as np
from tests.device.handmade import chain, load
from vkconv.device.vulkan.device import VulkanDevice
device = VulkanDevice("auto", load)
device.prepare(chain(3, 700, barrier=False)).run({"x": np.ones(700, np.float32)})
device.close()
"""

#: an executable that is never closed and a device that is abandoned: what the layer calls a leak
LEAK = """
from tests.device.handmade import chain, load
from vkconv.device.vulkan.device import VulkanDevice
device = VulkanDevice("auto", load)
device.prepare(chain(3, 700))
core = device._core
core.api.lib.vkDestroyDevice(core.handle, core.api.ffi.NULL)
core.system.open.discard(core)
"""


def messages(code: str, driver: str, disable: str = "") -> str:
    """What the layer prints while ``code`` runs to its end."""
    with tempfile.TemporaryDirectory() as folder:
        done = run_python(
            code + f"\nprint({DONE!r})",
            VK_ICD_FILENAMES=driver,
            VKCONV_DISABLE=disable,
            **layer_environment(Path(folder), "stdout"),
        )
    assert DONE in done.stdout, done.stdout + done.stderr
    return "".join(
        line for line in (done.stdout + done.stderr).splitlines(True) if DONE not in line
    )


@pytest.mark.parametrize("disable", ["", "unified", "unified,timestamps", "texel"])
@pytest.mark.parametrize("driver", [LAVAPIPE, SWIFTSHADER])
def test_no_message(driver, disable):
    assert messages(EVERYTHING, driver, disable) == ""


def test_a_missing_barrier_is_reported():
    assert "SYNC-HAZARD-READ-AFTER-WRITE" in messages(MISSING_BARRIER, LAVAPIPE)


@pytest.mark.parametrize("copies", ["copies_before_dispatches", "copies_after_dispatches"])
def test_a_missing_barrier_beside_staging_copies_is_reported(copies):
    """Shows that the two barriers of a staged run are needed, and watched."""
    plant = f"""
from vkconv.device.vulkan.recording import Recorder
Recorder.{copies} = lambda self, copies: self._copy(copies)
"""
    assert "SYNC-HAZARD-READ-AFTER-WRITE" in messages(plant + EVERYTHING, LAVAPIPE, "unified")


def test_a_leak_is_reported():
    assert "VUID-vkDestroyDevice-device" in messages(LEAK, LAVAPIPE)
