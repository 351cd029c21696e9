"""The reference device: host steps only."""

from __future__ import annotations

import numpy as np
import pytest

from tests.device.handmade import PlanMaker, chain, run_python
from vkconv.device import open_device
from vkconv.dispatch import HostSlot
from vkconv.errors import DeviceError, InvalidInputError

X = HostSlot("x", (2, 3), "float32")
Y = HostSlot("y", (2, 3), "float32")
N = HostSlot("n", (), "int64")


def doubling(compute=lambda x, k: (x * k, np.int64(x.size))):
    maker = PlanMaker()
    maker.input("x", X)
    maker.host(compute, [X, np.float32(2.0) * np.ones(1, np.float32)], [Y, N])
    maker.output("y", Y)
    maker.output("n", N)
    return maker


def test_runs_nodes_in_order_and_gives_copies():
    table = np.arange(3)
    maker = doubling()
    maker.output("table", table)
    executable = open_device("reference").prepare(maker.plan())
    x = np.ones((2, 3), np.float32)
    y, n, folded = executable.run({"x": x})
    assert np.array_equal(y, x * 2) and n == 6 and n.dtype == np.int64
    folded[:] = 9
    assert np.array_equal(table, [0, 1, 2])
    outputs, times = executable.profile({"x": x})
    assert np.array_equal(outputs[0], y)
    assert [(t.kernel, t.track) for t in times] == [("Handmade", "host")]


def test_an_identity_does_not_hand_the_feed_back():
    maker = PlanMaker()
    maker.input("x", X)
    maker.host(lambda x: x, [X], [Y])
    maker.output("y", Y)
    x = np.ones((2, 3), np.float32)
    (y,) = open_device("reference").prepare(maker.plan()).run({"x": x})
    assert y is not x and not np.shares_memory(x, y)


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, "'x' is missing"),
        ({"x": np.ones((2, 4), np.float32)}, r"float32\[2, 4\]"),
        ({"x": np.ones((2, 3))}, "float64"),
    ],
)
def test_wrong_feeds(feeds, words):
    executable = open_device("reference").prepare(doubling().plan())
    with pytest.raises(InvalidInputError, match=words):
        executable.run(feeds)


@pytest.mark.parametrize(
    ("compute", "error", "words"),
    [
        (lambda x, k: x, DeviceError, "returned 1 arrays for 2"),
        (
            lambda x, k: (x.astype(np.float64), np.int64(0)),
            DeviceError,
            "float64, planned as float32",
        ),
        (lambda x, k: x[7], InvalidInputError, "failed on the host: IndexError"),
    ],
)
def test_a_faulty_node_is_named(compute, error, words):
    executable = open_device("reference").prepare(doubling(compute).plan())
    with pytest.raises(error, match=f"host_0.*{words}"):
        executable.run({"x": np.ones((2, 3), np.float32)})


def test_refuses_kernels_and_use_after_close():
    device = open_device("reference")
    with pytest.raises(DeviceError, match="scale_0"):
        device.prepare(chain(1))
    executable = device.prepare(doubling().plan())
    executable.close()
    executable.close()
    with pytest.raises(DeviceError, match="closed"):
        executable.run({"x": np.ones((2, 3), np.float32)})
    device.close()
    with pytest.raises(DeviceError, match="closed"):
        device.prepare(doubling().plan())


def test_needs_no_vulkan():
    code = """
import sys
from vkconv.device import open_device
open_device("reference")
assert "vulkan" not in sys.modules
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
