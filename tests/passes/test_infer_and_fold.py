"""Types for every value, constants where they follow, and bounds on what folding may allocate."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.passes.rewriting import check, operators, rewritten
from tests.small_models import floats, model, node
from vkconv import passes
from vkconv.errors import InvalidModelError, VkconvError
from vkconv.ir import TensorType
from vkconv.onnx_reader import read_model
from vkconv.passes import infer_and_fold

X = {"x": [2, 3, 4]}
Y = {"y": None}


def test_types_replace_what_the_file_declares() -> None:
    proto = model([node("Flatten", "x", "f"), node("Relu", "f", "y")], X, {"y": [7, 7]})
    graph = rewritten(proto, infer_and_fold)
    assert graph.outputs[0].type == TensorType("float32", (2, 12))


def test_shape_arithmetic_folds() -> None:
    nodes = [
        node("Shape", "x", "s"), node("Gather", "s zero", "n", axis=0),
        node("Unsqueeze", "n axes", "u"), node("Concat", "u rest", "target", axis=0),
        node("Reshape", "x target", "y"),
    ]  # fmt: skip
    constants = {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1])}
    graph = check(model(nodes, X, Y, constants), ["Reshape"], infer_and_fold)
    assert graph.nodes[0].inputs[1] is not None and graph.outputs[0].dims == (2, 12)


def test_constant_nodes_and_constant_outputs() -> None:
    value = numpy_helper.from_array(floats(4), "v")
    nodes = [node("Constant", "", "c", value=value), node("Neg", "c", "d"), node("Add", "x d", "y")]
    graph = check(model(nodes, X, {"y": None, "d": None}), ["Add"], infer_and_fold)
    assert np.array_equal(graph.outputs[1].array, -floats(4))


def test_dynamic_dimensions_stay_open_and_static_parts_fold() -> None:
    nodes = [node("Neg", "c", "d"), node("Add", "x d", "a"), node("Shape", "a", "s"),
             node("Reshape", "a s", "y")]  # fmt: skip
    graph = rewritten(model(nodes, {"x": ["n", 4]}, Y, {"c": floats(4)}), infer_and_fold)
    assert operators(graph) == ["Add", "Shape", "Reshape"]
    assert len(passes.unresolved(graph)) == 3


def test_values_that_decide_a_shape_stay_open() -> None:
    nodes = [node("Relu", "x", "r"), node("Reshape", "r s", "a"), node("Neg", "a", "y")]
    graph = rewritten(model(nodes, X | {"s": ("int64", [2])}, Y), infer_and_fold)
    assert [n.op_type for n in passes.unresolved(graph)] == ["Reshape", "Neg"]


def test_sizes_of_folded_constants_are_bounded() -> None:
    value = helper.make_tensor("v", 1, [1], [1.0])
    nodes = [node("ConstantOfShape", "s", "c", value=value), node("Add", "x c", "y")]
    proto = model(nodes, {"x": [1]}, Y, {"s": np.array([1 << 36])})
    assert operators(rewritten(proto, infer_and_fold)) == ["ConstantOfShape", "Add"]


def test_sizes_of_folded_constants_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["vkconv.passes.infer_and_fold"]
    monkeypatch.setattr(module, "FOLD_TOTAL_BYTES", 10_000)
    names = [f"c{i}" for i in range(8)]
    nodes = [node("ConstantOfShape", "s", n) for n in names]
    proto = model(nodes, {}, dict.fromkeys(names), {"s": np.array([500])})
    graph = read_model(proto)
    infer_and_fold(graph)
    assert len(graph.nodes) == 3


def test_shape_of_a_tensor_too_large_to_exist() -> None:
    proto = model([node("Shape", "x", "y")], {"x": [1 << 40, 1 << 40]}, Y)
    with pytest.raises(InvalidModelError, match="Shape"):
        rewritten(proto, infer_and_fold)


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        ([node("Add", "x c", "y")], {"c": floats(5)}, "do not broadcast"),
        ([node("Conv", "x c", "y")], {"c": floats(5)}, "Conv:y"),
        ([node("Relu", "x", "y z")], {}, "2 outputs"),
        ([node("Reshape", "c s", "y")], {"c": floats(5), "s": np.array([7])}, "Reshape:y"),
        ([node("Transpose", "x", "y", perm=[0, 1])], {}, "Transpose:y"),
        ([node("Gather", "c i", "y")], {"c": floats(5), "i": np.array([9])}, "Gather:y"),
        ([node("Concat", "x -  x", "y", axis=0)], {}, "Concat:y"),
    ],
)
def test_inputs_that_do_not_fit_name_the_node(nodes: list, constants: dict, message: str) -> None:
    outputs = dict.fromkeys(nodes[-1].output)
    with pytest.raises(VkconvError, match=message) as caught:
        rewritten(model(nodes, X, outputs, constants), infer_and_fold)
    assert "\n" not in str(caught.value)


def test_folding_a_copy_leaves_the_original() -> None:
    graph = read_model(model([node("Neg", "c", "d"), node("Add", "x d", "y")], X, Y,
                             {"c": floats(4)}))  # fmt: skip
    twin = graph.copy()
    infer_and_fold(twin)
    assert operators(twin) == ["Add"] and operators(graph) == ["Neg", "Add"]
    weights = [v.array for g in (graph, graph.copy()) for v in g.values() if v.name == "c"]
    assert weights[0] is weights[1]
