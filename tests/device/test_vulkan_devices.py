"""Which devices there are, which is chosen, what is switched off; missing loaders and drivers."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from tests.device.handmade import LAVAPIPE, SWIFTSHADER, load, run_python
from vkconv.device import devices, open_device
from vkconv.device.vulkan import probe
from vkconv.device.vulkan.device import VulkanDevice
from vkconv.device.vulkan.enumerate import choose, probes
from vkconv.errors import DeviceError, InvalidInputError


def fake(*kinds: str) -> list:
    rows = []
    for index, kind in enumerate(kinds):
        info = dataclasses.replace(
            probes()[0].info, index=index, kind=kind, name=f"Card {index} {kind[0]}X"
        )
        rows.append(SimpleNamespace(info=info))
    return rows


@pytest.mark.parametrize(
    ("choice", "kinds", "index"),
    [
        ("auto", ("cpu", "integrated", "discrete", "virtual"), 2),
        ("auto", ("cpu", "virtual", "integrated"), 2),
        ("auto", ("cpu", "virtual"), 1),
        ("auto", ("cpu",), 0),
        (1, ("discrete", "cpu"), 1),
        ("1", ("discrete", "cpu"), 1),
        ("gpu", ("cpu", "integrated"), 1),
        ("CPU", ("discrete", "cpu"), 1),
        ("integrated", ("discrete", "integrated"), 1),
        ("ix", ("discrete", "integrated"), 1),
        ("card", ("cpu", "discrete"), 1),
    ],
)
def test_choice(choice, kinds, index):
    assert choose(choice, fake(*kinds)).info.index == index


@pytest.mark.parametrize("choice", ["Radeon", 7, -1, "gpu", ""])
def test_an_unknown_device_lists_those_there_are(choice):
    with pytest.raises(DeviceError, match="0: Card 0 cX") as caught:
        choose(choice, fake("cpu"))
    assert "\n" not in str(caught.value)


def test_unknown_names_from_outside(monkeypatch):
    with pytest.raises(DeviceError, match=r"no device called 'nonsense'; there are 0: "):
        open_device("nonsense")
    monkeypatch.setenv("VKCONV_DEVICE", "from the environment")
    with pytest.raises(DeviceError, match="no device called 'from the environment'"):
        open_device("auto")
    monkeypatch.setenv("VKCONV_DEVICE", "reference")
    assert open_device().info.kind == "reference"
    opened = open_device(0)
    assert opened.info.index == 0
    opened.close()


@pytest.mark.parametrize("named", [0, "reference", "kompute"])
def test_what_a_session_says_of_its_device_names_it(named):
    opened = open_device(named)
    info = opened.info
    opened.close()
    again = open_device(info)
    assert again.info == info
    again.close()


def test_what_is_listed_may_be_opened():
    for info in devices():
        opened = open_device(info)
        assert opened.info == info
        opened.close()


@pytest.mark.parametrize(("choice", "kind"), [(None, "NoneType"), (1.0, "float"), ([], "list")])
def test_what_names_no_device_is_refused(choice, kind):
    with pytest.raises(DeviceError, match=f"by name, index or DeviceInfo, not by {kind}"):
        open_device(choice)


def test_listing_says_what_a_device_is():
    for info in devices():
        assert info.name and info.driver and info.memory_bytes > 0
        assert tuple(map(int, info.api_version.split("."))) >= (1, 1, 0)


def test_limits_are_at_least_those_of_vulkan_1_1(device):
    caps = device.caps
    assert caps.max_storage_buffer_range >= 1 << 27 and caps.max_texel_buffer_elements >= 65536
    assert caps.max_push_constants_size >= 128 and caps.max_workgroup_invocations >= 128
    assert caps.max_storage_buffers >= 4 and caps.max_shared_memory >= 16384
    assert not caps.host_only


@pytest.mark.parametrize(
    ("disabled", "expected"),
    [
        ("subgroup", {"subgroup_shuffle": False, "subgroup_size": 1}),
        ("texel", {"storage_texel": False, "uniform_texel": False}),
        ("storage_texel", {"storage_texel": False, "uniform_texel": True}),
        (" uniform_texel , subgroup", {"uniform_texel": False, "subgroup_shuffle": False}),
    ],
)
def test_features_can_be_switched_off(monkeypatch, disabled, expected):
    monkeypatch.setenv("VKCONV_DISABLE", disabled)
    caps = probes()[0].caps
    assert {name: getattr(caps, name) for name in expected} == expected


def test_a_quirk_switches_off_what_a_driver_does_badly(monkeypatch, device):
    vendor = int(device._core.probe.cache_key.split("-")[1], 16)
    rows = (
        probe.Quirk(vendor, device.info.name[:5], "texel", "for this test"),
        probe.Quirk(vendor, "another device", "subgroup", "for this test"),
        probe.Quirk(vendor + 1, "", "subgroup", "for this test"),
    )
    assert all(row.disable in probe.FEATURES and row.reason for row in (*probe.QUIRKS, *rows))
    monkeypatch.setattr(probe, "QUIRKS", rows)
    caps = probes()[0].caps
    assert not caps.storage_texel and not caps.uniform_texel
    assert caps.subgroup_shuffle == device.caps.subgroup_shuffle


def test_a_kernel_beyond_the_device_is_refused(monkeypatch):
    from tests.device.handmade import PlanMaker

    monkeypatch.setenv("VKCONV_DISABLE", "texel")
    opened = VulkanDevice("auto", load)
    maker = PlanMaker(4)
    storage = maker.storage("s", 16)
    maker.dispatch("texels", {"a": storage, "b": storage, "c": storage, "y": storage})
    with pytest.raises(DeviceError, match=r"'texels' .* needs 2 storage_texel bindings"):
        opened.prepare(maker.plan())
    opened.close()


def test_a_typo_in_the_environment(monkeypatch):
    monkeypatch.setenv("VKCONV_DISABLE", "texels")
    with pytest.raises(DeviceError, match="unknown feature 'texels'; it takes subgroup, texel"):
        devices()
    monkeypatch.delenv("VKCONV_DISABLE")
    monkeypatch.setenv("VKCONV_TIMEOUT", "soon")
    with pytest.raises(InvalidInputError, match="VKCONV_TIMEOUT is 'soon'"):
        open_device()


ONE_LINE = """
from vkconv.device import devices, open_device
from vkconv.errors import DeviceError
for attempt in (devices, open_device, lambda: open_device("gpu")):
    try:
        attempt()
        print("opened")
    except DeviceError as error:
        print(error)
open_device("reference").close()
"""


@pytest.mark.parametrize("variable", ["VK_ICD_FILENAMES", "VK_DRIVER_FILES"])
def test_no_driver_is_one_line_with_the_remedy(variable):
    files = {"VK_ICD_FILENAMES": "/nonexistent", variable: "/nonexistent"}
    done = run_python(ONE_LINE, **files)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all("install a Vulkan driver, e.g. mesa-vulkan-drivers" in line for line in lines)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("OSError('Cannot find Vulkan SDK')", "no Vulkan loader"),
        ("ImportError('No module named vulkan')", "pip install vulkan"),
    ],
)
def test_no_loader_is_one_line_with_the_remedy(error, words):
    code = f"""
import importlib
real = importlib.import_module
def failing(name, *rest):
    if name == "vulkan":
        raise {error}
    return real(name, *rest)
importlib.import_module = failing
{ONE_LINE}"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3 and all(words in line for line in lines)


def test_importing_the_package_touches_no_driver():
    code = """
import sys
import vkconv.device
assert "vulkan" not in sys.modules and "platformdirs" not in sys.modules
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr


DRIVER = """
import numpy as np
from tests.device.handmade import PlanMaker, chain, chain_expected, load
from vkconv.device.vulkan import probe
from vkconv.device.vulkan.device import VulkanDevice
probe.QUIRKS = ()  # SwiftShader reads storage texels slowly, but rightly
device = VulkanDevice(0, load)
print(device.info.name)
x = np.random.default_rng(0).standard_normal(3000).astype(np.float32)
executable = device.prepare(chain(40, 3000))
for _ in range(5):
    (y,) = executable.run({"x": x})
    assert np.allclose(y, chain_expected(x, 40), rtol=1e-6)
assert len(executable.profile({"x": x})[1]) == 40
maker = PlanMaker(7)
a, c, y = maker.view("a", (28,)), maker.view("c", (7,)), maker.view("y", (28,))
maker.input("a", a); maker.input("c", c)
maker.dispatch("texels", {"a": a, "b": a, "c": c, "y": y})
maker.output("y", y)
v = x[:28]
(got,) = device.prepare(maker.plan()).run({"a": v, "c": v[:7]})
assert np.allclose(got, 11 * v + 100 * np.repeat(v[:7], 4), rtol=1e-5)
device.close()
"""


@pytest.mark.parametrize("disable", ["", "unified", "unified,timestamps,subgroup"])
@pytest.mark.parametrize(("driver", "name"), [(LAVAPIPE, "llvmpipe"), (SWIFTSHADER, "SwiftShader")])
def test_both_drivers(driver, name, disable):
    done = run_python(DRIVER, VK_ICD_FILENAMES=driver, VKCONV_DISABLE=disable)
    assert done.returncode == 0, done.stderr
    assert name in done.stdout
