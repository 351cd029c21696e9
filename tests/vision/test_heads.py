"""Each head on synthetic tensors whose boxes are known, and the choice between heads."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vkconv.errors import InvalidInputError, InvalidModelError, UnsupportedModelError, VkconvError
from vkconv.vision import COCO_NAMES, HEAD_KINDS, HeadSpec, choose_head, decode

SIZE = (320, 256)
CELLS = 40 * 32 + 20 * 16 + 10 * 8

# (cx, cy, w, h, class, objectness, class score): the boxes the tensors below hold.
OBJECTS = [
    (100.0, 60.0, 40.0, 30.0, 1, 0.9, 0.8),
    (250.5, 200.25, 80.0, 100.0, 0, 0.7, 0.95),
    (8.0, 8.0, 16.0, 16.0, 2, 1.0, 0.5),
]


def corners(cx: float, cy: float, w: float, h: float) -> list[float]:
    return [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]


def head(kind: str, classes: int = 3) -> HeadSpec:
    return HeadSpec(kind, "out", tuple(f"c{i}" for i in range(classes)))


def anchored_tensor(classes: int = 3, rows: int = 3 * CELLS) -> np.ndarray:
    tensor = np.zeros((1, rows, 5 + classes), np.float32)
    tensor[0, :, :4] = 10
    for row, (cx, cy, w, h, class_id, objectness, score) in enumerate(OBJECTS):
        tensor[0, 7 * row + 3, :5] = cx, cy, w, h, objectness
        tensor[0, 7 * row + 3, 5 + class_id] = score
    return tensor


@pytest.mark.parametrize("kind", ["yolov5", "yolov7"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_anchored_heads(kind: str, dtype) -> None:
    found = decode(anchored_tensor().astype(dtype), head(kind), input_size=SIZE)
    tolerance = 1e-3 if dtype == np.float16 else 1e-6
    np.testing.assert_allclose(found.boxes, [corners(*o[:4]) for o in OBJECTS], rtol=tolerance)
    np.testing.assert_allclose(found.scores, [o[5] * o[6] for o in OBJECTS], rtol=tolerance)
    assert found.class_ids.tolist() == [1, 0, 2]
    assert found.boxes.dtype == np.float32 and found.class_ids.dtype == np.int64


def test_yolov7_of_one_class_uses_objectness_alone() -> None:
    tensor = np.array([[[10, 10, 4, 4, 0.8, 0.5]]], np.float32)
    assert decode(tensor, head("yolov7", 1), input_size=SIZE).scores == pytest.approx([0.8])
    assert decode(tensor, head("yolov5", 1), input_size=SIZE).scores == pytest.approx([0.4])


def test_fcos() -> None:
    """Centerness takes the place of objectness, and a sole class counts."""
    found = decode(anchored_tensor(rows=CELLS), head("fcos"), input_size=SIZE)
    np.testing.assert_allclose(found.boxes, [corners(*o[:4]) for o in OBJECTS], rtol=1e-6)
    np.testing.assert_allclose(found.scores, [o[5] * o[6] for o in OBJECTS], rtol=1e-6)
    tensor = np.array([[[10, 10, 4, 4, 0.8, 0.5]]], np.float32)
    assert decode(tensor, head("fcos", 1), input_size=SIZE).scores == pytest.approx([0.4])


def test_rtmdet() -> None:
    tensor = np.zeros((1, 50, 7), np.float32)
    for row, (cx, cy, w, h, class_id, _, score) in enumerate(OBJECTS):
        tensor[0, 9 * row, :4] = cx, cy, w, h
        tensor[0, 9 * row, 4 + class_id] = score
    found = decode(tensor, head("rtmdet"), input_size=SIZE)
    np.testing.assert_allclose(found.boxes, [corners(*o[:4]) for o in OBJECTS], rtol=1e-6)
    np.testing.assert_allclose(found.scores, [o[6] for o in OBJECTS], rtol=1e-6)
    assert found.class_ids.tolist() == [1, 0, 2]


@pytest.mark.parametrize(("kind", "values"), [("fcos", 5), ("rtmdet", 4)])
def test_heads_told_by_metadata_only(kind: str, values: int) -> None:
    chosen = choose_head({"detections": (1, 100, values + 3)}, {"vkconv.head": kind})
    assert (chosen.kind, len(chosen.class_names)) == (kind, 3)
    # pictures lie in the upper left corner, as mmdetection pads them
    assert (chosen.channel_order, chosen.centered) == ("rgb", False)
    assert chosen.input_scale == pytest.approx(1 / 255)
    masks = {"detections": (1, 100, values + 3), "masks": (1, 100, 80, 80)}
    assert choose_head(masks, {"vkconv.head": kind}).output == "detections"
    with pytest.raises(UnsupportedModelError, match="no class scores"):
        choose_head({"detections": (1, 100, values)}, {"vkconv.head": kind})


def test_yolov8() -> None:
    tensor = np.zeros((1, 7, CELLS), np.float32)
    for column, (cx, cy, w, h, class_id, _, score) in enumerate(OBJECTS):
        tensor[0, :4, column] = cx, cy, w, h
        tensor[0, 4 + class_id, column] = score
    found = decode(tensor, head("yolov8"), input_size=SIZE)
    np.testing.assert_allclose(found.boxes, [corners(*o[:4]) for o in OBJECTS])
    np.testing.assert_allclose(found.scores, [o[6] for o in OBJECTS])
    assert found.class_ids.tolist() == [1, 0, 2]


def test_yolox_decodes_its_grid() -> None:
    tensor = np.full((1, CELLS, 8), -20, np.float32)
    tensor[0, :, 4:] = 0
    expected = []
    starts = {8: (0, 40), 16: (40 * 32, 20), 32: (40 * 32 + 20 * 16, 10)}
    for (cx, cy, w, h, class_id, objectness, score), stride in zip(OBJECTS, starts, strict=True):
        first, columns = starts[stride]
        x, y = int(cx // stride), int(cy // stride)
        tensor[0, first + y * columns + x] = [
            cx / stride - x,
            cy / stride - y,
            np.log(w / stride),
            np.log(h / stride),
            objectness,
            *(score if c == class_id else 0 for c in range(3)),
        ]
        expected.append(corners(cx, cy, w, h))
    found = decode(tensor, head("yolox"), input_size=SIZE)
    np.testing.assert_allclose(found.boxes, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.scores, [o[5] * o[6] for o in OBJECTS], rtol=1e-6)
    assert found.class_ids.tolist() == [1, 0, 2]


def test_yolox_of_another_size_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=f"{CELLS} boxes.*99"):
        decode(np.zeros((1, 99, 8), np.float32), head("yolox"), input_size=SIZE)


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_what_is_not_finite_never_becomes_a_box(kind: str) -> None:
    rng = np.random.default_rng(3)
    shape = {"yolov8": (1, 7, CELLS), "rtmdet": (1, CELLS, 7)}.get(kind, (1, CELLS, 8))
    tensor = rng.uniform(0, 1, shape).astype(np.float32)
    hostile = [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e30]
    spots = rng.random(shape) < 0.2
    tensor[spots] = rng.choice(hostile, int(spots.sum()))
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        found = decode(tensor, head(kind), input_size=SIZE, confidence=0.0)
    assert len(found) > 0
    assert np.isfinite(found.boxes).all()
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()


def test_boxes_without_area_are_left_out() -> None:
    tensor = np.array([[[10, 10, 0, 4, 1, 1], [10, 10, 4, -4, 1, 1]]], np.float32)
    assert len(decode(tensor, head("yolov5", 1), input_size=SIZE)) == 0


@pytest.mark.parametrize("shape", [(1, 0, 8), (1, 5, 8)])
def test_few_or_no_rows(shape) -> None:
    assert len(decode(np.zeros(shape, np.float32), head("yolov5"), input_size=SIZE)) == 0


@pytest.mark.parametrize("shape", [(5, 8), (2, 5, 8), (1, 5, 9), (1, 1, 5, 8)])
def test_another_shape_than_chosen_for_is_refused(shape) -> None:
    with pytest.raises(InvalidInputError, match="out"):
        decode(np.zeros(shape, np.float32), head("yolov5"), input_size=SIZE)


# -- choosing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "input_size", "kind", "classes"),
    [
        ((1, 25200, 85), (640, 640), "yolov5", 80),
        ((1, 8400, 85), (640, 640), "yolox", 80),
        ((1, 84, 8400), (640, 640), "yolov8", 80),
        ((1, 25200, 85), None, "yolov5", 80),
        ((1, 84, 8400), None, "yolov8", 80),
        ((1, 3 * CELLS, 11), SIZE, "yolov5", 6),
        ((1, CELLS, 11), SIZE, "yolox", 6),
        ((1, 10, CELLS), SIZE, "yolov8", 6),
        # 32 x 32: fewer boxes than values a box, told by the number of boxes all the same.
        ((1, 63, 85), (32, 32), "yolov5", 80),
        ((1, 21, 85), (32, 32), "yolox", 80),
        ((1, 84, 21), (32, 32), "yolov8", 80),
    ],
)
def test_by_shape(shape, input_size, kind, classes) -> None:
    chosen = choose_head({"out": shape}, input_size=input_size)
    assert (chosen.kind, len(chosen.class_names), chosen.output) == (kind, classes, "out")
    if classes == 80:
        assert chosen.class_names == COCO_NAMES
    else:
        assert chosen.class_names[5] == "class 5"
    if kind == "yolox":
        assert (chosen.input_scale, chosen.channel_order, chosen.centered) == (1.0, "bgr", False)
    else:
        assert chosen.input_scale == pytest.approx(1 / 255)
        assert (chosen.channel_order, chosen.centered) == ("rgb", True)


def test_by_our_metadata() -> None:
    metadata = {
        "vkconv.head": "yolov7",
        "vkconv.classes": json.dumps(["ring", "star"]),
        "vkconv.input_scale": "0.5",
    }
    chosen = choose_head({"out": (1, 50, 7)}, metadata)
    assert chosen == HeadSpec("yolov7", "out", ("ring", "star"), 0.5)


def test_by_the_metadata_of_ultralytics() -> None:
    metadata = {"task": "detect", "stride": "32", "names": "{0: 'a', 1: \"driver's seat\"}"}
    assert choose_head({"o": (1, 6, 2100)}, metadata).kind == "yolov8"
    chosen = choose_head({"o": (1, 6300, 7)}, metadata)
    assert chosen.kind == "yolov5" and chosen.class_names == ("a", "driver's seat")


def test_the_box_output_among_raw_maps() -> None:
    outputs = {"p3": (1, 3, 40, 32, 85), "boxes": (1, 3 * CELLS, 85), "p4": (1, 3, 20, 16, 85)}
    assert choose_head(outputs, input_size=SIZE).output == "boxes"


@pytest.mark.parametrize(
    ("outputs", "metadata", "error"),
    [
        ({"prob": (1, 1000)}, {}, UnsupportedModelError),
        ({}, {}, UnsupportedModelError),
        ({"a": (1, 85, 85)}, {}, UnsupportedModelError),
        ({"a": (1, 3000, 4)}, {}, UnsupportedModelError),
        ({"a": (1, 4, 3000)}, {}, UnsupportedModelError),
        ({"a": (1, 50, 7), "b": (1, 50, 7)}, {}, UnsupportedModelError),
        ({"a": (1, 50, 7)}, {"vkconv.head": "ssd"}, UnsupportedModelError),
        ({"a": (1, 116, 8400)}, {"names": str(dict(enumerate("abc")))}, UnsupportedModelError),
        ({"a": (1, 300, 6)}, {"end2end": "True"}, UnsupportedModelError),
    ],
)
def test_what_is_not_understood_lists_what_is(outputs, metadata, error) -> None:
    with pytest.raises(error) as caught:
        choose_head(outputs, metadata, input_size=SIZE)
    message = str(caught.value)
    assert "\n" not in message
    for word in ("YOLOv5", "YOLOv7", "YOLOX", "YOLOv8", "vkconv.head"):
        assert word in message


@pytest.mark.parametrize(
    ("outputs", "metadata", "message"),
    [
        ({"a": (4, 50, 7)}, {}, "batch of 4"),
        ({"a": (1, 116, 8400)}, {"task": "segment"}, "task is 'segment'"),
        ({"a": (1, 50, 7)}, {"vkconv.input_scale": "bright"}, "input_scale"),
        ({"a": (1, 50, 7)}, {"vkconv.input_scale": "nan"}, "input_scale"),
        ({"a": (1, 50, 7)}, {"vkconv.input_scale": "-1"}, "input_scale"),
        ({"a": (1, 50, 7)}, {"vkconv.head": "yolov5", "vkconv.classes": '["x"]'}, "names 1 class"),
    ],
)
def test_contradictions_are_typed_and_clear(outputs, metadata, message) -> None:
    with pytest.raises(VkconvError, match=message) as caught:
        choose_head(outputs, metadata)
    assert isinstance(caught.value, InvalidModelError | UnsupportedModelError)


@pytest.mark.parametrize("seed", range(40))
def test_no_shape_or_size_raises_anything_else(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(50):
        shape = tuple(int(n) for n in rng.integers(0, 100, int(rng.integers(0, 6))))
        if rng.random() < 0.7:
            shape = (1, *shape[1:3])
        try:
            chosen = choose_head({"x": shape}, input_size=(32, 64))
        except VkconvError:
            continue
        assert len(chosen.class_names) >= 1
