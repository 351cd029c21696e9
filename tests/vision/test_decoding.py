"""Each head on synthetic tensors whose boxes are known."""

from __future__ import annotations

import numpy as np
import pytest

from vkconv.errors import InvalidInputError
from vkconv.vision import HEAD_KINDS, HeadSpec, decode, is_final
from vkconv.vision.head_kinds import KINDS

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


def head(kind: str, classes: int = 3, outputs: int = 1) -> HeadSpec:
    names = ("out", "more", "last")[:outputs]
    return HeadSpec(kind, names, tuple(f"c{i}" for i in range(classes)))


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
    found = decode([anchored_tensor().astype(dtype)], head(kind), input_size=SIZE)
    tolerance = 1e-3 if dtype == np.float16 else 1e-6
    np.testing.assert_allclose(found.boxes, [corners(*o[:4]) for o in OBJECTS], rtol=tolerance)
    np.testing.assert_allclose(found.scores, [o[5] * o[6] for o in OBJECTS], rtol=tolerance)
    assert found.class_ids.tolist() == [1, 0, 2]
    assert found.boxes.dtype == np.float32 and found.class_ids.dtype == np.int64


def test_yolov7_of_one_class_uses_objectness_alone() -> None:
    tensor = np.array([[[10, 10, 4, 4, 0.8, 0.5]]], np.float32)
    assert decode([tensor], head("yolov7", 1), input_size=SIZE).scores == pytest.approx([0.8])
    assert decode([tensor], head("yolov5", 1), input_size=SIZE).scores == pytest.approx([0.4])


def test_fcos() -> None:
    """Centerness takes the place of objectness, and a sole class counts."""
    found = decode([anchored_tensor(rows=CELLS)], head("fcos"), input_size=SIZE)
    np.testing.assert_allclose(found.boxes, [corners(*o[:4]) for o in OBJECTS], rtol=1e-6)
    np.testing.assert_allclose(found.scores, [o[5] * o[6] for o in OBJECTS], rtol=1e-6)
    tensor = np.array([[[10, 10, 4, 4, 0.8, 0.5]]], np.float32)
    assert decode([tensor], head("fcos", 1), input_size=SIZE).scores == pytest.approx([0.4])


def test_rtmdet() -> None:
    tensor = np.zeros((1, 50, 7), np.float32)
    for row, (cx, cy, w, h, class_id, _, score) in enumerate(OBJECTS):
        tensor[0, 9 * row, :4] = cx, cy, w, h
        tensor[0, 9 * row, 4 + class_id] = score
    found = decode([tensor], head("rtmdet"), input_size=SIZE)
    np.testing.assert_allclose(found.boxes, [corners(*o[:4]) for o in OBJECTS], rtol=1e-6)
    np.testing.assert_allclose(found.scores, [o[6] for o in OBJECTS], rtol=1e-6)
    assert found.class_ids.tolist() == [1, 0, 2]


def test_yolov8() -> None:
    tensor = np.zeros((1, 7, CELLS), np.float32)
    for column, (cx, cy, w, h, class_id, _, score) in enumerate(OBJECTS):
        tensor[0, :4, column] = cx, cy, w, h
        tensor[0, 4 + class_id, column] = score
    found = decode([tensor], head("yolov8"), input_size=SIZE)
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
    found = decode([tensor], head("yolox"), input_size=SIZE)
    np.testing.assert_allclose(found.boxes, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.scores, [o[5] * o[6] for o in OBJECTS], rtol=1e-6)
    assert found.class_ids.tolist() == [1, 0, 2]


def test_yolox_of_another_size_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=f"{CELLS} boxes.*99"):
        decode([np.zeros((1, 99, 8), np.float32)], head("yolox"), input_size=SIZE)


def final_rows(kind: str, boxes: int = 20) -> np.ndarray:
    """OBJECTS in every seventh row of a final head, the others of no confidence."""
    columns = KINDS[kind].columns
    assert columns is not None
    rows = np.zeros((boxes, len(columns)), np.float32)
    for row, (cx, cy, w, h, class_id, _, score) in enumerate(OBJECTS):
        x1, y1, x2, y2 = corners(cx, cy, w, h)
        value = {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "picture": 0, "score": score}
        value |= {"class": class_id, "cx": cx / 320, "cy": cy / 256, "w": w / 320, "h": h / 256}
        rows[7 * row] = [value[name] for name in columns]
    return rows


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("kind", ["end2end", "yolov7-end2end", "rtdetr-end2end"])
def test_final_rows(kind: str, batched: bool) -> None:
    rows = final_rows(kind)
    found = decode([rows[None] if batched else rows], head(kind), input_size=SIZE)
    np.testing.assert_allclose(found.boxes, [corners(*o[:4]) for o in OBJECTS], rtol=1e-5)
    np.testing.assert_allclose(found.scores, [o[6] for o in OBJECTS], rtol=1e-6)
    assert found.class_ids.tolist() == [1, 0, 2] and found.class_ids.dtype == np.int64
    assert is_final(head(kind)) and not is_final(head("yolov5"))


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("together", [True, False])
def test_boxes_scores_and_labels(batched: bool, together: bool) -> None:
    boxes = np.array([corners(*o[:4]) for o in OBJECTS], np.float32)
    scores = np.array([o[6] for o in OBJECTS], np.float32)
    labels = np.array([o[4] for o in OBJECTS], np.int64)
    outputs = [boxes, scores, labels]
    if together:
        outputs = [np.concatenate((boxes, scores[:, None]), axis=1), labels]
    given = [output[None] if batched else output for output in outputs]
    found = decode(given, head("boxes", outputs=len(given)), input_size=SIZE, confidence=0.6)
    np.testing.assert_array_equal(found.boxes, boxes[:2])
    np.testing.assert_array_equal(found.scores, scores[:2])
    assert found.class_ids.tolist() == [1, 0]
    with pytest.raises(InvalidInputError, match="go together"):
        decode([*outputs[:-1], labels[1:]], head("boxes", outputs=len(given)), input_size=SIZE)
    with pytest.raises(InvalidInputError, match=f"{len(given)} outputs"):
        decode(outputs[1:], head("boxes", outputs=len(given)), input_size=SIZE)


def queries() -> tuple[np.ndarray, np.ndarray]:
    """(1, 9, 4) fractions, and the logits (1, 9, 4) of three classes and "none"."""
    boxes = np.full((1, 9, 4), 0.5, np.float32)
    logits = np.tile(np.array([-9, -9, -9, 9], np.float32), (1, 9, 1))
    for row, (cx, cy, w, h, class_id, _, _) in enumerate(OBJECTS):
        boxes[0, 2 * row] = cx / 320, cy / 256, w / 320, h / 256
        logits[0, 2 * row] = [0.5, -0.25, 0.1, -1.0]
        logits[0, 2 * row, class_id] = 2.0 + row
    return boxes, logits


def test_detr_takes_none_for_a_class_and_leaves_it_out() -> None:
    boxes, logits = queries()
    found = decode([boxes, logits], head("detr", outputs=2), input_size=SIZE)
    np.testing.assert_allclose(found.boxes, [corners(*o[:4]) for o in OBJECTS], rtol=1e-4)
    wide = np.exp(logits[0, :6:2].astype(np.float64))
    expected = wide[range(3), [1, 0, 2]] / wide.sum(axis=1)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-6)
    assert found.class_ids.tolist() == [1, 0, 2]


@pytest.mark.parametrize("probabilities", [True, False])
def test_rtdetr_has_each_class_for_itself(probabilities: bool) -> None:
    boxes, logits = queries()
    logits = logits[:, :, :3]
    expected = 1 / (1 + np.exp(-logits.astype(np.float64)))
    outputs = [boxes, logits]
    if probabilities:
        outputs = [np.concatenate((boxes, expected.astype(np.float32)), axis=2)]
    found = decode(outputs, head("rtdetr", outputs=len(outputs)), input_size=SIZE)
    np.testing.assert_allclose(found.boxes, [corners(*o[:4]) for o in OBJECTS], rtol=1e-4)
    np.testing.assert_allclose(found.scores, expected[0, range(0, 6, 2), [1, 0, 2]], rtol=1e-6)
    assert found.class_ids.tolist() == [1, 0, 2]


def test_classes_that_are_not_there_are_left_out() -> None:
    rows = final_rows("end2end")
    rows[[0, 7, 14], 5] = 3, -1, np.nan
    assert len(decode([rows], head("end2end"), input_size=SIZE)) == 0
    assert decode([rows], head("end2end", classes=0), input_size=SIZE).class_ids.tolist() == [3]
    rows[0, 5] = 1e9
    assert len(decode([rows], head("end2end", classes=0), input_size=SIZE)) == 0


def hostile_shapes(kind: str) -> list[tuple[int, ...]]:
    layout = KINDS[kind]
    if layout.family == "dense":
        values = layout.first_class + 3
        return [(1, values, CELLS) if layout.transposed else (1, CELLS, values)]
    if layout.columns is not None:
        return [(1, CELLS, len(layout.columns))]
    last = (1, CELLS, 3 + layout.softmax)
    return [(1, CELLS, 4), (1, CELLS), (1, CELLS)] if kind == "boxes" else [(1, CELLS, 4), last]


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_what_is_not_finite_never_becomes_a_box(kind: str) -> None:
    rng = np.random.default_rng(3)
    hostile = [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e30]
    outputs = [rng.uniform(0, 1, shape).astype(np.float32) for shape in hostile_shapes(kind)]
    for tensor in outputs:
        spots = rng.random(tensor.shape) < 0.2
        tensor[spots] = rng.choice(hostile, int(spots.sum()))
    spec = head(kind, outputs=len(outputs))
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        found = decode(outputs, spec, input_size=SIZE, confidence=0.0)
    assert len(found) > 0
    assert np.isfinite(found.boxes).all()
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert ((found.class_ids >= 0) & (found.class_ids < 3)).all()


def test_boxes_without_area_are_left_out() -> None:
    tensor = np.array([[[10, 10, 0, 4, 1, 1], [10, 10, 4, -4, 1, 1]]], np.float32)
    assert len(decode([tensor], head("yolov5", 1), input_size=SIZE)) == 0


@pytest.mark.parametrize("shape", [(1, 0, 8), (1, 5, 8)])
def test_few_or_no_rows(shape) -> None:
    assert len(decode([np.zeros(shape, np.float32)], head("yolov5"), input_size=SIZE)) == 0


@pytest.mark.parametrize("shape", [(5, 8), (2, 5, 8), (1, 5, 9), (1, 1, 5, 8)])
def test_another_shape_than_chosen_for_is_refused(shape) -> None:
    with pytest.raises(InvalidInputError, match="out"):
        decode([np.zeros(shape, np.float32)], head("yolov5"), input_size=SIZE)


@pytest.mark.parametrize("kind", [kind for kind in HEAD_KINDS if KINDS[kind].family != "dense"])
def test_no_boxes_at_all(kind: str) -> None:
    shapes = [tuple(0 if n == CELLS else n for n in shape) for shape in hostile_shapes(kind)]
    outputs = [np.zeros(shape, np.float32) for shape in shapes]
    assert len(decode(outputs, head(kind, outputs=len(outputs)), input_size=SIZE)) == 0
