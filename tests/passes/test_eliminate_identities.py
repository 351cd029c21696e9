"""Nodes that hand on their input go; everything that looks alike and is not stays."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from tests.passes.rewriting import check, operators, rewritten
from tests.small_models import floats, model, node
from vkconv.errors import UnsupportedModelError
from vkconv.passes.eliminate_identities import eliminate_identities

PASS = eliminate_identities
X = {"x": [2, 3, 4]}


def y(*shape: int) -> dict[str, list[int]]:
    return {"y": list(shape)}


def test_chain_of_identities_between_input_and_output() -> None:
    chain = [node("Identity", "x", "a"), node("Identity", "a", "b"), node("Identity", "b", "y")]
    graph = check(model(chain, X, y(2, 3, 4)), [], PASS)
    assert graph.outputs == graph.inputs
    assert set(graph.absorbed) == {"Identity:a", "Identity:b", "Identity:y"}


def test_identity_read_by_several_and_as_output() -> None:
    nodes = [node("Identity", "x", "a"), node("Relu", "a", "r"), node("Add", "a r", "y")]
    check(model(nodes, X, {"y": [2, 3, 4], "a": [2, 3, 4]}), ["Relu", "Add"], PASS)


@pytest.mark.parametrize("op_type", ["Concat", "Sum", "Max", "Min"])
def test_variadic_of_one(op_type: str) -> None:
    given = {"axis": 1} if op_type == "Concat" else {}
    nodes = [node(op_type, "x", "a", **given), node("Relu", "a", "y")]
    check(model(nodes, X, y(2, 3, 4)), ["Relu"], PASS)
    if op_type != "Concat":
        two = [node(op_type, "x x", "a"), node("Relu", "a", "y")]
        check(model(two, X, y(2, 3, 4)), [op_type, "Relu"], PASS)


def test_dropout_of_inference() -> None:
    for inputs, constants in (
        ("x", {}),
        ("x ratio", {"ratio": np.float32(0.3)}),
        ("x ratio training", {"ratio": np.float32(0.3), "training": np.array(False)}),
    ):
        nodes = [node("Dropout", inputs, "a mask"), node("Relu", "a", "y")]
        check(model(nodes, X, y(2, 3, 4), constants), ["Relu"], PASS)


def test_dropout_whose_mask_is_read_or_that_trains_stays() -> None:
    masked = [node("Dropout", "x", "a mask"), node("Not", "mask", "m")]
    outputs = {"a": [2, 3, 4], "m": ("bool", [2, 3, 4])}
    assert "Dropout" in operators(rewritten(model(masked, X, outputs), PASS))
    output = [node("Dropout", "x", "a mask")]
    proto = model(output, X, {"a": [2, 3, 4], "mask": ("bool", [2, 3, 4])})
    assert operators(rewritten(proto, PASS)) == ["Dropout"]
    trains = [node("Dropout", "x - training", "a")]
    proto = model(trains, X, {"a": [2, 3, 4]}, {"training": np.array(True)})
    with pytest.raises(UnsupportedModelError, match=r"Dropout:a.*training"):
        rewritten(proto, PASS)
    may = model(trains, X | {"training": ("bool", [])}, {"a": [2, 3, 4]})
    assert operators(rewritten(may, PASS)) == ["Dropout"]


def test_cast() -> None:
    nodes = [node("Cast", "x", "a", to=TensorProto.FLOAT), node("Relu", "a", "y")]
    check(model(nodes, X, y(2, 3, 4)), ["Relu"], PASS)
    nodes = [node("Cast", "x", "y", to=TensorProto.INT32)]
    check(model(nodes, X, {"y": ("int32", [2, 3, 4])}), ["Cast"], PASS)


@pytest.mark.parametrize("opset", [9, 17])
def test_pad_by_nothing(opset: int) -> None:
    for amounts, wanted in (([0] * 6, ["Relu"]), ([0, 0, 0, 0, 0, 1], ["Pad", "Relu"])):
        given = {"pads": amounts} if opset < 11 else {}
        nodes = [node("Pad", "x" if opset < 11 else "x p", "a", **given), node("Relu", "a", "y")]
        constants = {} if opset < 11 else {"p": np.array(amounts)}
        check(model(nodes, X, {"y": None}, constants, opset=opset), wanted, PASS)
    computed = model([node("Pad", "x p", "y")], X | {"p": ("int64", [6])}, {"y": None})
    assert operators(rewritten(computed, PASS)) == ["Pad"]


def test_transposes() -> None:
    def chain(*orders: list[int] | None) -> list[object]:
        names = ["x", *(f"t{i}" for i in range(len(orders)))]
        nodes = [
            node("Transpose", names[i], names[i + 1], **({} if order is None else {"perm": order}))
            for i, order in enumerate(orders)
        ]
        return [*nodes, node("Relu", names[-1], "y")]

    def run(*orders: list[int] | None, wanted: int) -> None:
        proto = model(chain(*orders), X, {"y": None})
        check(proto, ["Transpose"] * wanted + ["Relu"], PASS)

    run([0, 1, 2], wanted=0)
    run([1, 2, 0], [2, 0, 1], wanted=0)
    run([1, 2, 0], [1, 2, 0], wanted=2)
    run(None, None, wanted=0)
    run(None, [2, 1, 0], wanted=0)
    run(None, [0, 2, 1], wanted=2)


def test_transpose_that_is_read_elsewhere_stays_for_that_reader() -> None:
    nodes = [
        node("Transpose", "x", "a", perm=[2, 0, 1]),
        node("Transpose", "a", "b", perm=[1, 2, 0]),
        node("Relu", "b", "y"),
        node("Neg", "a", "z"),
    ]
    check(model(nodes, X, {"y": None, "z": None}), ["Transpose", "Relu", "Neg"], PASS)


def test_reshape_of_reshapes() -> None:
    nodes = [node("Flatten", "x", "a"), node("Unsqueeze", "a axes", "b"),
             node("Reshape", "b s1", "c"), node("Reshape", "c s2", "y")]  # fmt: skip
    constants = {"axes": np.array([0]), "s1": np.array([4, -1]), "s2": np.array([3, -1, 2])}
    graph = check(model(nodes, X, {"y": None}, constants), ["Reshape"], PASS)
    assert graph.nodes[0].inputs[0] is graph.inputs[0]


def test_reshape_that_copies_a_dimension_stays() -> None:
    nodes = [node("Flatten", "x", "a"), node("Reshape", "a s", "y")]
    proto = model(nodes, X, {"y": None}, {"s": np.array([0, 3, -1])})
    check(proto, ["Flatten", "Reshape"], PASS)
    nodes = [node("Reshape", "x s", "a"), node("Flatten", "a", "y")]
    check(model(nodes, X, {"y": None}, {"s": np.array([6, 4])}), ["Reshape", "Flatten"], PASS)


def test_empty_tensors_and_allowzero() -> None:
    nodes = [node("Reshape", "x s1", "a", allowzero=1), node("Reshape", "a s2", "y", allowzero=1)]
    constants = {"s1": np.array([0, 4]), "s2": np.array([0, 2, 2])}
    check(model(nodes, {"x": [0, 3]}, {"y": None}, constants), ["Reshape", "Reshape"], PASS)


def test_constants_behind_identities() -> None:
    nodes = [node("Identity", "c", "d"), node("Add", "x d", "y")]
    check(model(nodes, X, y(2, 3, 4), {"c": floats(4)}), ["Add"], PASS)


def test_other_domains_are_left_alone() -> None:
    nodes = [node("Identity", "x", "y", domain="com.example")]
    proto = model(nodes, X, y(2, 3, 4), domains={"com.example": 1})
    from vkconv.onnx_reader import read_model

    graph = read_model(proto)
    eliminate_identities(graph)
    assert len(graph.nodes) == 1


def test_infinite_in_a_wider_type() -> None:
    nodes = [node("Cast", "x", "a", to=TensorProto.DOUBLE), node("IsInf", "a", "y"),
             node("Cast", "x", "b", to=TensorProto.DOUBLE), node("IsNaN", "b", "z")]  # fmt: skip
    proto = model(nodes, X, {"y": ("bool", None), "z": ("bool", None)})
    check(proto, ["IsInf", "IsNaN"], PASS)


def test_infinite_in_a_narrower_type_is_asked_there() -> None:
    nodes = [node("Cast", "x", "a", to=TensorProto.FLOAT16), node("IsInf", "a", "y")]
    proto = model(nodes, X, {"y": ("bool", None)})
    assert operators(rewritten(proto, PASS)) == ["Cast", "IsInf"]
