"""Which convolution kernel for which shape on which device: the rules, the candidates for tuning,
and that every candidate computes the same."""

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
from vkconv.capabilities import DeviceCaps
from vkconv.ops import conv_kernels
from vkconv.ops.conv_geometry import conv_axes, transpose_axes
from vkconv.ops.conv_problem import SUBGROUP, Choice, Problem, parts
from vkconv.ops.conv_selection import candidates, select_kernel
from vkconv.ops.window import Axis

LAVAPIPE = DeviceCaps(
    kind="cpu",
    subgroup_size=8,
    subgroup_shuffle=True,
    max_workgroup_invocations=1024,
    max_workgroup_size=(1024, 1024, 1024),
    max_shared_memory=32768,
)
#: lavapipe with vectors of 512 bits
WIDE = dataclasses.replace(LAVAPIPE, subgroup_size=16)
NO_SHUFFLE = dataclasses.replace(LAVAPIPE, subgroup_size=1, subgroup_shuffle=False)
SWIFTSHADER = DeviceCaps(
    kind="cpu",
    subgroup_size=4,
    subgroup_shuffle=True,
    max_workgroup_invocations=256,
    unrolls_loops=False,
)
MOBILE = DeviceCaps(kind="integrated", subgroup_size=16, subgroup_shuffle=True)
DESKTOP = dataclasses.replace(LAVAPIPE, kind="discrete", subgroup_size=32)
DEVICES = {"lavapipe": LAVAPIPE, "swiftshader": SWIFTSHADER, "mobile": MOBILE, "desktop": DESKTOP}


def axis(size: int, kernel: int, stride: int = 1, pad: int = 0) -> Axis:
    return conv_axes([size], [kernel], [stride], [pad, pad], None, "NOTSET")[0]


def square(
    channels: int,
    outputs: int,
    size: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    transposed: bool = False,
) -> Problem:
    """A convolution padded to keep the size (at stride 1) of a square map."""
    side = axis(size, kernel, stride, kernel // 2)
    return Problem(1, groups, channels, outputs, side, side, transposed)


def volume(channels: int, outputs: int, size: int, kernel: int) -> Problem:
    side = axis(size, kernel)
    return Problem(1, 1, channels, outputs, side, side, False, side)


def grown(channels: int, outputs: int, size: int, kernel: int, stride: int) -> Problem:
    """A transposed convolution of a square map, without padding."""
    side = transpose_axes([size], [kernel], [stride], None, None, "NOTSET", None, None)[0]
    return Problem(1, 1, channels, outputs, side, side, transposed=True)


RULES = [
    (square(64, 64, 80, 1), LAVAPIPE, "conv2d_1x1_subgroup 32x25 lanes=8"),
    # other numbers of pixels only where lanes would be idle
    (square(512, 512, 8, 1), LAVAPIPE, "conv2d_1x1_subgroup 32x32 lanes=8"),
    (square(512, 512, 14, 1), LAVAPIPE, "conv2d_1x1_subgroup 32x28 lanes=8"),
    (square(512, 512, 4, 1), LAVAPIPE, "conv2d_1x1_subgroup 32x16 lanes=8"),
    # or where there is much to do: 4 % fewer loads, for a pipeline more
    (square(64, 64, 320, 1), LAVAPIPE, "conv2d_1x1_subgroup 32x32 lanes=8"),
    (square(256, 256, 80, 3), LAVAPIPE, "winograd_4x4(conv2d_1x1_subgroup) 32x25 lanes=8"),
    (square(256, 256, 160, 3), LAVAPIPE, "winograd_4x4(conv2d_1x1_subgroup) 32x32 lanes=8"),
    # narrower tiles leave lanes for twice and four times as many pixels
    (square(64, 48, 7, 1), LAVAPIPE, "conv2d_1x1_subgroup 16x50 lanes=8"),
    (square(64, 8, 80, 1), LAVAPIPE, "conv2d_1x1_subgroup 8x100 lanes=8"),
    (square(64, 3, 80, 1), LAVAPIPE, "conv2d_1x1 4x8 lanes=8"),
    (square(64, 64, 80, 1), WIDE, "conv2d_1x1_subgroup 16x50 lanes=16"),
    (square(512, 512, 1, 1), LAVAPIPE, "conv2d_1x1_subgroup 32x1 lanes=8"),
    (square(64, 64, 80, 1), NO_SHUFFLE, "conv2d_1x1 16x8 lanes=8"),
    (square(64, 64, 80, 1), SWIFTSHADER, "conv2d_8x4 8x4 lanes=8"),
    (square(64, 64, 80, 1), MOBILE, "conv2d_8x4 8x4 lanes=64"),
    (square(64, 64, 80, 1), DESKTOP, "conv2d_shared 64x64 lanes=256"),
    # strided 1x1: the same kernel, which leaves out pixels; padded ones are the direct kernel's
    (square(64, 64, 80, 1, 2), LAVAPIPE, "conv2d_1x1_subgroup 32x25 lanes=8"),
    (square(64, 64, 80, 1, 2), SWIFTSHADER, "conv2d_8x4 8x4 lanes=8"),
    (square(512, 512, 14, 1, 2), MOBILE, "conv2d_1x1 4x2 lanes=64"),
    (
        dataclasses.replace(square(64, 64, 80, 1, 2), x=axis(80, 1, 2, 1)),
        LAVAPIPE,
        "conv2d 32x4 lanes=8 shuffle",
    ),
    (
        dataclasses.replace(square(64, 64, 80, 1), x=axis(80, 1, 1, -5)),
        LAVAPIPE,
        "conv2d_1x1_subgroup 32x25 lanes=8",
    ),
    (square(64, 64, 80, 3, 2), LAVAPIPE, "conv2d 16x5 lanes=8 shuffle"),
    (square(64, 64, 80, 3, 2), DESKTOP, "conv2d_shared 64x64 lanes=256"),
    (square(64, 8, 80, 3), MOBILE, "conv2d_8x4 4x4 lanes=64"),
    # long code: stems and windows of many columns
    (square(3, 32, 320, 3, 2), LAVAPIPE, "conv2d 16x5 lanes=32 shuffle"),
    (square(3, 64, 224, 7, 2), LAVAPIPE, "conv2d 8x7 lanes=32 shuffle"),
    (square(64, 64, 56, 5), LAVAPIPE, "conv2d 8x7 lanes=8 shuffle"),
    (grown(64, 64, 8, 5, 2), LAVAPIPE, "conv_transpose2d 32x4 lanes=8 shuffle"),
    (square(3, 32, 320, 3, 2), DESKTOP, "conv2d_8x4 8x4 lanes=64"),
    (square(64, 99, 80, 3), LAVAPIPE, "winograd_4x4(conv2d_1x1_subgroup) 16x50 lanes=8"),
    (square(64, 64, 80, 3), SWIFTSHADER, "conv2d_8x4 8x4 lanes=8"),
    (square(256, 256, 10, 3), LAVAPIPE, "winograd_2x2(conv2d_1x1_subgroup) 32x25 lanes=8"),
    # 64 channels of 1280 x 1280: the transformed input would be 943 MB, over the 128 MiB limit
    (square(64, 99, 1280, 3), LAVAPIPE, "conv2d 16x5 lanes=8 shuffle"),
    (square(64, 3, 80, 3), LAVAPIPE, "conv2d 4x8 lanes=8"),
    (square(1, 1, 80, 3, groups=64), LAVAPIPE, "depthwise_conv2d 2x4 lanes=32"),
    # small maps: no lane without work where that can be had
    (square(1, 1, 7, 3, groups=960), LAVAPIPE, "depthwise_conv2d 2x4 lanes=8"),
    (square(1, 1, 14, 3, groups=384), LAVAPIPE, "depthwise_conv2d 2x4 lanes=32"),
    (square(1, 1, 14, 3, 2, groups=576), LAVAPIPE, "depthwise_conv2d 2x4 lanes=8"),
    (square(1, 1, 20, 11, groups=64), LAVAPIPE, "depthwise_conv2d 1x1 lanes=32"),
    # nor a window of any size written out, though it be of one tap
    (square(1, 1, 20, 1, 2**31 - 1, groups=64), LAVAPIPE, "depthwise_conv2d_4x1 1x4 lanes=8"),
    # few channels: the transforms of Winograd's form cost more than it saves
    (square(16, 32, 24, 3), LAVAPIPE, "conv2d 16x5 lanes=8 shuffle"),
    (square(32, 32, 20, 3), LAVAPIPE, "conv2d 16x5 lanes=8 shuffle"),
    (square(16, 16, 160, 3), LAVAPIPE, "conv2d 16x5 lanes=8 shuffle"),
    (square(32, 32, 40, 3), LAVAPIPE, "conv2d 16x5 lanes=8 shuffle"),
    (square(32, 32, 80, 3), LAVAPIPE, "winograd_4x4(conv2d_1x1_subgroup) 32x25 lanes=8"),
    (square(64, 64, 14, 3), LAVAPIPE, "conv2d 16x5 lanes=8 shuffle"),
    (square(128, 128, 14, 3), LAVAPIPE, "winograd_4x4(conv2d_1x1_subgroup) 32x16 lanes=8"),
    (square(64, 64, 10, 3), LAVAPIPE, "conv2d 16x5 lanes=8 shuffle"),
    # F(4x4, 3x3) would have four patches, and 37 MB of weights to read
    (square(512, 512, 7, 3), LAVAPIPE, "winograd_2x2(conv2d_1x1_subgroup) 32x16 lanes=8"),
    # where weights are not shuffled products take longer, and the transforms less beside them
    (square(32, 32, 40, 3), NO_SHUFFLE, "winograd_4x4(conv2d_1x1) 16x5 lanes=8"),
    (square(256, 256, 7, 3), NO_SHUFFLE, "conv2d 16x8 lanes=8"),
    (square(1, 1, 80, 3, groups=64), MOBILE, "depthwise_conv2d_4x1 1x4 lanes=64"),
    (square(1, 1, 80, 3, groups=64), SWIFTSHADER, "depthwise_conv2d_4x1 1x4 lanes=8"),
    (square(1, 2, 80, 3, groups=64), LAVAPIPE, "grouped_conv 4x1 lanes=32"),
    (square(32, 32, 80, 3, groups=2), MOBILE, "conv2d_8x4 8x4 lanes=64"),
    (grown(32, 32, 8, 2, 2), LAVAPIPE, "conv_transpose2d 32x4 lanes=8 shuffle"),
    (grown(64, 48, 6, 2, 2), LAVAPIPE, "conv_transpose2d 16x3 lanes=8 shuffle"),
    (grown(32, 32, 8, 2, 2), NO_SHUFFLE, "conv_transpose2d 16x8 lanes=8"),
    (grown(32, 32, 8, 2, 2), SWIFTSHADER, "conv_transpose2d_8x4 8x4 lanes=8"),
    (grown(32, 32, 80, 4, 2), MOBILE, "conv_transpose2d_8x4 8x4 lanes=64"),
    (grown(512, 64, 8, 2, 2), MOBILE, "conv_transpose2d 4x2 lanes=64"),
    (grown(64, 64, 80, 4, 2), DESKTOP, "conv_transpose2d_8x4 8x4 lanes=64"),
    (volume(64, 64, 10, 3), LAVAPIPE, "conv3d 32x4 lanes=8 shuffle"),
    (volume(64, 48, 10, 3), LAVAPIPE, "conv3d 16x4 lanes=8 shuffle"),
    (volume(64, 64, 10, 3), NO_SHUFFLE, "conv3d 8x4 lanes=8"),
    (volume(64, 64, 10, 3), SWIFTSHADER, "conv3d 8x4 lanes=8"),
    (volume(64, 64, 10, 3), MOBILE, "conv3d 8x4 lanes=64"),
    # a workgroup for each of 33 x 33 phases would have next to nothing to do
    (grown(4, 8, 3, 33, 33), LAVAPIPE, "conv3d 8x4 lanes=8"),
    # of stride 1 and one tap it is a plain one
    (grown(64, 64, 80, 1, 1), LAVAPIPE, "conv2d_1x1_subgroup 32x25 lanes=8"),
    (grown(64, 64, 80, 1, 1), DESKTOP, "conv2d_shared 64x64 lanes=256"),
    # small maps: tiles shrink until there are enough invocations for the device
    (square(512, 512, 7, 1), MOBILE, "conv2d_1x1 4x2 lanes=64"),
    (square(512, 512, 10, 3), MOBILE, "conv2d_8x4 4x4 lanes=64"),
    (square(512, 512, 7, 1), DESKTOP, "conv2d_1x1 4x1 lanes=64"),
]


@pytest.mark.parametrize(
    ("problem", "caps", "text"), RULES, ids=lambda x: x if isinstance(x, str) else ""
)
def test_rules(problem: Problem, caps: DeviceCaps, text: str) -> None:
    assert str(select_kernel(problem, caps)) == text


PROBLEMS = [
    *(problem for problem, _, _ in RULES),
    dataclasses.replace(square(16, 16, 24, 3), constant=False),
    dataclasses.replace(square(16, 16, 24, 3), z=axis(5, 3, 1, 1)),
    dataclasses.replace(square(16, 16, 24, 3), batch=7),
]


@pytest.mark.parametrize("device", DEVICES)
def test_candidates_start_with_the_rule_and_stay_within_limits(device: str) -> None:
    caps = DEVICES[device]
    for problem in PROBLEMS:
        found = candidates(problem, caps)
        assert found[0] == select_kernel(problem, caps)
        assert len({str(choice) for choice in found}) == len(found)
        for choice in found:
            assert 1 <= choice.lanes <= caps.max_workgroup_invocations, (problem, choice)
            assert choice.lanes <= caps.max_workgroup_size[0]
            if choice.shuffle:
                assert choice.lanes % caps.subgroup_size == 0 and caps.subgroup_size >= 8
            if SUBGROUP in (choice.kernel, choice.multiply):
                assert choice.lanes == caps.subgroup_size and caps.subgroup_size >= 8
                assert choice.pixels % parts(choice.output_tile) == 0
            if choice.is_winograd:
                assert problem.constant and problem.is_flat and choice.multiply
            tiled = choice.kernel in (
                "conv2d",
                "conv2d_1x1",
                SUBGROUP,
                "conv_transpose2d",
                "depthwise_conv2d",
            )
            assert caps.unrolls_loops or not (tiled or choice.multiply in ("conv2d_1x1", SUBGROUP))


def test_small_maps_and_large_ones_have_several_candidates() -> None:
    assert len(candidates(square(64, 64, 80, 3), LAVAPIPE)) > 20
    kernels = {c.kernel for c in candidates(square(64, 64, 80, 3), DESKTOP)}
    assert kernels == {"conv2d", "conv2d_8x4", "conv2d_shared", "winograd_4x4", "winograd_2x2"}


def test_what_tuning_found_is_used_and_what_is_no_candidate_is_not() -> None:
    problem = square(64, 64, 40, 1)
    rule = select_kernel(problem, LAVAPIPE)
    for choice in candidates(problem, LAVAPIPE):
        assert select_kernel(problem, LAVAPIPE, {problem.key: str(choice)}) == choice
    for text in ("", "conv2d_1x1", "conv2d_1x1 16x4000 lanes=8", "depthwise_conv2d 4x4 lanes=8"):
        assert select_kernel(problem, LAVAPIPE, {problem.key: text}) == rule
    other = square(64, 64, 41, 1).key
    assert select_kernel(problem, LAVAPIPE, {other: "conv2d_8x4 8x4 lanes=8"}) == rule


def test_the_key_is_stable_and_tells_problems_apart() -> None:
    assert square(64, 99, 80, 3, 2).key == "conv 1x1g 64>99 80>40k3s2d1p1+1 80>40k3s2d1p1+1"
    assert dataclasses.replace(square(4, 8, 5, 3), z=axis(3, 1), constant=False).key == (
        "conv 1x1g 4>8 3>3k1s1d1p0+0 5>5k3s1d1p1+1 5>5k3s1d1p1+1 computed"
    )
    distinct = set(PROBLEMS)
    assert len({problem.key for problem in distinct}) == len(distinct)


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
]


#: the ways of access that the rules do not reach
ACCESS = [
    (case, choice, disabled)
    for case, choice in FORCED
    for disabled in ("texel", "storage_texel")
    if choice.kernel
    in ("conv2d_8x4", "conv2d_shared", "conv_transpose2d_8x4", "depthwise_conv2d_4x1")
    or (case is GROWN and choice.output_tile == 16)
    or (SUBGROUP in (choice.kernel, choice.multiply) and choice.output_tile == 16)
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
from tests.ops import test_conv_selection as cases

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
