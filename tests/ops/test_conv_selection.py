"""Which convolution kernel for which shape on which device: the rules, and the candidates for
tuning."""

from __future__ import annotations

import dataclasses

import pytest

from vkconv import shaders
from vkconv.capabilities import DeviceCaps
from vkconv.ops.conv_geometry import conv_axes, transpose_axes
from vkconv.ops.conv_problem import SUBGROUP, Problem, parts
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
MOBILE = DeviceCaps(kind="integrated", subgroup_size=16, subgroup_shuffle=True, uniform_texel=True)
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


@pytest.mark.parametrize(
    ("problem", "kernel", "ways"),
    [
        (square(64, 64, 80, 3), "conv2d_8x4", {"", "uniform_texel", "weights_texel"}),
        (square(64, 64, 80, 1), "conv2d_8x4", {"", "uniform_texel", "weights_texel"}),
        (square(64, 32, 160, 4, 2, transposed=True), "conv_transpose2d_8x4",
         {"", "uniform_texel", "weights_texel"}),
        (square(1, 1, 80, 3, groups=64), "depthwise_conv2d_4x1", {"", "uniform_texel"}),
    ],
    ids=["3x3", "1x1", "transposed", "depthwise"],
)  # fmt: skip
def test_gpus_may_find_textures_quicker(problem: Problem, kernel: str, ways: set[str]) -> None:
    """The rules read storage buffers; tuning tries both."""
    found = candidates(problem, MOBILE)
    assert found[0].kernel == kernel and not found[0].access
    assert {c.access for c in found if c.kernel == kernel} == ways
    assert ways - {""} <= set(shaders.axes(kernel)["access"])
    assert not any(c.access for c in found if c.kernel != kernel)
    for choice in (c for c in found if c.access):
        assert str(choice).endswith(f" lanes=64 {choice.access}")
        assert select_kernel(problem, MOBILE, {problem.key: str(choice)}) == choice
    for caps in (dataclasses.replace(MOBILE, uniform_texel=False), LAVAPIPE, SWIFTSHADER):
        assert not any(c.access for c in candidates(problem, caps))


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


@pytest.mark.parametrize("size", [5, 20, 160])
def test_a_gpu_whose_compiler_keeps_arrays_in_memory_gets_what_is_written_out(size: int) -> None:
    """Whatever the map's size: tiles by specialization constants would lie in memory."""
    caps = dataclasses.replace(MOBILE, unrolls_loops=False)
    narrow = dataclasses.replace(caps, wide_tiles=False)
    for kernel, transposed in ((1, False), (3, False), (3, True)):
        problem = square(64, 64, size, kernel, transposed=transposed)
        written = "conv_transpose2d_8x4" if transposed else "conv2d_8x4"
        assert select_kernel(problem, caps).kernel == written
        chosen = select_kernel(problem, narrow)
        assert (chosen.kernel, chosen.output_tile, chosen.pixels) == (written, 4, 4)
    big = square(64, 64, 160, 3)
    assert select_kernel(big, caps).output_tile == 8
