"""What ``--validate`` must report, each in a test of its own; run by test_planted_faults.py.

Not collected by itself: the name does not begin with "test".
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest

from tests.device.handmade import ROOT, load
from tests.device.test_validation import MISSING_BARRIER
from tests.small_models import assert_same, expected, floats, model, node
from tests.validation import without_announcement
from vkconv import InferenceSession, plan
from vkconv.device.vulkan.device import VulkanDevice
from vkconv.dispatch import Dispatch

PROTO = model(
    [node("Relu", "x", "a"), node("Softmax", "a", "b"), node("Conv", "b w", "y")],
    {"x": [1, 8, 9, 9]},
    {"y": None},
    {"w": floats(8, 8, 3, 3)},
)


def run() -> None:
    x = {"x": floats(1, 8, 9, 9)}
    with InferenceSession(PROTO) as session:
        assert_same(session.run(None, x), expected(PROTO, x))


def test_sound() -> None:
    run()


def test_missing_barrier(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planner forgets its last barrier; a CPU driver computes the right result all the same."""
    honest = plan.with_barriers

    def forgetful(*given):
        steps = honest(*given)
        last = max(i for i, s in enumerate(steps) if isinstance(s, Dispatch) and s.barrier)
        steps[last] = dataclasses.replace(steps[last], barrier=False)
        return steps

    monkeypatch.setattr(plan, "with_barriers", forgetful)
    run()


def test_child() -> None:
    """A message of another process, which this one started."""
    done = subprocess.run(
        [sys.executable, "-c", MISSING_BARRIER],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
        text=True,
    )
    assert without_announcement(done.stdout) == ""


def test_sound_again() -> None:
    run()


def test_wrong_use() -> None:
    """A buffer of a usage that does not exist, which no driver here minds."""
    device = VulkanDevice("auto", load)
    api = device._core.api
    info = api.struct("VkBufferCreateInfo", size=256, usage=0x40000000)
    out = api.ffi.new("VkBuffer *")
    assert api.lib.vkCreateBuffer(device._core.handle, info, api.ffi.NULL, out) == 0
    api.lib.vkDestroyBuffer(device._core.handle, out[0], api.ffi.NULL)
    device.close()
