"""From a picture to a tensor and from an output back to the picture's pixels."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vkconv.vision
from vkconv.errors import InvalidInputError
from vkconv.vision import HeadSpec, detect, prepare

HEAD = HeadSpec("yolov5", ("out",), ("cat", "dog"))


def row(cx: float, cy: float, w: float, h: float, score: float, class_id: int) -> list[float]:
    return [cx, cy, w, h, score, float(class_id == 0), float(class_id == 1)]


def test_boxes_end_in_source_pixels_best_first() -> None:
    image = Image.new("RGB", (200, 100), "red")
    tensor, transform = prepare(image, HEAD, input_size=(100, 100))
    assert tensor.shape == (1, 3, 100, 100)
    assert tensor[0, :, 50, 50].tolist() == [1, 0, 0]
    assert tensor[0, :, 5, 50] == pytest.approx(114 / 255)
    output = np.array(
        [
            [
                row(50, 50, 20, 10, 0.6, 0),
                row(50, 50, 21, 10, 0.9, 0),  # the same cat, more certain
                row(50, 50, 21, 10, 0.5, 1),  # a dog in the same place stays
                row(50, 10, 20, 10, 0.9, 0),  # in the padding only
                row(98, 50, 20, 10, 0.7, 0),  # reaches past the edge
                row(20, 40, 5, 5, 0.1, 0),  # not certain enough
            ]
        ],
        np.float32,
    )
    found = detect([output], HEAD, transform)
    assert found.class_ids.tolist() == [0, 0, 1]
    assert found.scores == pytest.approx([0.9, 0.7, 0.5])
    expected = [[79, 40, 121, 60], [176, 40, 200, 60], [79, 40, 121, 60]]
    np.testing.assert_allclose(found.boxes, expected, atol=1e-4)
    assert len(detect([output], HEAD, transform, max_detections=1)) == 1
    assert len(detect([output], HEAD, transform, iou=1.0)) == 4


def test_yolox_is_fed_its_own_way() -> None:
    head = HeadSpec("yolox", ("out",), ("cat",), 1.0, "bgr", "corner")
    tensor, transform = prepare(Image.new("RGB", (10, 5), "red"), head, input_size=(32, 32))
    assert tensor[0, :, 0, 0].tolist() == [0, 0, 255]
    assert tensor[0, :, 31, 31].tolist() == [114] * 3 and transform.top == 0


@pytest.mark.parametrize("options", [{"confidence": 1.1}, {"confidence": -1}, {"iou": 2}])
def test_thresholds_are_checked(options) -> None:
    _, transform = prepare(Image.new("RGB", (8, 8)), HEAD, input_size=(8, 8))
    with pytest.raises(InvalidInputError, match=r"0\.\.1"):
        detect([np.zeros((1, 1, 7), np.float32)], HEAD, transform, **options)


def test_the_room_imports_numpy_and_pillow_only() -> None:
    allowed = {"numpy", "PIL", "vkconv.errors", "vkconv.vision"}
    standard = {"__future__", "ast", "collections", "colorsys", "dataclasses", "fractions"}
    standard |= {"itertools", "json", "math"}
    standard |= {"os", "re", "typing", "warnings"}
    for path in Path(vkconv.vision.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                top = ".".join(name.split(".")[:2]) if name.startswith("vkconv") else name
                assert top in allowed or name.split(".")[0] in allowed | standard, (path, name)
