"""ToC4 and ToLinear: when the two layouts are the same memory, and what the copies do."""

from __future__ import annotations

import numpy as np
import pytest

from tests.harness import Case, check_device, random
from vkconv.capabilities import DeviceCaps, DeviceKind
from vkconv.dispatch import Storage, View
from vkconv.ir import TensorType, Value
from vkconv.ops.lowering import Tensor
from vkconv.ops.registry import REGISTRY
from vkconv.plan import ConstantStore
from vkconv.plan.lowering import PlanLowering

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
        (2, 7, 6, 6),
        (1, 9, 12),
        (3, 2, 2, 2),
        (1, 3, 164, 164),
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


@pytest.mark.parametrize(
    ("kind", "pixels", "offset", "expected"),
    [
        ("cpu", 12, 0, "four"),
        ("cpu", 12, 8, "four"),
        ("cpu", 12, 6, "one"),  # no vec4 starts there
        ("cpu", 10, 0, "one"),
        ("discrete", 12, 0, "one"),  # neighbouring lanes' scalars are one access
    ],
)
@pytest.mark.parametrize("op_type", ["ToC4", "ToLinear"])
def test_pixels_an_invocation(
    op_type: str, kind: DeviceKind, pixels: int, offset: int, expected: str
) -> None:
    shape = (1, 6, pixels)
    linear = View(Storage(4096, "l"), shape, "float32", "linear", offset)
    c4 = View(Storage(4096, "c"), shape, "float32", "c4", 0, 8 * pixels)
    views = (linear, c4) if op_type == "ToC4" else (c4, linear)
    tensors = [Tensor(Value("v", TensorType("float32", shape)), v) for v in views]
    operator = REGISTRY["vkconv", op_type]()
    lowering = PlanLowering(DeviceCaps(kind=kind), ConstantStore())
    (dispatch,) = operator.lower(lowering, tensors[:1], tensors[1:])
    assert dict(dispatch.variant)["pixels"] == expected
