"""Constants on the device: element types, and one storage however many plans use it."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from tests.plan.planning import CPU, planned
from tests.small_models import floats, model, node
from vkconv import passes
from vkconv.ir import Array
from vkconv.onnx_reader import read_model
from vkconv.plan import ConstantStore, make_plan
from vkconv.plan.constants import constant_view, device_array


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (np.array([1.5], np.float64), np.array([1.5], np.float32)),
        (np.array([1.5], np.float16), np.array([1.5], np.float32)),
        (np.array([True, False]), np.array([1, 0], np.int32)),
        (np.array([-3, 255], np.int16), np.array([-3, 255], np.int32)),
        (np.array([np.iinfo(np.int64).max, -5]), np.array([2**31 - 1, -5], np.int32)),
        (np.array([np.iinfo(np.int64).min]), np.array([-(2**31)], np.int32)),
        (np.array([2**32 - 1], np.uint32), np.array([2**31 - 1], np.int32)),
        (np.array(7), np.array(7, np.int32)),
        (np.zeros((0, 3)), np.zeros((0, 3), np.float32)),
        (np.arange(6, dtype=np.float32).reshape(2, 3).T, np.array([[0, 3], [1, 4], [2, 5]], "f4")),
    ],
)
def test_element_types(array: Array, wanted: Array) -> None:
    found = device_array(array)
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    assert np.array_equal(found, wanted) and found.flags.c_contiguous


def test_views_of_constants() -> None:
    view = constant_view(np.zeros((0,), np.float32), "none")
    assert view.storage.size == 4 and view.shape == (0,)
    assert constant_view(np.array(True), "flag").dtype == "int32"


def test_packed_once() -> None:
    store, array, calls = ConstantStore(), floats(3), []

    def pack() -> Array:
        calls.append(1)
        return array * 2

    views = [store.get((array,), "double", pack) for _ in range(3)]
    assert len(calls) == 1 and len({id(v.storage) for v in views}) == 1
    other = store.get((array,), "other", pack)
    twin = store.get((array.copy(),), "double", pack)
    assert len(calls) == 3 and other.storage is not views[0].storage is not twin.storage


def test_entries_go_with_the_last_plan_that_holds_them() -> None:
    store, array = ConstantStore(), floats(3)
    first = store.get((array,), "linear", lambda: array)
    storage = first.storage
    del first
    gc.collect()
    assert len(store) == 1
    del storage
    gc.collect()
    assert len(store) == 0


def test_plans_share_weights() -> None:
    nodes = [node("Conv", "x w b", "a", pads=[1] * 4), node("Relu", "a", "r"),
             node("Conv", "r v", "c"), node("Add", "c k", "y")]  # fmt: skip
    weights = {"w": floats(6, 3, 3, 3), "b": floats(6), "v": floats(4, 6, 1, 1),
               "k": floats(4, 1, 1)}  # fmt: skip
    graph = read_model(model(nodes, {"x": [1, 3, "h", "w"]}, {"y": None}, weights))
    # what depends on no size happens once, as the session does it for open sizes
    passes.infer_and_fold(graph)
    passes.rewrite(graph)
    store = ConstantStore()

    def plan_at(size: int) -> set[int]:
        from vkconv.ir import TensorType

        twin = graph.copy()
        twin.inputs[0].type = TensorType("float32", (1, 3, size, size))
        passes.infer_and_fold(twin)
        passes.rewrite(twin)
        passes.infer_and_fold(twin)
        passes.finish(twin, CPU)
        plans.append(make_plan(twin, CPU, store))
        return {id(s) for s in plans[-1].constants if s.size > 16}

    plans: list[object] = []
    first = plan_at(8)
    entries = len(store)
    assert first == plan_at(12) == plan_at(9) and len(store) == entries


def test_a_constant_used_by_two_nodes_is_one_storage() -> None:
    nodes = [node("Conv", "x w", "a"), node("Conv", "a w", "y")]
    made = planned(model(nodes, {"x": [1, 4, 5, 5]}, {"y": None}, {"w": floats(4, 4, 1, 1)}))
    assert len({s.name for s in made.constants if s.size >= 64}) <= 2
