"""Names against the shader's interface, limits of the device, and the choice of variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.plan.planning import CPU, planned
from tests.small_models import floats, model, node
from vkconv import shaders
from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import Dispatch, Storage, View
from vkconv.errors import BuildError, UnsupportedModelError
from vkconv.ir import TensorType, Value, constant
from vkconv.ops.lowering import Tensor
from vkconv.plan import ConstantStore
from vkconv.plan.lowering import PlanLowering
from vkconv.shaders import BufferField, PushField, ShaderModule, SpecField

#: tests that look at compiled kernels, not at the stub
REAL_KERNELS = {
    "test_texel_limit_of_a_real_kernel",
    "test_limits_of_a_small_device_hold_for_a_whole_plan",
    "test_the_message_names_node_and_limit",
}
AXES = {"access": ("storage_texel", "uniform_texel", "ssbo")}


def stub(kernel: str, variant: tuple[tuple[str, str], ...]) -> ShaderModule:
    """y = f(x): a vec4 kernel whose x may be a texel buffer."""
    access = dict(variant).get("access", "ssbo")
    kind = "storage_buffer" if access == "ssbo" else access
    return ShaderModule(
        kernel,
        variant,
        b"",
        (
            BufferField("x", 0, kind, 4, True, False),
            BufferField("y", 1, "storage_buffer", 1, False, True),
        ),
        (
            PushField("x_offset", 0, "int", 1),
            PushField("x_batch", 4, "int", 1),
            PushField("size", 8, "int", 4),
        ),
        24,
        (SpecField("local_size_x", 0, "uint", 64), SpecField("activation", 1, "uint", 0)),
        (),
    )


@pytest.fixture(autouse=True)
def _stub_kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.function.__name__ not in REAL_KERNELS:
        monkeypatch.setattr(shaders, "load", stub)
        monkeypatch.setattr(shaders, "axes", lambda kernel: AXES)


def view(elements: int, offset: int = 0, name: str = "s") -> View:
    return View(Storage((elements + offset) * 4, name), (elements,), "float32", "linear", offset)


def lower(
    caps: DeviceCaps = CPU,
    buffers: Mapping[str, View | None] | None = None,
    push: Mapping[str, Any] | None = None,
    spec: Mapping[str, Any] | None = None,
    grid: tuple[int, int, int] = (1, 1, 1),
    **axes: str,
) -> Dispatch:
    lowering = PlanLowering(caps, ConstantStore())
    lowering.node = "the_node"
    given = {"x": view(64), "y": view(64)} if buffers is None else buffers
    return lowering.dispatch(
        "stub", given, push or {"size": (1, 2, 3, 4)}, spec or {}, grid, **axes
    )


# --- names --------------------------------------------------------------------------------------


def test_offsets_and_strides_are_filled_in() -> None:
    storage = Storage(4096, "wide")
    x = View(storage, (2, 4, 2, 2), "float32", "c4", 96, 160)
    made = lower(buffers={"x": x, "y": view(64)})
    # 96 elements are 384 bytes: 256 in the descriptor, 128 in the push constant, which are 8 vec4s
    assert made.buffers["x"].offset == 256 and made.push["x_offset"] == 8
    assert made.push["x_batch"] == 40 and made.node == "the_node"
    assert made.buffers["x"].reads and not made.buffers["x"].writes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"buffers": {"x": view(4)}}, "buffer of shader 'stub' for node 'the_node': y is missing"),
        ({"buffers": {"x": view(4), "y": view(4), "z": view(4)}}, "z is not declared"),
        ({"push": {"sise": 1}}, "push constant.*'stub'.*size is missing, sise is not declared"),
        ({"spec": {"tile": 4}}, "specialization constant.*'stub'.*tile is not declared"),
        ({"buffers": {"x": view(4, 2), "y": view(4)}}, "'x' as vec4.*element 2"),
        ({"buffers": {"x": view(4), "y": view(4, 1)}}, "no push constant 'y_offset'"),
        ({"spec": {"local_size_x": 4096}}, "local_size_x = 4096"),
        ({"spec": {"local_size_x": 2048}}, "local_size_x"),
    ],
)
def test_wrong_names_say_which_shader_and_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        lower(**changes)


def test_an_absent_buffer_is_bound_to_a_dummy() -> None:
    made = lower(buffers={"x": None, "y": view(4)})
    assert made.buffers["x"].storage.is_constant


def test_wrong_layout_of_an_operand() -> None:
    lowering = PlanLowering(CPU, ConstantStore())
    value = Value("v", TensorType("float32", (64,)))
    with pytest.raises(BuildError, match="'v' is linear, wanted c4"):
        lowering.operand(Tensor(value, view(64)), "c4")


def test_constants_are_packed_once_in_each_layout() -> None:
    store = ConstantStore()
    lowering = PlanLowering(CPU, store)
    weights = constant("w", floats(2, 5, 3, 3))
    c4 = lowering.operand(Tensor(weights, None), "c4")
    assert c4.layout == "c4" and c4.batch_stride == 2 * 3 * 3 * 4
    assert lowering.operand(Tensor(weights, None), "c4").storage is c4.storage
    assert lowering.operand(Tensor(weights, None), "linear").storage is not c4.storage


# --- limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_workgroup_counts(axis: int) -> None:
    limits = [65535, 65535, 65535]
    grid = [1, 1, 1]
    limits[axis], grid[axis] = 100, 101
    caps = replace(CPU, max_workgroup_count=tuple(limits))
    with pytest.raises(UnsupportedModelError, match=r"'the_node'.*101.*maxComputeWorkGroupCount"):
        lower(caps, grid=tuple(grid))


def test_workgroup_invocations() -> None:
    caps = replace(CPU, max_workgroup_invocations=128)
    with pytest.raises(BuildError, match="256 invocations"):
        lower(caps, spec={"local_size_x": 256})


def test_storage_buffer_range() -> None:
    caps = replace(CPU, max_storage_buffer_range=1024)
    lower(caps, {"x": view(64), "y": view(256)})
    with pytest.raises(UnsupportedModelError, match=r"'the_node': 'y'.*1028.*StorageBufferRange"):
        lower(caps, {"x": view(64), "y": view(257)})


# --- variants -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caps", "access"),
    [
        (CPU, "storage_texel"),
        (replace(CPU, storage_texel=False), "uniform_texel"),
        (replace(CPU, storage_texel=False, uniform_texel=False), "ssbo"),
        (replace(CPU, kind="discrete"), "ssbo"),
        (replace(CPU, kind="integrated"), "ssbo"),
        (DeviceCaps(), "ssbo"),
    ],
)
def test_capabilities_choose_the_access(caps: DeviceCaps, access: str) -> None:
    assert dict(lower(caps).variant) == {"access": access}


@pytest.mark.parametrize("kind", ["cpu", "integrated"])
def test_a_way_of_access_that_is_asked_for(kind: Any) -> None:
    caps = replace(CPU, kind=kind, max_texel_buffer_elements=65536)
    for texels, access in ((65536, "uniform_texel"), (65537, "ssbo")):
        views = {"x": view(texels * 4), "y": view(4)}
        assert dict(lower(caps, views, access="uniform_texel").variant) == {"access": access}


def test_texel_buffers_have_a_limit() -> None:
    caps = replace(CPU, max_texel_buffer_elements=65536)
    fits = {"x": view(65536 * 4), "y": view(4)}
    assert dict(lower(caps, fits).variant) == {"access": "storage_texel"}
    large = {"x": view(65536 * 4 + 4), "y": view(4)}
    assert dict(lower(caps, large).variant) == {"access": "ssbo"}
    # what is bound starts at an aligned offset, which counts as well
    behind = {"x": view(65536 * 4, 32), "y": view(4)}
    assert dict(lower(caps, behind).variant) == {"access": "ssbo"}
    # the output is no texel buffer
    assert dict(lower(caps, {"x": view(4), "y": view(65536 * 5)}).variant) != {"access": "ssbo"}


@pytest.mark.parametrize(("size", "access"), [(256, "storage_texel"), (257, "ssbo")])
def test_texel_limit_of_a_real_kernel(size: int, access: str) -> None:
    proto = model(
        [node("Conv", "x w", "y")], {"x": [1, 4, size, 256]}, {"y": None}, {"w": floats(4, 4, 1, 1)}
    )
    made = planned(proto, replace(CPU, max_texel_buffer_elements=65536))
    (conv,) = (d for d in made.dispatches if "conv" in d.kernel)
    assert dict(conv.variant)["access"] == access


def test_limits_of_a_small_device_hold_for_a_whole_plan() -> None:
    caps = DeviceCaps()
    nodes = [node("Conv", "x w", "a", pads=[1] * 4), node("MaxPool", "a", "b", kernel_shape=[2, 2]),
             node("Conv", "b v", "c", group=8), node("Sigmoid", "c", "d"),
             node("GlobalAveragePool", "d", "y")]  # fmt: skip
    weights = {"w": floats(8, 3, 3, 3), "v": floats(8, 1, 3, 3)}
    made = planned(model(nodes, {"x": [1, 3, 33, 65]}, {"y": None}, weights), caps)
    for one in made.dispatches:
        module = shaders.load(one.kernel, one.variant)
        assert {b.kind for b in module.buffers} == {"storage_buffer"}
        assert len(module.buffers) <= caps.max_storage_buffers
        assert module.push_size <= caps.max_push_constants_size
        lanes = int(np.prod([one.spec.get(f"local_size_{a}", 1) for a in "xyz"]))
        assert lanes <= caps.max_workgroup_invocations
        assert "GroupNonUniformShuffle" not in module.capabilities


def test_the_message_names_node_and_limit() -> None:
    proto = model(
        [node("Relu", "x", "y", "big")], {"x": [1 << 20]}, {"y": None},
    )  # fmt: skip
    with pytest.raises(UnsupportedModelError, match=r"node 'big'.*maxStorageBufferRange of 65536"):
        planned(proto, replace(CPU, max_storage_buffer_range=65536))
