"""What a driver's compiler says of pipelines: asked of AMD's, which compiles without its GPU."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tests.device.handmade import load, run_python
from tests.drivers import null_hardware
from vkconv.device import open_compiler
from vkconv.device.vulkan import loader, statistics
from vkconv.device.vulkan.enumerate import probes
from vkconv.errors import DeviceError

ASK = """
import dataclasses, json, os
from tests.device import handmade
from tests.device.handmade import COUNT, HEAD, INDEX, PlanMaker
from vkconv.device.vulkan.statistics import PipelineCompiler
from vkconv.files import cache_folder
from vkconv.shaders import BufferField, ShaderModule

#: an array that is indexed by what was read: no register can hold it
SCRATCH = HEAD + COUNT + '''layout(set = 0, binding = 0) buffer Y { float y[]; };
void main() { ''' + INDEX + '''float a[300];
for (int k = 0; k < 300; ++k) a[int(abs(y[k])) % 300] = y[i + k];
y[i] = a[int(abs(y[i])) % 300]; }'''


def load(kernel, variant):
    if kernel != "scratch":
        return handmade.load(kernel, variant)
    buffers = (BufferField("y", 0, "storage_buffer", 1, True, True),)
    return ShaderModule(
        kernel, variant, handmade.spirv(SCRATCH), buffers, handmade.PUSH, 16, (), ("Shader",)
    )


maker = PlanMaker()
y = maker.storage("y")
for spec in ({"bias": 1.0}, {"bias": 2.0}, {"bias": 1}):
    maker.dispatch("scale", {"x": y, "y": y}, spec=spec)
maker.dispatch("scratch", {"y": y})
with PipelineCompiler("auto", load) as compiler:
    for _ in range(2):
        made = compiler.compile(maker.plan().dispatches)
compiler.close()
assert not cache_folder().exists()
print(json.dumps([dataclasses.asdict(p) for p in made]))
"""


def test_a_pipeline_is_compiled_once_and_tells_its_registers(tmp_path):
    done = run_python(ASK, **null_hardware("raven"), VKCONV_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [(p["kernel"], p["specialization"], p["dispatches"]) for p in found] == [
        ("scale", {"bias": 1.0}, 2),
        ("scale", {"bias": 2.0}, 1),
        ("scratch", {}, 1),
    ]
    for pipeline in found:
        (executable,) = pipeline["executables"]
        assert executable["name"] and executable["subgroup_size"] == 64
        values = {s["name"]: s["value"] for s in executable["statistics"]}
        assert values["VGPRs"] > 0 and values["Code size"] > 0
        assert (values["Scratch size"] > 0) == (pipeline["kernel"] == "scratch")
        assert all(s["description"] for s in executable["statistics"])


def test_a_kernel_beyond_the_device_is_refused():
    code = """
from tests.device.handmade import PlanMaker, load
from vkconv.device.vulkan.statistics import PipelineCompiler
maker = PlanMaker(4)
s = maker.storage("s", 16)
maker.dispatch("texels", {"a": s, "b": s, "c": s, "y": s})
PipelineCompiler("auto", load).compile(maker.plan().dispatches)
"""
    done = run_python(code, **null_hardware("raven") | {"VKCONV_DISABLE": "texel"})
    # the compiler that nobody closed is closed at exit: no crash
    assert done.returncode == 1
    assert "'texels' {} needs 2 storage_texel bindings" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("extensions", "remedy"),
    [((), "no device here has it"), ((statistics.EXTENSION,), "that has it: 1: Card that tells")],
)
def test_a_device_that_cannot_tell_is_named(extensions, remedy, monkeypatch):
    found = probes()[0]
    mute = dataclasses.replace(found, extensions=frozenset())
    card = dataclasses.replace(found.info, index=1, name="Card that tells")
    other = dataclasses.replace(found, info=card, extensions=frozenset(extensions))
    monkeypatch.setattr(statistics, "probes", lambda: [mute, other])
    with pytest.raises(DeviceError, match=f"lacks {statistics.EXTENSION}") as caught:
        statistics.PipelineCompiler(0, load)
    assert found.info.name in str(caught.value) and remedy in str(caught.value)


@pytest.mark.parametrize("choice", ["reference", "kompute", "kompute:1", "auto"])
def test_other_engines_have_no_compiler(choice, monkeypatch):
    monkeypatch.setenv("VKCONV_DEVICE", "Reference")
    with pytest.raises(DeviceError, match=f"compiles nothing .* {statistics.EXTENSION}"):
        open_compiler(choice)


@pytest.mark.parametrize(
    ("structure", "constant"),
    [
        ("VkBufferCopy", None),
        ("VkPhysicalDevice", None),
        ("VkSubmitInfo", "VK_STRUCTURE_TYPE_SUBMIT_INFO"),
        ("VkPhysicalDeviceFeatures2", "VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2"),
        ("VkPipelineInfoKHR", "VK_STRUCTURE_TYPE_PIPELINE_INFO_KHR"),
        ("VkPhysicalDeviceIDProperties", "VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES"),
        ("VkDebugUtilsLabelEXT", "VK_STRUCTURE_TYPE_DEBUG_UTILS_LABEL_EXT"),
    ],
)
def test_the_type_of_a_structure_follows_from_its_name(structure, constant):
    assert loader._structure_type(structure) == constant
    if constant is not None:
        made = loader.load().struct(structure)
        assert made.sType == getattr(loader.load().c, constant)
