"""The measure itself: average precision on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate_demo import average_precision, overlaps
from vkconv.vision import Detections

BOX = [10.0, 10.0, 30.0, 30.0]
NEAR = [10.0, 10.0, 30.0, 29.0]
FAR = [60.0, 60.0, 80.0, 80.0]


def detections(*rows: tuple[list[float], float, int]) -> Detections:
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    scores = np.array([row[1] for row in rows], np.float32)
    return Detections(boxes, scores, np.array([row[2] for row in rows], np.int64))


def truth(*rows: tuple[list[float], int]) -> tuple[np.ndarray, np.ndarray]:
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    return boxes, np.array([row[1] for row in rows], np.int64)


def test_overlaps() -> None:
    found = overlaps(np.array([BOX]), np.array([BOX, NEAR, FAR]))
    assert found == pytest.approx(np.array([[1.0, 0.95, 0.0]]))


def test_perfect() -> None:
    found = [detections((BOX, 0.9, 0)), detections((FAR, 0.8, 0))]
    assert average_precision(found, [truth((BOX, 0)), truth((FAR, 0))], 0) == (1.0, 2)


def test_second_detection_of_one_object_is_false() -> None:
    # In order of confidence: right, false, right; precision 1 up to recall 1/2, then 2/3.
    found = [detections((BOX, 0.9, 0), (NEAR, 0.8, 0), (FAR, 0.7, 0))]
    value, count = average_precision(found, [truth((BOX, 0), (FAR, 0))], 0)
    assert count == 2
    assert value == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_missed_objects_cost_recall() -> None:
    found = [detections((BOX, 0.9, 0)), detections()]
    value, _ = average_precision(found, [truth((BOX, 0)), truth((FAR, 0))], 0)
    assert value == pytest.approx(0.5)


def test_other_classes_and_other_pictures_do_not_count() -> None:
    found = [detections((BOX, 0.9, 1)), detections((BOX, 0.9, 0))]
    truths = [truth((BOX, 0)), truth()]
    assert average_precision(found, truths, 0) == (0.0, 1)
    assert average_precision(found, truths, 1) == (0.0, 0)
    assert average_precision([detections()], [truth((BOX, 0))], 0) == (0.0, 1)


def test_threshold() -> None:
    found, truths = [detections((NEAR, 0.9, 0))], [truth((BOX, 0))]
    assert average_precision(found, truths, 0, 0.94)[0] == 1.0
    assert average_precision(found, truths, 0, 0.96)[0] == 0.0
