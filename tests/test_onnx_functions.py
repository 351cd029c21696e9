"""Model-local functions: expanded, within bounds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
from onnx import helper

from tests.small_models import floats, model, node
from tests.test_onnx_reader import refused
from vkconv import InferenceSession
from vkconv.onnx_reader import read_model


def with_functions(*bodies: tuple[str, list[onnx.NodeProto]]) -> onnx.ModelProto:
    proto = model(
        [node(bodies[0][0], "x", "y", domain="local")], {"x": [2]}, {"y": [2]},
        domains={"local": 1},
    )  # fmt: skip
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    for name, nodes in bodies:
        proto.functions.append(helper.make_function("local", name, ["a"], ["b"], nodes, imports))
    return proto


def test_functions_are_expanded() -> None:
    inner = [node("Relu", "a", "b")]
    outer = [node("Inner", "a", "t", domain="local"), node("Neg", "t", "b")]
    proto = with_functions(("Outer", outer), ("Inner", inner))
    assert [n.op_type for n in read_model(proto).nodes] == ["Relu", "Neg"]
    with InferenceSession(proto) as session:
        x = floats(2)
        assert np.array_equal(session.run(None, {"x": x})[0], -np.maximum(x, 0))


def test_functions_that_call_themselves_or_explode() -> None:
    assert "call themselves" in refused(
        with_functions(("Same", [node("Same", "a", "b", domain="local")]))
    )
    bodies = []
    for level in range(8):
        names = ["a", *(f"t{i}" for i in range(9)), "b"]
        bodies.append((
            f"F{level}",
            [node(f"F{level + 1}" if level < 7 else "Relu", s, t,
                  domain="local" if level < 7 else "")
             for s, t in pairwise(names)],
        ))  # fmt: skip
    assert "expand to more than" in refused(with_functions(*bodies))
