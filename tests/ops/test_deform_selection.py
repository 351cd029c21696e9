"""Which kernels a deformable convolution gets: data in, choice out, without any device."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vkconv.capabilities import DeviceCaps
from vkconv.ops.conv_geometry import conv_axes
from vkconv.ops.conv_problem import SUBGROUP, Choice
from vkconv.ops.conv_selection import candidates
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


@pytest.mark.parametrize(("size", "pixels"), [(14, 25), (7, 25), (20, 25), (8, 32)])
def test_the_product_of_stored_samples(size: int, pixels: int) -> None:
    product, choice = select_product(square(size, 64, 256), LAVAPIPE, {}, constant=True)
    assert (product.in_channels, product.out_pixels) == (64 * 9, size * size)
    assert choice == Choice(SUBGROUP, 32, pixels, 8)
    (_, other, *_) = candidates(product, LAVAPIPE)
    tuned = {product.key: str(other)}
    again = select_product(square(size, 64, 256), LAVAPIPE, tuned, constant=True)
    assert again == (product, other) != (product, choice)


def test_select_tile() -> None:
    assert select_tile(64, LAVAPIPE).shuffle
    assert select_tile(64, LAVAPIPE).outputs == 64
    assert select_tile(64, replace(LAVAPIPE, subgroup_shuffle=False)).outputs == 32
    assert select_tile(3, LAVAPIPE).outputs == 4
    assert not select_tile(3, LAVAPIPE).shuffle
    mobile = DeviceCaps(kind="integrated", subgroup_size=16, subgroup_shuffle=True)
    assert not select_tile(64, mobile).shuffle
    assert select_tile(64, mobile).lanes == 64
