"""Kompute under the validation layer: submissions are split where the standard asks for it."""

from __future__ import annotations

import pytest

from tests.device.handmade import LAVAPIPE, SWIFTSHADER
from tests.device.test_validation import messages

EVERYTHING = """
import numpy as np
from tests.device.handmade import PlanMaker, chain, chain_expected, load
from vkconv.device.kompute.device import KomputeDevice
from vkconv.dispatch import HostSlot, Storage, View

device = KomputeDevice("kompute", load)
device.tensors._resident = RESIDENT
x = np.ones(700, np.float32)
maker = PlanMaker(700)
a, b, c, d, e, y = (maker.view(name) for name in "abcdey")
weight = maker.constant("w", np.arange(700, dtype=np.float32))
maker.input("a", a)
maker.dispatch("scale", {"x": a, "y": b}, scale=2.0)
maker.dispatch("scale", {"x": a, "y": d}, scale=2.0, barrier=False)
maker.dispatch("add_reversed", {"a": b, "b": weight, "y": c})
maker.host(np.sort, [c], [e])
maker.host(lambda v: v[:300], [e], [View(c.storage, (300,), "float32", "linear", 100)])
maker.dispatch("add_reversed", {"a": c, "b": d, "y": y})
maker.dispatch("scale", {"x": y, "y": y})
maker.output("y", y)
maker.output("c", c)
mixed, line = device.prepare(maker.plan()), device.prepare(chain(30, 700))
for _ in range(3):
    mixed.run({"a": x})
    mixed.profile({"a": x})
    assert np.array_equal(line.run({"x": x})[0], chain_expected(x, 30))
mixed.close()
line.run({"x": x})
device.close()
"""

TOGETHER = """
import vkconv.device.kompute.executable as executable
executable.in_submissions = lambda dispatches: [dispatches]
"""


@pytest.mark.parametrize("resident", ["host", "device"])
@pytest.mark.parametrize("driver", [LAVAPIPE, SWIFTSHADER])
def test_no_message(driver, resident):
    assert messages(EVERYTHING.replace("RESIDENT", repr(resident)), driver) == ""


def test_dependent_dispatches_in_one_submission_are_reported():
    """Shows that the layer watches kp's device, and that the split is needed."""
    code = TOGETHER + EVERYTHING.replace("RESIDENT", "'host'").replace("assert ", "")
    assert "SYNC-HAZARD" in messages(code, LAVAPIPE)
