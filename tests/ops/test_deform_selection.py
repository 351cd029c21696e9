"""Which kernels a deformable convolution gets: data in, choice out, without any device."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vkconv.capabilities import DeviceCaps
from vkconv.ops.conv_geometry import conv_axes
from vkconv.ops.conv_selection import candidates, select_kernel
from vkconv.ops.deform_conv_problem import (
    DeformProblem,
    select_product,
    select_tile,
    stores_samples,
)

LAVAPIPE = DeviceCaps(
    kind="cpu", subgroup_size=8, subgroup_shuffle=True, max_workgroup_invocations=1024
)


def square(size: int, channels: int, out_channels: int) -> DeformProblem:
    side = conv_axes([size], [3], None, [1, 1], None, "NOTSET")[0]
    return DeformProblem(1, channels, out_channels, 1, 1, side, side)


def test_where_samples_are_stored() -> None:
    problem = square(14, 512, 512)
    without_shuffles = replace(LAVAPIPE, subgroup_shuffle=False)
    mobile = DeviceCaps(kind="integrated")
    for outputs, caps in ((256, LAVAPIPE), (64, without_shuffles), (128, mobile)):
        assert stores_samples(replace(problem, out_channels=outputs), caps)
        assert not stores_samples(replace(problem, out_channels=outputs // 2), caps)
        assert not stores_samples(replace(problem, groups=2, out_channels=outputs), caps)
    assert not stores_samples(replace(problem, batch=9), LAVAPIPE)  # 16 MiB
    assert not stores_samples(problem, replace(LAVAPIPE, max_storage_buffer_range=1 << 20))
    # two channels share one
    assert not stores_samples(replace(problem, offset_groups=256), LAVAPIPE)


@pytest.mark.parametrize(
    ("size", "outputs", "pixels"),
    [
        (14, 256, 5),
        (7, 512, 7),
        (28, 512, 4),
        (20, 256, 4),
        (8, 256, 4),
        (10, 224, 7),
    ],
)
def test_the_product_leaves_few_lanes_idle(size: int, outputs: int, pixels: int) -> None:
    problem = square(size, 64, outputs)
    product, choice = select_product(problem, LAVAPIPE, {}, constant=True)
    assert (product.in_channels, product.out_pixels) == (64 * 9, size * size)
    assert choice.kernel == "conv2d_1x1" and choice.pixels == pixels


def test_the_product_of_other_devices_and_of_tuning_stays() -> None:
    problem = square(7, 64, 512)
    for caps in (DeviceCaps(kind="integrated"), replace(LAVAPIPE, unrolls_loops=False)):
        product, choice = select_product(problem, caps, {}, constant=True)
        assert choice == select_kernel(product, caps)
    product, choice = select_product(problem, LAVAPIPE, {}, constant=True)
    other = candidates(product, LAVAPIPE)[0]
    assert other.pixels == 4 != choice.pixels
    tuned = {product.key: str(other)}
    assert select_product(problem, LAVAPIPE, tuned, constant=True) == (product, other)


def test_select_tile() -> None:
    assert select_tile(64, LAVAPIPE).shuffle
    assert select_tile(64, LAVAPIPE).outputs == 64
    assert select_tile(64, replace(LAVAPIPE, subgroup_shuffle=False)).outputs == 32
    assert select_tile(3, LAVAPIPE).outputs == 4
    assert not select_tile(3, LAVAPIPE).shuffle
    mobile = DeviceCaps(kind="integrated", subgroup_size=16, subgroup_shuffle=True)
    assert not select_tile(64, mobile).shuffle
    assert select_tile(64, mobile).lanes == 64
