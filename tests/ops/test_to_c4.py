"""ToC4 and ToLinear: when the two layouts are the same memory, and what the copies do."""

from __future__ import annotations

import numpy as np
import pytest

import vkconv.ops  # noqa: F401  (registers the operators)
from tests.harness import Case, check_device, random
from vkconv.dispatch import Storage, View
from vkconv.ir import TensorType, Value
from vkconv.ops.base import REGISTRY

STORAGE = Storage(1 << 20, "x")


def _converted(op_type: str, view: View) -> View | None:
    operator = REGISTRY["vkconv", op_type]()
    views = operator.view(view, [Value("y", TensorType("float32", view.shape))])
    return views[0] if views else None


@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (3, 8, 1), (2, 4, 1, 1, 1)])
def test_one_pixel_maps_are_views(shape: tuple[int, ...]) -> None:
    channels = shape[1]
    linear = View(STORAGE, shape, "float32", "linear", 12)
    c4 = View(STORAGE, shape, "float32", "c4", 12, channels)
    assert _converted("ToC4", linear) == c4
    assert _converted("ToLinear", c4) == linear


@pytest.mark.parametrize(
    "view",
    [
        View(STORAGE, (1, 7, 1, 1), "float32", "linear", 0),  # a vec4 would be read beyond the end
        View(STORAGE, (1, 8, 1, 2), "float32", "linear", 0),
        View(STORAGE, (1, 8, 1, 1), "float32", "linear", 3),  # no vec4 starts there
    ],
)
def test_other_maps_are_copied_to_c4(view: View) -> None:
    assert _converted("ToC4", view) is None


def test_a_channel_slice_of_several_batches_is_copied_to_linear() -> None:
    assert _converted("ToLinear", View(STORAGE, (2, 8, 1, 1), "float32", "c4", 8, 32)) is None
    assert _converted("ToLinear", View(STORAGE, (1, 8, 1, 1), "float32", "c4", 8, 32)) is not None


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1),
        (2, 3, 17),
        (3, 5, 1, 1),
        (2, 8, 1, 1),
        (1, 6, 7, 13),
        (2, 17, 3, 5),
        (1, 4, 70, 70),
    ],
)
def test_there_and_back(shape: tuple[int, ...]) -> None:
    # a concatenation along channels keeps C4; its parts are converted before, its result behind
    parts = (random(*shape), random(*shape, seed=1))
    check_device(Case("Concat", parts, {"axis": 1}, layout="c4"))


def test_more_batches_than_workgroups_along_z() -> None:
    x = random(70000, 3, 2)
    check_device(Case("MaxPool", (x,), {"kernel_shape": [2]}))
    assert np.prod(x.shape) == 420000
