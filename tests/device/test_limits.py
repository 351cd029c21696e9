"""VKCONV_LIMITS: a large device imitates a small one, in what it says and in what it computes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.small_models import assert_same, expected, floats, model, node
from vkconv import InferenceSession
from vkconv.capabilities import DeviceCaps
from vkconv.device import devices
from vkconv.device.vulkan.enumerate import probes
from vkconv.device.vulkan.limits import NAMES, given_limits, with_lower_limits
from vkconv.errors import DeviceError, OutOfDeviceMemoryError

#: the least that Vulkan 1.1 guarantees, with the subgroups of a small CPU
SMALLEST = (
    "max_workgroup_size=64,max_workgroup_invocations=128,max_shared_memory=16384,"
    "max_texel_buffer_elements=65536,max_storage_buffers=4,max_storage_texel_buffers=4,"
    "max_storage_buffer_range=134217728,subgroup_size=4"
)


def test_limits_are_lowered_and_never_raised(monkeypatch):
    before = probes()[0]
    monkeypatch.setenv(
        "VKCONV_LIMITS",
        " max_storage_buffer_range = 4096 ,max_workgroup_size=100,,max_push_constants_size=9999",
    )
    caps = probes()[0].caps
    assert caps.max_storage_buffer_range == 4096
    assert caps.max_workgroup_size == tuple(min(n, 100) for n in before.caps.max_workgroup_size)
    assert caps.max_push_constants_size == before.caps.max_push_constants_size
    monkeypatch.setenv("VKCONV_LIMITS", "")
    assert probes()[0].caps == before.caps


def test_every_name_lowers_its_limit(monkeypatch):
    large = DeviceCaps(**{
        name: (64, 64, 64) if "count" in name or name == "max_workgroup_size" else 64
        for name in NAMES if name != "max_allocation_bytes"
    })  # fmt: skip
    assert len(NAMES) == 12
    for name in NAMES:
        monkeypatch.setenv("VKCONV_LIMITS", f"{name}=8")
        changed = with_lower_limits(large, given_limits())
        differing = {n for n in NAMES if getattr(changed, n, None) != getattr(large, n, None)}
        assert differing == {name} - {"max_allocation_bytes"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("max_texels=7", "unknown limit 'max_texels'; it takes max_storage_buffer_range"),
        ("storage_texel=1", "unknown limit 'storage_texel'"),
        ("subgroup_size", "'subgroup_size' is not a limit such as subgroup_size=65536"),
        ("subgroup_size=", "is not a limit"),
        ("max_shared_memory=-1", "'max_shared_memory=-1' is not a limit"),
        ("max_shared_memory=0", "is not a limit"),
        ("max_shared_memory=1e6", "is not a limit"),
        ("max_shared_memory=" + "9" * 30, "is not a limit"),
        ("subgroup_size=6", "a power of two, not 6"),
    ],
)
def test_a_typo_is_one_line(monkeypatch, given, message):
    monkeypatch.setenv("VKCONV_LIMITS", given)
    with pytest.raises(DeviceError, match=message) as caught:
        devices()
    assert "\n" not in str(caught.value)


def test_an_allocation_above_the_limit_is_refused(monkeypatch):
    monkeypatch.setenv("VKCONV_LIMITS", "max_allocation_bytes=65536")
    large = model([node("Relu", "x", "y")], {"x": [1, 8, 64, 64]}, {"y": None})
    with pytest.raises(OutOfDeviceMemoryError, match="maxMemoryAllocationSize") as held:
        InferenceSession(large)
    # the limit by its name, the bytes asked for, and what to do
    message = str(held.value)
    assert "\n" not in message and f"{held.value.requested} bytes" in message
    assert held.value.requested >= 8 * 64 * 64 * 4
    assert (
        "asked for, the device's maxMemoryAllocationSize is 65536; use a smaller input size or "
        "batch, or a device with more memory"
    ) in message
    with InferenceSession(model([node("Relu", "x", "y")], {"x": [9]}, {"y": None})) as session:
        assert session.run(None, {"x": floats(9)})[0].shape == (9,)


@pytest.mark.parametrize("disabled", ["", "texel"])
def test_a_small_net_on_the_smallest_device(monkeypatch, disabled):
    monkeypatch.setenv("VKCONV_LIMITS", SMALLEST)
    monkeypatch.setenv("VKCONV_DISABLE", disabled)
    nodes = [node("Conv", "x w b", "a", pads=[1, 1, 1, 1]), node("Relu", "a", "r"),
             node("Conv", "r v", "c"), node("GlobalAveragePool", "c", "p"),
             node("Flatten", "p", "f"), node("MatMul", "f m", "s"),
             node("Softmax", "s", "y", axis=1)]  # fmt: skip
    constants = {"w": floats(32, 3, 3, 3, scale=0.2), "b": floats(32),
                 "v": floats(24, 32, 1, 1, scale=0.2), "m": floats(24, 10)}  # fmt: skip
    proto = model(nodes, {"x": [2, 3, 21, 17]}, {"y": None, "a": None}, constants)
    x = {"x": floats(2, 3, 21, 17)}
    with InferenceSession(proto, strict=True) as session:
        session.run(None, {"x": x["x"] + 1})
        assert_same(session.run(None, x), expected(proto, x))
        stage = next(iter(session._stages.values()))
        for dispatch in stage.plan.dispatches:
            sizes = [int(dispatch.spec.get(f"local_size_{a}", 1)) for a in "xyz"]
            assert max(sizes) <= 64 and np.prod(sizes) <= 128
