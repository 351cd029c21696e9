"""vkconv/ops/non_max_suppression.py"""

from __future__ import annotations

import numpy as np
import pytest

import vkconv
from tests.harness import Case, check_device, check_reference, random
from vkconv.ops import non_max_suppression


def _boxes(images: int, count: int, center: bool) -> np.ndarray:
    first, size = (
        random(images, count, 2, low=0, high=8),
        random(images, count, 2, low=0.5, high=4, seed=1),
    )
    if center:
        return np.concatenate([first, size], -1)
    # corners in either order
    swapped = random(images, count, 2, low=0, high=1, seed=2) < 0.3
    low, high = np.where(swapped, first + size, first), np.where(swapped, first, first + size)
    return np.concatenate([low, high], -1)


def _case(
    images: int,
    classes: int,
    count: int,
    most: int | None = 20,
    iou: float | None = 0.5,
    score: float | None = None,
    *,
    center: bool = False,
    equal: bool = False,
    **more: object,
) -> Case:
    scores = random(images, classes, count, low=0, high=1, seed=3)
    if equal:
        scores = np.round(scores, 1).astype(np.float32)
    limits = [
        None if most is None else np.array([most], np.int64),
        None if iou is None else np.array([iou], np.float32),
        None if score is None else np.array([score], np.float32),
    ]
    while limits and limits[-1] is None:
        limits.pop()
    inputs = (_boxes(images, count, center), scores, *limits)
    given = {"center_point_box": 1} if center else {}
    constant = tuple(i for i in range(2, len(inputs)) if inputs[i] is not None)
    more = {"constant": constant, **more}
    return Case("NonMaxSuppression", inputs, given, 11, output_dtypes=("int64",), **more)


CASES = [
    _case(1, 1, 7),
    _case(1, 1, 50),
    _case(1, 3, 50, score=0.4),
    _case(2, 3, 50, 5, 0.3, 0.1),
    _case(2, 5, 33, 5, center=True),
    _case(1, 1, 100, 100, 0.5, equal=True),
    _case(1, 1, 100, 100, 0.0),
    _case(1, 1, 100, 100, 1.0),
    _case(1, 1, 100, 100, None),
    _case(1, 2, 100, 2**40, 0.6),
    _case(1, 2, 100, 5, score=2.0),
    _case(1, 80, 300, 10, score=0.8),
    _case(1, 1, 2000, 300, 0.5),
    _case(1, 1, 50).but(opset=10),
    _case(2, 3, 50, 5, 0.3, 0.1, constant=()),
    _case(1, 1, 50, constant=(0, 2, 3)),
]
EMPTY = [_case(1, 2, 50, None, None), _case(1, 2, 50, 0), _case(1, 2, 50, -3), _case(1, 2, 0)]


@pytest.mark.parametrize("case", CASES + EMPTY, ids=str)
def test_reference(case: Case) -> None:
    check_reference(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_device(case: Case) -> None:
    check_device(case)


@pytest.mark.parametrize("case", EMPTY, ids=str)
def test_nothing_can_be_selected(case: Case) -> None:
    check_device(case)


def test_many_selections_take_several_dispatches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(non_max_suppression, "steps_per_dispatch", lambda count, lanes: 7)
    case = _case(1, 3, 100, 60, 0.7)
    check_device(case)
    with vkconv.InferenceSession(case.model()) as session:
        session.run(None, case.feeds())
        plan = session.describe_plan()
    assert plan.count("non_max_suppression") == 9


def test_boxes_and_scores_that_are_no_numbers() -> None:
    case = _case(1, 2, 60, 20, 0.3)
    boxes, scores, *limits = (np.array(x) for x in case.inputs)
    for column, value in enumerate((np.nan, np.inf, -np.inf, 1e30)):
        boxes[0, column::9, column] = value
        scores[0, :, column::11] = value
    boxes[0, 3::10, 2:] = boxes[0, 3::10, :2]  # empty
    for score in ([], [np.array([0.2], np.float32)]):
        given = (boxes, scores, *limits, *score)
        check_device(case.but(inputs=given, constant=tuple(range(2, len(given)))))


def test_too_many_boxes_run_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(non_max_suppression, "MOST_DISPATCHES", 0)
    with pytest.warns(RuntimeWarning):
        check_device(_case(1, 2, 50), where="host")


def test_errors() -> None:
    good = _case(1, 2, 50)
    boxes, scores, most, iou = good.inputs
    bad = [
        (good.but(inputs=(boxes[..., :3], scores, most, iou)), "do not fit"),
        (good.but(inputs=(boxes[:, :40], scores, most, iou)), "do not fit"),
        (good.but(inputs=(boxes[0], scores, most, iou)), "do not fit"),
        (good.but(inputs=(boxes, scores, most, np.array([1.5], np.float32))), "IoU threshold"),
        (good.but(inputs=(boxes, scores, np.array([1, 2]), iou)), "one element"),
    ]
    for case, message in bad:
        with pytest.raises(vkconv.InvalidModelError, match=message):
            case.types()


@pytest.mark.parametrize("count, lanes", [(7, 8), (1000, 8), (8400, 8), (25200, 8), (25200, 64)])
def test_loops_of_a_dispatch_are_short_enough_for_every_driver(count: int, lanes: int) -> None:
    # llvmpipe ends all loops of an invocation after 65535 iterations together
    turns = -(-count // lanes)
    steps = non_max_suppression.steps_per_dispatch(count, lanes)
    assert steps >= 1 and turns + steps * (turns + lanes + 2) <= 65535
