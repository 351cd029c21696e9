"""Small devices: every limit is met by another variant, or refused at load with its name; profiles.

``max_...`` are lowered one at a time, some below what Vulkan guarantees, so that each check shows.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.device.handmade import spirv
from tests.shaders.test_modules import FIVE_BUFFERS
from tests.small_models import assert_same, expected, floats, model, node
from vkconv import InferenceSession, shaders
from vkconv.capabilities import DeviceCaps
from vkconv.device import devices
from vkconv.device.vulkan.enumerate import probes
from vkconv.device.vulkan.limits import NAMES
from vkconv.device.vulkan.probe import FEATURES
from vkconv.device.vulkan.profiles import PROFILES
from vkconv.device.vulkan.shared_memory import shared_memory_bytes
from vkconv.errors import DeviceError, VkconvError

NET = model(
    [
        node("Conv", "x w b", "a", pads=[1, 1, 1, 1]),
        node("Relu", "a", "r"),
        node("Conv", "r v", "c"),
        node("GlobalAveragePool", "c", "p"),
        node("Flatten", "p", "f"),
        node("MatMul", "f m", "s"),
        node("Softmax", "s", "y", axis=1),
    ],
    {"x": [2, 3, 21, 17]},
    {"y": None, "a": None},
    {
        "w": floats(32, 3, 3, 3, scale=0.2),
        "b": floats(32),
        "v": floats(24, 32, 1, 1, scale=0.2),
        "m": floats(24, 10),
    },
)
FEEDS = {"x": floats(2, 3, 21, 17)}

#: a value that the net lives with, and one that it cannot, with how the refusal names the limit
MET = {
    "max_texel_buffer_elements": 1,
    "max_storage_buffers": 4,
    "max_storage_texel_buffers": 1,
    "max_uniform_texel_buffers": 1,
    "max_push_constants_size": 128,
    "max_workgroup_count": 32,
    "max_workgroup_size": 16,
    "max_workgroup_invocations": 16,
    "max_shared_memory": 1024,
    "max_storage_buffer_range": 91392,
    "subgroup_size": 1,
    "max_allocation_bytes": 1 << 20,
}
REFUSED = {
    "max_storage_buffers": (1, "maxPerStageDescriptorStorageBuffers is 1"),
    "max_push_constants_size": (16, "maxPushConstantsSize is 16"),
    "max_workgroup_count": (1, "maxComputeWorkGroupCount of 1;"),
    "max_workgroup_size": (4, "maxComputeWorkGroupSize of 4;"),
    "max_workgroup_invocations": (4, "maxComputeWorkGroupInvocations of 4;"),
    "max_shared_memory": (1023, "1024 bytes .*maxComputeSharedMemorySize is 1023"),
    "max_storage_buffer_range": (32768, "maxStorageBufferRange of 32768;"),
    "max_allocation_bytes": (64, r"bytes .* asked for, .*maxMemoryAllocationSize is 64; use"),
}
#: another variant always does without
NEVER_REFUSED = {
    "max_texel_buffer_elements",
    "max_storage_texel_buffers",
    "max_uniform_texel_buffers",
    "subgroup_size",
}


def check_net() -> None:
    with InferenceSession(NET, strict=True) as session:
        session.run(None, {"x": FEEDS["x"] + 1})
        assert_same(session.run(None, FEEDS), expected(NET, FEEDS))


def test_every_limit_is_here():
    assert set(MET) == set(NAMES) == set(REFUSED) | NEVER_REFUSED


@pytest.mark.parametrize("name", MET)
def test_a_limit_is_met_by_another_variant(monkeypatch, name):
    monkeypatch.setenv("VKCONV_LIMITS", f"{name}={MET[name]}")
    check_net()


@pytest.mark.parametrize("name", REFUSED)
def test_a_limit_that_no_variant_meets_is_refused_at_load(monkeypatch, name):
    value, message = REFUSED[name]
    monkeypatch.setenv("VKCONV_LIMITS", f"{name}={value}")
    with pytest.raises(VkconvError, match=message) as caught:
        InferenceSession(NET, strict=name != "max_storage_buffer_range")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_storage_images_choose_another_access(monkeypatch, count):
    monkeypatch.setenv("VKCONV_LIMITS", f"max_storage_texel_buffers={count}")
    with InferenceSession(NET) as session:
        session.run(None, FEEDS)
        (stage,) = session._stages.values()
        for dispatch in stage.plan.dispatches:
            module = shaders.load(dispatch.kernel, dispatch.variant)
            assert sum(b.kind == "storage_texel" for b in module.buffers) <= count


def modules() -> list[shaders.ShaderModule]:
    found = []
    for kernel in shaders.kernels():
        axes = shaders.axes(kernel)
        for values in itertools.product(*axes.values()):
            try:
                found.append(shaders.load(kernel, tuple(sorted(zip(axes, values, strict=True)))))
            except VkconvError:  # not every combination is compiled
                continue
    return found


def test_every_kernel_fits_the_least_that_vulkan_guarantees():
    least = DeviceCaps()
    found = modules()
    assert {m.kernel for m in found} == set(shaders.kernels())
    for module in found:
        kinds = [b.kind for b in module.buffers]
        most = least.max_storage_buffers + bool(FIVE_BUFFERS & set(module.variant))
        assert kinds.count("storage_buffer") <= most, module.kernel
        assert kinds.count("storage_texel") <= least.max_storage_texel_buffers, module.kernel
        assert kinds.count("uniform_texel") <= least.max_uniform_texel_buffers, module.kernel
        assert module.push_size <= least.max_push_constants_size, module.kernel
        assert shared_memory_bytes(module.code) <= least.max_shared_memory, module.kernel


def test_shared_memory_is_counted():
    head = "#version 450\nlayout(local_size_x = 8) in;\nlayout(constant_id = 1) const int N = 6;\n"
    body = "layout(set = 0, binding = 0) buffer Y { float y[]; };\nvoid main() { %s }"
    plain = head + body % "y[0] = 1.0;"
    assert shared_memory_bytes(spirv(plain)) == 0
    struct = head + "struct S { vec3 a; float b[5]; };\nshared S s[7];\nshared int n[N];\n"
    used = (
        struct + body % "s[0].b[1] = 2.0; n[gl_LocalInvocationID.x] = 3; y[0] = s[0].b[1] + n[0];"
    )
    assert shared_memory_bytes(spirv(used)) == 7 * (12 + 20) + 6 * 4


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_takes_away_and_adds_nothing(monkeypatch, name):
    before, profile = probes()[0], PROFILES[name]
    monkeypatch.setenv("VKCONV_PROFILE", name)
    after = probes()[0]
    assert profile.about and profile.disable <= set(FEATURES) and set(profile.limits) <= set(NAMES)
    assert profile.disable <= after.disabled
    assert after.caps.kind == profile.kind and after.info.kind == before.info.kind
    for limit, most in profile.limits.items():
        if limit == "max_allocation_bytes":
            assert after.max_allocation_bytes <= min(most, before.max_allocation_bytes)
            continue
        now, then = np.ravel(getattr(after.caps, limit)), np.ravel(getattr(before.caps, limit))
        assert (now <= most).all() and (now <= then).all()
    check_net()


def test_more_can_be_taken_from_a_profile(monkeypatch):
    monkeypatch.setenv("VKCONV_PROFILE", "mali")
    monkeypatch.setenv("VKCONV_DISABLE", "texel")
    monkeypatch.setenv("VKCONV_LIMITS", "max_workgroup_invocations=99,max_shared_memory=65536")
    found = probes()[0]
    assert {"timestamps", "texel", "uniform_texel"} <= found.disabled
    assert found.caps.max_workgroup_invocations == 99
    assert found.caps.max_shared_memory == PROFILES["mali"].limits["max_shared_memory"]


def test_an_unknown_profile_is_one_line(monkeypatch):
    monkeypatch.setenv("VKCONV_PROFILE", "malli")
    with pytest.raises(DeviceError, match="unknown profile 'malli'; it takes minimum, mali"):
        devices()
