"""Convolution: all kernels of the family compute the same, whatever the tile and the access."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vkconv
from tests.harness import Case, assert_close, check_device, random
from tests.ops.test_conv import conv, transposed
from tests.plan.planning import planned
from vkconv.capabilities import DeviceCaps
from vkconv.ops import conv_kernels
from vkconv.ops.conv_problem import SUBGROUP, Choice, Problem

POINTWISE = conv((2, 19, 9, 13), 70, (1, 1))
DIRECT = conv((1, 10, 13, 11), 37, (3, 3), strides=[1, 2], pads=[1, 0, 2, 1], dilations=[2, 1])
SAME = conv((2, 18, 11, 13), 21, (3, 3), pads=[1, 1, 1, 1])
GROUPED_POINTWISE = conv((1, 24, 9, 7), 60, (1, 1), group=3)
GROUPED = conv((1, 24, 9, 7), 48, (3, 3), group=3, pads=[1, 1, 1, 1])
DEPTHWISE = conv((1, 7, 15, 13), 7, (3, 3), group=7, strides=[2, 1], pads=[1, 1, 1, 1])
VOLUME = conv((2, 5, 3, 4, 7), 6, (1, 1, 1))
SOLID = conv((2, 7, 3, 5, 6), 35, (3, 3, 3), strides=[1, 2, 1], pads=[1, 1, 2, 1, 0, 2])
SOLID_GROUPS = conv((1, 16, 3, 5, 5), 24, (2, 3, 3), group=2, dilations=[1, 2, 2], pads=[1] * 6)
CROPPED = conv((2, 19, 9, 13), 38, (1, 1), strides=[2, 3], pads=[-1, 0, 0, -2])
#: three phases along x, whose taps lie 3 apart; two along y, of which one has no tap
GROWN = transposed((2, 7, 5, 6), 35, (2, 4), strides=[2, 3], dilations=[2, 2], pads=[1, -2, 0, 3])
GROWN_GROUPS = transposed((1, 24, 6, 5), 36, (3, 3), group=3, strides=[2, 2], pads=[1] * 4)
SPREAD = transposed((2, 10, 5, 7), 9, (1, 1))
#: what kernels of strips tell apart, with variant and side: taps that share rows, other
#: windows, maps on their side
STRIPS = {
    conv((1, 9, 14, 11), 21, (3, 3), pads=[1, 1, 1, 1]): ("sliding", 0),
    conv((1, 9, 15, 13), 21, (3, 3), strides=[2, 2], dilations=[2, 2], pads=[2] * 4): (
        "sliding",
        0,
    ),
    conv((2, 9, 13, 11), 21, (3, 3), strides=[2, 1], pads=[1, 1, 1, 1]): ("any", 0),
    conv((1, 9, 14, 11), 21, (5, 3), pads=[2, 1, 2, 1]): ("sliding", 0),
    conv((1, 9, 1, 37), 21, (1, 3), pads=[0, 1, 0, 1]): ("sliding", 1),
    conv((1, 9, 3, 20), 10, (3, 3), strides=[1, 2], pads=[1, 1, 1, 1]): ("any", 1),
    conv((1, 9, 4, 6), 10, (3, 2), pads=[0, 1, 0, 0]): ("sliding", 1),
    conv((1, 9, 5, 7), 10, (3, 3), pads=[4, 5, 6, 3]): ("sliding", 0),
}
DEPTHWISE_STRIPS = {
    conv((1, 8, 13, 11), 8, (3, 3), group=8, pads=[1, 1, 1, 1]): ("sliding", 0),
    conv((1, 7, 15, 13), 7, (5, 5), group=7, strides=[2, 2], pads=[2, 2, 2, 2]): ("any", 0),
    conv((2, 5, 2, 9), 5, (2, 3), group=5, dilations=[1, 2], pads=[1, 2, 0, 2]): ("any", 1),
    conv((1, 6, 9, 7), 6, (1, 1), group=6): ("any", 0),
}
FORCED = [
    (POINTWISE, Choice("conv2d_8x4", 8, 4, 8)),
    (POINTWISE, Choice("conv2d_8x4", 4, 4, 64)),
    (POINTWISE, Choice("conv2d_shared", 64, 64, 64)),
    (POINTWISE, Choice("conv2d_shared", 64, 64, 256)),
    (POINTWISE, Choice("conv2d_1x1", 32, 3, 16)),
    (POINTWISE, Choice("conv2d_1x1", 8, 1, 8)),
    (POINTWISE, Choice(SUBGROUP, 32, 25, 8)),
    (POINTWISE, Choice(SUBGROUP, 32, 1, 8)),
    (POINTWISE, Choice(SUBGROUP, 16, 14, 8)),
    (POINTWISE, Choice(SUBGROUP, 8, 12, 8)),
    (GROUPED_POINTWISE, Choice(SUBGROUP, 16, 32, 8)),
    (VOLUME, Choice(SUBGROUP, 8, 36, 8)),
    (DIRECT, Choice("conv2d_8x4", 8, 4, 8)),
    (DIRECT, Choice("conv2d_8x4", 4, 4, 32)),
    (DIRECT, Choice("conv2d_shared", 64, 64, 128)),
    (DIRECT, Choice("conv2d", 32, 2, 16)),
    (DIRECT, Choice("conv2d", 8, 5, 8, shuffle=True)),
    (GROUPED, Choice("conv2d_8x4", 8, 4, 8)),
    (GROUPED, Choice("conv2d_shared", 64, 64, 256)),
    (VOLUME, Choice("conv2d_8x4", 8, 4, 8)),
    (VOLUME, Choice("conv2d_shared", 64, 64, 64)),
    (SAME, Choice("winograd_4x4", 8, 4, 8, multiply="conv2d_8x4")),
    (SAME, Choice("winograd_4x4", 64, 64, 256, multiply="conv2d_shared")),
    (SAME, Choice("winograd_2x2", 4, 4, 32, multiply="conv2d_8x4")),
    (SAME, Choice("winograd_2x2", 64, 64, 64, multiply="conv2d_shared")),
    (SAME, Choice("winograd_2x2", 16, 2, 8, multiply="conv2d_1x1")),
    (SAME, Choice("winograd_2x2", 16, 18, 8, multiply=SUBGROUP)),
    (SAME, Choice("winograd_4x4", 32, 12, 8, multiply=SUBGROUP)),
    (DEPTHWISE, Choice("depthwise_conv2d", 2, 8, 32)),
    (DEPTHWISE, Choice("depthwise_conv2d_4x1", 1, 4, 16)),
    (DEPTHWISE, Choice("grouped_conv", 4, 1, 8)),
    (CROPPED, Choice("conv2d_1x1", 16, 3, 16)),
    (CROPPED, Choice(SUBGROUP, 32, 9, 8)),
    (CROPPED, Choice("conv2d_8x4", 8, 4, 8)),
    (CROPPED, Choice("conv2d_shared", 64, 64, 64)),
    (GROWN, Choice("conv_transpose2d", 4, 2, 32)),
    (GROWN, Choice("conv_transpose2d", 8, 4, 8, shuffle=True)),
    (GROWN, Choice("conv_transpose2d", 16, 8, 8)),
    (GROWN, Choice("conv_transpose2d", 32, 3, 16, shuffle=True)),
    (GROWN, Choice("conv_transpose2d_8x4", 8, 4, 8)),
    (GROWN, Choice("conv_transpose2d_8x4", 4, 4, 64)),
    (GROWN, Choice("conv3d", 8, 4, 8)),
    (GROWN_GROUPS, Choice("conv_transpose2d", 8, 5, 8, shuffle=True)),
    (GROWN_GROUPS, Choice("conv_transpose2d_8x4", 8, 4, 32)),
    (SPREAD, Choice("conv2d_8x4", 8, 4, 8)),
    (SPREAD, Choice("conv2d_shared", 64, 64, 64)),
    (SOLID, Choice("conv3d", 8, 2, 16)),
    (SOLID, Choice("conv3d", 16, 3, 8, shuffle=True)),
    (SOLID, Choice("conv3d", 32, 4, 16, shuffle=True)),
    (SOLID_GROUPS, Choice("conv3d", 8, 4, 8, shuffle=True)),
    *((case, Choice("conv2d_8x4", tile, 4, 8)) for case in STRIPS for tile in (8, 4)),
    *((case, Choice("depthwise_conv2d_4x1", 1, 4, 16)) for case in DEPTHWISE_STRIPS),
]


#: the ways of access that the rules do not reach
ACCESS = [
    (case, choice, disabled)
    for case, choice in FORCED
    for disabled in ("texel", "storage_texel")
    if choice.kernel in ("conv2d_shared", "depthwise_conv2d_4x1")
    or (case is GROWN and choice.output_tile == 16)
    or (SUBGROUP in (choice.kernel, choice.multiply) and choice.output_tile == 16)
] + [
    (case, dataclasses.replace(choice, access=access), "")
    for case, choice in FORCED
    for access in ("ssbo", "weights_texel")
    if choice.kernel in ("conv2d_8x4", "conv_transpose2d_8x4")
]


def on_device(caps: DeviceCaps, choice: Choice) -> Choice:
    """The choice, without shuffles where the device has none or small subgroups."""
    if caps.subgroup_shuffle and caps.subgroup_size == 8:
        return choice
    if SUBGROUP not in (choice.kernel, choice.multiply):
        return dataclasses.replace(choice, shuffle=False)
    kernel, multiply = (
        "conv2d_1x1" if k == SUBGROUP else k for k in (choice.kernel, choice.multiply)
    )
    return dataclasses.replace(choice, kernel=kernel, multiply=multiply, pixels=2)


@pytest.mark.usefixtures("both_results")
@pytest.mark.parametrize(
    ("case", "choice", "disabled"), [(*pair, "") for pair in FORCED] + ACCESS, ids=str
)
def test_every_kernel_and_tile_computes_the_same(
    case: Case, choice: Choice, disabled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VKCONV_DISABLE", ",".join(filter(None, ("plan_cache", disabled))))
    asked: list[Problem] = []

    def select(problem: Problem, caps: DeviceCaps, *_: object) -> Choice:
        asked.append(problem)
        return on_device(caps, choice)

    monkeypatch.setattr(conv_kernels, "select_kernel", select)
    check_device(case)
    assert asked, "the kernel was chosen elsewhere"


@pytest.mark.parametrize(
    ("case", "form"), [*STRIPS.items(), *DEPTHWISE_STRIPS.items(), (POINTWISE, ("one", 0))], ids=str
)
def test_strips_are_told_apart(case: Case, form: tuple[str, int]) -> None:
    plan = planned(case.model(), DeviceCaps(kind="cpu", unrolls_loops=False))
    (found,) = (d for d in plan.dispatches if "TURNED" in d.spec)
    assert (dict(found.variant)["taps"], found.spec["TURNED"]) == form


@pytest.mark.usefixtures("both_results")
def test_a_compiler_that_keeps_loops_gets_fixed_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VKCONV_DISABLE", "plan_cache,unrolling")
    for case in (POINTWISE, DIRECT, SAME, GROUPED, DEPTHWISE, CROPPED, GROWN):
        check_device(case)


@pytest.mark.usefixtures("both_results")
def test_fused_into_the_shared_memory_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Residual, activation and masked channels behind the kernels that only GPUs get."""
    for choice in (Choice("conv2d_shared", 64, 64, 128), Choice("conv2d_8x4", 8, 4, 16)):
        check_epilogue(choice, monkeypatch)


def check_epilogue(choice: Choice, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    x, weight = random(1, 6, 9, 7), random(6, 6, 3, 3, seed=1)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        helper.make_node("Add", ["a", "x"], ["b"]),
        helper.make_node("LeakyRelu", ["b"], ["y"], alpha=0.1),
    ]
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    (expected,) = onnxruntime.InferenceSession(model).run(None, {"x": x})
    monkeypatch.setattr(conv_kernels, "select_kernel", lambda *_: choice)
    with vkconv.InferenceSession(model, strict=True) as session:
        assert len(session.placement) == 3
        (found,) = session.run(None, {"x": x})
    assert_close(np.asarray(found), np.asarray(expected), 54)


WIDER = """
from tests.harness import check_device
from tests.ops import test_conv_kernels as cases

for case in (cases.POINTWISE, cases.GROUPED_POINTWISE, cases.CROPPED, cases.SAME):
    check_device(case)
"""


def test_groups_of_two_times_eight_lanes(tmp_path: Path) -> None:
    """lavapipe with vectors of 512 bits, where the processor has them, in a process and with caches
    of its own: Mesa's cache takes code for vectors of any width for the same."""
    own = {"MESA_SHADER_CACHE_DIR": str(tmp_path), "VKCONV_CACHE_DIR": str(tmp_path)}
    environment = {**os.environ, **own, "LP_NATIVE_VECTOR_WIDTH": "512"}
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", WIDER]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
