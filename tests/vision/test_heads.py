"""Which head is chosen, by metadata and by shapes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vkconv.errors import InvalidInputError, InvalidModelError, UnsupportedModelError, VkconvError
from vkconv.vision import COCO_NAMES, HEAD_KINDS, HeadSpec, choose_head, metadata_input_size
from vkconv.vision.head_kinds import KINDS

SIZE = (320, 256)
CELLS = 40 * 32 + 20 * 16 + 10 * 8


@pytest.mark.parametrize(("kind", "values"), [("fcos", 5), ("rtmdet", 4)])
def test_heads_told_by_metadata_only(kind: str, values: int) -> None:
    chosen = choose_head({"detections": (1, 100, values + 3)}, {"vkconv.head": kind})
    assert (chosen.kind, len(chosen.class_names)) == (kind, 3)
    # pictures lie in the upper left corner, as mmdetection pads them
    assert (chosen.channel_order, chosen.fit) == ("rgb", "corner")
    assert chosen.input_scale == pytest.approx(1 / 255)
    masks = {"detections": (1, 100, values + 3), "masks": (1, 100, 80, 80)}
    assert choose_head(masks, {"vkconv.head": kind}).outputs == ("detections",)
    with pytest.raises(UnsupportedModelError, match="no class scores"):
        choose_head({"detections": (1, 100, values)}, {"vkconv.head": kind})


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
        # One class of YOLOv5 or YOLOX, also on two levels only, is no list of final boxes.
        ((1, 25200, 6), (640, 640), "yolov5", 1),
        ((1, 8400, 6), (640, 640), "yolox", 1),
        ((1, 3 * (1600 + 400), 6), (640, 640), "yolov5", 1),
    ],
)
def test_by_shape(shape, input_size, kind, classes) -> None:
    chosen = choose_head({"out": shape}, input_size=input_size)
    assert (chosen.kind, len(chosen.class_names), chosen.outputs) == (kind, classes, ("out",))
    if classes == 80:
        assert chosen.class_names == COCO_NAMES
    else:
        assert chosen.class_names[classes - 1] == f"class {classes - 1}"
    if kind == "yolox":
        assert (chosen.input_scale, chosen.channel_order, chosen.fit) == (1.0, "bgr", "corner")
    else:
        assert chosen.input_scale == pytest.approx(1 / 255)
        assert (chosen.channel_order, chosen.fit) == ("rgb", "center")


def test_by_our_metadata() -> None:
    metadata = {
        "vkconv.head": "yolov7",
        "vkconv.classes": json.dumps(["ring", "star"]),
        "vkconv.input_scale": "0.5",
    }
    chosen = choose_head({"out": (1, 50, 7)}, metadata)
    assert chosen == HeadSpec("yolov7", ("out",), ("ring", "star"), 0.5)


def test_by_the_metadata_of_ultralytics() -> None:
    metadata = {"task": "detect", "stride": "32", "names": "{0: 'a', 1: \"driver's seat\"}"}
    assert choose_head({"o": (1, 6, 2100)}, metadata).kind == "yolov8"
    chosen = choose_head({"o": (1, 6300, 7)}, metadata)
    assert chosen.kind == "yolov5" and chosen.class_names == ("a", "driver's seat")


_NAMES = str(dict(enumerate(COCO_NAMES)))


@pytest.mark.parametrize(
    ("outputs", "metadata", "kind", "read"),
    [
        # YOLOv10, YOLO26, and nms=True: Ultralytics
        ({"o": (1, 300, 6)}, {"names": _NAMES, "task": "detect"}, "end2end", ("o",)),
        ({"o": (1, 300, 6)}, {}, "end2end", ("o",)),
        ({"o": (1, 300, 6)}, {"names": "['a']"}, "end2end", ("o",)),
        ({"o": (1, 21, 6)}, {"names": "['a']", "end2end": "True"}, "end2end", ("o",)),
        ({"o": (1, 300, 6)}, {"names": _NAMES, "head": "RTDETRDecoder"}, "rtdetr-end2end", ("o",)),
        ({"o": (1, 300, 84)}, {"names": _NAMES}, "rtdetr", ("o",)),
        ({"o": (0, 7)}, {}, "yolov7-end2end", ("o",)),
        # RT-DETR's own export and D-FINE's; torchvision's; mmdeploy's; YOLOv6's for TensorRT
        (
            {"labels": (1, 300), "boxes": (1, 300, 4), "scores": (1, 300)},
            {},
            "boxes",
            ("boxes", "scores", "labels"),
        ),
        ({"b": (0, 4), "my_labels": (0,), "s": (0,)}, {}, "boxes", ("b", "s", "my_labels")),
        ({"b": (0, 4), "l": (0,), "score": (0,)}, {}, "boxes", ("b", "score", "l")),
        ({"dets": (1, 5, 5), "labels": (1, 5)}, {}, "boxes", ("dets", "labels")),
        (
            {"dets": (1, 7, 5), "labels": (1, 7), "masks": (1, 7, 80, 80)},
            {},
            "boxes",
            ("dets", "labels"),
        ),
        (
            {"num": (1, 1), "boxes": (1, 1, 4), "det_scores": (1, 1), "det_classes": (1, 1)},
            {},
            "boxes",
            ("boxes", "det_scores", "det_classes"),
        ),
        # what a DETR's classes are is for the user to say
        (
            {"logits": (1, 100, 92), "pred_boxes": (1, 100, 4), "last_hidden": (1, 100, 256)},
            {"vkconv.head": "detr"},
            "detr",
            ("pred_boxes", "logits"),
        ),
        (
            {"dets": (1, 300, 4), "labels": (1, 300, 91)},
            {"vkconv.head": "rtdetr"},
            "rtdetr",
            ("dets", "labels"),
        ),
    ],
)
def test_heads_that_choose_for_themselves(outputs, metadata, kind, read) -> None:
    chosen = choose_head(outputs, metadata, input_size=(640, 640))
    assert (chosen.kind, chosen.outputs) == (kind, read)
    if "names" in metadata:
        assert len(chosen.class_names) == (80 if metadata["names"] == _NAMES else 1)
    else:
        # only a DETR's logits tell how many
        assert len(chosen.class_names) == {"detr": 91, "rtdetr": 91}.get(kind, 0)
    assert chosen.fit == {"end2end": "center", "yolov7-end2end": "center", "boxes": "corner"}.get(
        kind, "stretch"
    )
    assert (len(chosen.mean), len(chosen.std)) == ((3, 3) if kind == "detr" else (1, 1))


def test_pictures_with_a_size_beside_them_are_stretched() -> None:
    outputs = {"labels": (1, 300), "boxes": (1, 300, 4), "scores": (1, 300)}
    assert choose_head(outputs, inputs=["images", "orig_target_sizes"]).fit == "stretch"


@pytest.mark.parametrize("metadata", [{}, {"names": _NAMES}])
def test_a_detr_is_not_guessed(metadata) -> None:
    outputs = {"logits": (1, 300, 80), "pred_boxes": (1, 300, 4)}
    with pytest.raises(UnsupportedModelError, match=r"rtdetr where .* detr where"):
        choose_head(outputs, metadata, input_size=SIZE)
    assert choose_head(outputs, metadata, kind="rtdetr").kind == "rtdetr"


def test_the_caller_may_say_the_kind() -> None:
    outputs = {"o": (1, CELLS, 7)}
    assert choose_head(outputs, input_size=SIZE).kind == "yolox"
    assert choose_head(outputs, {"vkconv.head": "fcos"}, input_size=SIZE, kind="rtmdet") == (
        HeadSpec("rtmdet", ("o",), ("class 0", "class 1", "class 2"), fit="corner")
    )
    with pytest.raises(InvalidInputError, match="'ssd' is no head"):
        choose_head(outputs, kind="ssd")
    with pytest.raises(UnsupportedModelError, match="not those of the head 'detr'"):
        choose_head(outputs, kind="detr")
    with pytest.raises(UnsupportedModelError, match="not those of the head 'end2end'"):
        choose_head(outputs, {"end2end": "True"}, input_size=SIZE)


def test_how_the_input_is_made() -> None:
    metadata = {
        "vkconv.head": "rtmdet",
        "vkconv.mean": "[103.53, 116.28, 123.675]",
        "vkconv.std": "57.5",
        "vkconv.input_scale": "1",
        "vkconv.channel_order": "BGR",
        "vkconv.fit": "stretch",
    }
    chosen = choose_head({"o": (1, 50, 7)}, metadata)
    assert (chosen.mean, chosen.std) == ((103.53, 116.28, 123.675), (57.5,))
    assert (chosen.input_scale, chosen.channel_order, chosen.fit) == (1.0, "bgr", "stretch")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("[320, 640]", (640, 320)),
        ("[32,64]", (64, 32)),
        ("640", None),
        ("[1e9, 2]", None),
        ("", None),
    ],
)
def test_the_size_a_model_was_exported_for(text: str, size) -> None:
    assert metadata_input_size({"imgsz": text}) == size
    assert metadata_input_size({}) is None


def test_the_box_output_among_raw_maps() -> None:
    outputs = {"p3": (1, 3, 40, 32, 85), "boxes": (1, 3 * CELLS, 85), "p4": (1, 3, 20, 16, 85)}
    assert choose_head(outputs, input_size=SIZE).outputs == ("boxes",)


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
        ({"a": (1, 300, 38)}, {"end2end": "True"}, UnsupportedModelError),
        ({"a": (1, 300, 4), "b": (1, 299)}, {}, UnsupportedModelError),
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
        ({"a": (1, 50, 7)}, {"vkconv.mean": "[1, 2]"}, "vkconv.mean"),
        ({"a": (1, 50, 7)}, {"vkconv.mean": '["1", {}, 2]'}, "vkconv.mean"),
        ({"a": (1, 50, 7)}, {"vkconv.mean": "[1, 2, NaN]"}, "vkconv.mean"),
        ({"a": (1, 50, 7)}, {"vkconv.std": "[1, 0, 1]"}, "vkconv.std"),
        ({"a": (1, 50, 7)}, {"vkconv.std": "[" * 9999}, "vkconv.std"),
        ({"a": (1, 50, 7)}, {"vkconv.channel_order": "gbr"}, "channel_order"),
        ({"a": (1, 50, 7)}, {"vkconv.fit": "crop"}, "center or corner or stretch"),
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
        outputs = {}
        for name in ("x", "boxes", "labels")[: int(rng.integers(1, 4))]:
            shape = tuple(int(n) for n in rng.integers(0, 100, int(rng.integers(0, 6))))
            outputs[name] = (1, *shape[1:3]) if rng.random() < 0.7 else shape
        kind = str(rng.choice(HEAD_KINDS)) if rng.random() < 0.5 else None
        try:
            chosen = choose_head(outputs, input_size=(32, 64), kind=kind)
        except VkconvError:
            continue
        assert chosen.kind in HEAD_KINDS and set(chosen.outputs) <= set(outputs)
        # how many classes there are, only final boxes leave open
        assert chosen.class_names or KINDS[chosen.kind].family in ("final", "lists")
