"""The picture that comes out: what must be visible, and what must stay inside."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from PIL import Image

from vkconv.vision import COCO_NAMES, Detections, class_color, draw_detections
from vkconv.vision.draw import _fitting_font, _place_label


def detections(boxes, scores=None, class_ids=None) -> Detections:
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(count, 4),
        np.array(scores if scores is not None else [0.9] * count, np.float32),
        np.array(class_ids if class_ids is not None else range(count), np.int64),
    )


def test_the_source_is_left_alone_and_nothing_draws_nothing() -> None:
    source = Image.new("RGB", (50, 40), (9, 9, 9))
    drawn = draw_detections(source, Detections.empty(), ())
    assert drawn is not source and (np.asarray(drawn) == 9).all()
    draw_detections(source, detections([[5, 5, 30, 30]]), COCO_NAMES)
    assert (np.asarray(source) == 9).all()


@pytest.mark.parametrize("size", [(640, 480), (320, 320), (3000, 2000)])
def test_the_line_lies_on_the_box(size) -> None:
    width, height = size
    box = [width * 0.25, height * 0.25, width * 0.75, height * 0.75]
    drawn = np.asarray(draw_detections(Image.new("RGB", size), detections([box]), COCO_NAMES))
    line = (drawn == class_color(0)).all(axis=2)
    rows, columns = np.flatnonzero(line.any(axis=1)), np.flatnonzero(line.any(axis=0))
    assert columns[0] == round(box[0]) and columns[-1] == round(box[2]) - 1
    assert rows[-1] == round(box[3]) - 1
    # The label stands on the upper edge, so the first coloured row is above the box.
    assert round(box[1]) - height * 0.1 < rows[0] < round(box[1])
    middle = drawn[height // 2]
    thickness = (middle == class_color(0)).all(axis=1).sum() / 2
    assert thickness == max(2, round((width * height) ** 0.5 * 0.0035))


BOXES_AT_THE_EDGE = [
    [0, 0, 60, 40],
    [580, 0, 640, 40],
    [0, 440, 60, 480],
    [600, 450, 640, 480],
    [0, 0, 640, 480],
    [300, 0, 302, 480],
    [638, 478, 640, 480],
    [0, 470, 640, 480],
]


@pytest.mark.parametrize("box", BOXES_AT_THE_EDGE)
@pytest.mark.parametrize("name", ["cat", "a rather long name for one class of things"])
def test_a_label_stays_inside_the_picture(box, name) -> None:
    canvas = Image.new("RGB", (640, 480))
    from PIL import ImageDraw

    draw = ImageDraw.Draw(canvas)
    font = _fitting_font(draw, name, 14, 640, 480)
    label = _place_label(draw, name, font, tuple(box), 2, [], (640, 480))
    assert 0 <= label[0] < label[2] < 640 and 0 <= label[1] < label[3] < 480


def test_labels_of_boxes_on_each_other_do_not_cover_each_other() -> None:
    from PIL import ImageDraw

    draw = ImageDraw.Draw(Image.new("RGB", (640, 480)))
    font = _fitting_font(draw, "cat 90%", 14, 640, 480)
    taken = []
    for shift in range(6):
        box = (100 + shift, 100 + shift, 400 + shift, 300 + shift)
        taken.append(_place_label(draw, "cat 90%", font, box, 2, taken, (640, 480)))
    for index, one in enumerate(taken):
        for other in taken[:index]:
            assert one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (16, 16), (64, 48)])
def test_tiny_pictures(size) -> None:
    boxes = [[0, 0, *size], [0, 0, 1, 1], [size[0] / 2, 0, size[0], size[1] / 2]]
    drawn = draw_detections(Image.new("RGB", size), detections(boxes), COCO_NAMES)
    assert drawn.size == size


def test_the_confidence_and_the_name_change_the_picture() -> None:
    def picture(score: float, name: str) -> bytes:
        found = detections([[20, 40, 150, 150]], [score])
        return draw_detections(Image.new("RGB", (200, 200)), found, [name]).tobytes()

    assert picture(0.91, "cat") != picture(0.52, "cat")
    assert picture(0.91, "cat") != picture(0.91, "dog")


def test_the_best_box_is_drawn_on_top() -> None:
    for scores, on_top in (([0.9, 0.5], 0), ([0.5, 0.9], 1)):
        found = detections([[50, 50, 150, 150]] * 2, scores)
        drawn = draw_detections(Image.new("RGB", (200, 200)), found, COCO_NAMES)
        assert drawn.getpixel((50, 100)) == class_color(on_top)


def test_a_class_without_a_name_and_other_modes() -> None:
    drawn = draw_detections(Image.new("L", (99, 99)), detections([[9, 9, 80, 80]]), ())
    assert drawn.mode == "RGB"


def test_the_colours_of_classes_differ() -> None:
    colors = [class_color(index) for index in range(80)]
    assert len(set(colors)) == 80
    first = np.array([class_color(index) for index in range(10)], np.float64)
    distances = np.linalg.norm(first[:, None] - first[None], axis=2) + np.eye(10) * 999
    assert distances.min() > 60
    # Neither black nor white nor gray: visible on any picture.
    for red, green, blue in colors:
        _, saturation, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
        assert saturation > 0.4 and value > 0.6
