"""The generated pictures: reproducible, varied, and with boxes that are true."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from vkconv.converters.demo_scenes import (
    CLASS_NAMES,
    EVALUATION_SEED,
    EXAMPLE_SEED,
    TRAINING_SEED,
    draw_object,
    generate_scene,
)
from vkconv.converters.demo_sprites import COVERAGE


@pytest.mark.parametrize("size", [320, (200, 120), (96, 160)])
def test_same_arguments_same_picture(size: int | tuple[int, int]) -> None:
    first, second = generate_scene(11, size), generate_scene(11, size)
    for one, other in zip(first, second, strict=True):
        assert one.dtype == other.dtype and np.array_equal(one, other)


def test_types_and_shapes() -> None:
    picture, boxes, labels = generate_scene(3, (200, 120))
    assert picture.shape == (120, 200, 3) and picture.dtype == np.uint8
    assert boxes.dtype == np.float32 and boxes.shape == (len(labels), 4)
    assert labels.dtype == np.int64


def test_different_seeds_differ() -> None:
    assert not np.array_equal(generate_scene(1, 96)[0], generate_scene(2, 96)[0])


def test_boxes_lie_inside_and_every_class_occurs() -> None:
    seen: set[int] = set()
    counts = []
    for seed in range(60):
        picture, boxes, labels = generate_scene(seed, 160)
        height, width, _ = picture.shape
        assert (boxes >= 0).all() and (boxes <= [width, height, width, height]).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 2).all()
        assert ((labels >= 0) & (labels < len(CLASS_NAMES))).all()
        assert picture.std() > 4, "an empty or flat picture"
        seen.update(labels.tolist())
        counts.append(len(labels))
    assert seen == set(range(len(CLASS_NAMES)))
    assert 2 < np.mean(counts) < 10


@pytest.mark.parametrize("name", CLASS_NAMES)
@pytest.mark.parametrize("angle", [0.0, 0.5])
def test_outline_touches_all_four_sides(name: str, angle: float) -> None:
    for pixels in (26, 90, 200):
        drawn = draw_object(name, pixels, seed=pixels, angle=angle)
        covered = drawn.alpha > COVERAGE
        assert covered[0].any() and covered[-1].any()
        assert covered[:, 0].any() and covered[:, -1].any()
        assert drawn.color.shape == (*drawn.alpha.shape, 3)
        assert (drawn.color <= 255 * drawn.alpha[..., None] + 1e-3).all(), "not premultiplied"
        # Nothing may be cut off at the border of the sheet the object is drawn on.
        assert max(drawn.alpha.shape) < 1.5 * pixels


def test_light_comes_from_where_it_says() -> None:
    bright_left = draw_object("duck", 120, 5, light=(-1.0, 0.0))
    bright_right = draw_object("duck", 120, 5, light=(1.0, 0.0))
    middle = bright_left.alpha.shape[1] // 2
    difference = (bright_left.color - bright_right.color).mean(axis=2)
    assert difference[:, :middle].mean() > 0 > difference[:, middle:].mean()


def test_seed_ranges_are_far_apart() -> None:
    starts = sorted([TRAINING_SEED, EVALUATION_SEED, EXAMPLE_SEED])
    assert np.diff(starts).min() >= 1_000_000


def test_drawing_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from vkconv.converters import generate_scene\n"
        "generate_scene(0, 64)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
