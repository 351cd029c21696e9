"""Non-maximum suppression against the definition, written as slow loops."""

from __future__ import annotations

import numpy as np
import pytest

from vkconv.errors import InvalidInputError
from vkconv.vision import non_maximum_suppression, overlap


def brute_force_overlap(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def brute_force(boxes, scores, class_ids, threshold, limit) -> list[int]:
    boxes = boxes.astype(np.float64)
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    kept: list[int] = []
    for candidate in order:
        if len(kept) == limit:
            break
        if all(
            class_ids[candidate] != class_ids[other]
            or brute_force_overlap(boxes[candidate], boxes[other]) <= threshold
            for other in kept
        ):
            kept.append(candidate)
    return kept


def random_boxes(rng: np.random.Generator, count: int):
    corner = rng.uniform(0, 100, (count, 2))
    boxes = np.concatenate((corner, corner + rng.uniform(1, 60, (count, 2))), axis=1)
    # Few distinct scores, so that ties are met.
    scores = rng.integers(1, 40, count) / np.float32(40)
    return boxes.astype(np.float32), scores.astype(np.float32), rng.integers(0, 3, count)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.45, 0.9, 1.0])
def test_as_the_definition_says(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores, class_ids = random_boxes(rng, int(rng.integers(1, 150)))
    for limit in (1, 7, 300):
        kept = non_maximum_suppression(
            boxes, scores, class_ids, iou_threshold=threshold, max_detections=limit
        )
        assert kept.tolist() == brute_force(boxes, scores, class_ids, threshold, limit)


def test_overlap_of_known_boxes() -> None:
    one = np.array([0, 0, 10, 10], np.float32)
    others = np.array(
        [[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [3, 3, 3, 3], [9, 9, 1, 1]], np.float32
    )
    assert overlap(one, others) == pytest.approx([1.0, 1 / 3, 0.0, 0.0, 0.0])
    assert overlap(others[3], others[3:4]).tolist() == [0.0]


def test_classes_do_not_suppress_each_other() -> None:
    boxes = np.tile(np.array([[0, 0, 10, 10]], np.float32), (3, 1))
    scores = np.array([0.5, 0.9, 0.7], np.float32)
    assert non_maximum_suppression(boxes, scores, np.array([0, 1, 0])).tolist() == [1, 2]


def test_rows_that_are_not_finite_are_dropped() -> None:
    boxes = np.array([[0, 0, np.nan, 10], [0, 0, np.inf, 10], [0, 0, 5, 5]], np.float32)
    scores = np.array([0.9, 0.9, 0.5], np.float32)
    assert non_maximum_suppression(boxes, scores, np.zeros(3, int)).tolist() == [2]
    scores[2] = np.nan
    assert len(non_maximum_suppression(boxes, scores, np.zeros(3, int))) == 0


def test_huge_coordinates_do_not_overflow() -> None:
    boxes = np.array([[-3e38, -3e38, 3e38, 3e38], [-3e38, -3e38, 3e38, 3.1e38]], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    assert non_maximum_suppression(boxes, scores, np.zeros(2, int)).tolist() == [0]


def test_nothing_in_nothing_out() -> None:
    kept = non_maximum_suppression(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    assert kept.shape == (0,) and kept.dtype == np.int64


def test_many_candidates_stay_quick_and_keep_the_best() -> None:
    rng = np.random.default_rng(5)
    boxes, _, class_ids = random_boxes(rng, 60_000)
    scores = rng.permutation(60_000).astype(np.float32) / 60_000
    kept = non_maximum_suppression(boxes, scores, class_ids, max_detections=50)
    assert kept[0] == scores.argmax()
    assert (np.diff(scores[kept]) < 0).all()


@pytest.mark.parametrize(
    ("boxes", "scores", "options"),
    [
        (np.zeros((2, 5)), np.zeros(2), {}),
        (np.zeros(4), np.zeros(1), {}),
        (np.zeros((2, 4)), np.zeros(3), {}),
        (np.zeros((2, 4)), np.zeros(2), {"iou_threshold": 1.5}),
        (np.zeros((2, 4)), np.zeros(2), {"iou_threshold": float("nan")}),
        (np.zeros((2, 4)), np.zeros(2), {"max_detections": -1}),
    ],
)
def test_what_does_not_fit_is_refused(boxes, scores, options) -> None:
    with pytest.raises(InvalidInputError, match="NMS"):
        non_maximum_suppression(boxes, scores, np.zeros(len(scores), int), **options)
