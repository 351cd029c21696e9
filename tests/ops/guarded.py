"""A node between guards: its first input lies amid other data in one storage, and so does its first
output.

What is read out of bounds is then plainly wrong, and what is written there spoils the neighbours,
which are checked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

import vkconv
from tests.harness import IR_VERSION, Case, assert_close
from vkconv.ir import Array

GUARD = 1.0e30


@dataclass(frozen=True)
class Guarded:
    output: Array
    before: Array
    after: Array


def run_guarded(case: Case) -> Guarded:
    """The case's one output, and what its neighbours (one more of its like on each side) hold
    afterwards."""
    x, *rest = case.inputs
    assert x is not None and x.dtype == np.float32
    guard = np.full_like(x, GUARD)
    names = [f"input_{i}" for i in range(len(case.inputs))]
    expected = case.expected()[0]
    neighbour = np.ones((1, *expected.shape[1:]), np.float32)
    nodes = [
        helper.make_node("Split", ["whole", "sizes"], ["low", names[0], "high"], axis=0),
        helper.make_node("Neg", ["neighbour"], ["left"]),
        helper.make_node("Abs", ["neighbour"], ["right"]),
        helper.make_node(case.op_type, names, ["result"], **dict(case.attributes)),
        helper.make_node("Concat", ["left", "result", "right"], ["output"], axis=0),
    ]
    constants = [numpy_helper.from_array(np.full(3, len(x), np.int64), "sizes")]
    feeds = {"whole": np.concatenate([guard, x, guard]), "neighbour": neighbour}
    feeds |= {name: array for name, array in zip(names[1:], rest, strict=True) if array is not None}
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in feeds.items()
    ]
    outputs = [helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "guarded", inputs, outputs, constants)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=IR_VERSION
    )
    with vkconv.InferenceSession(model) as session:
        (whole,) = session.run(None, feeds)
        placed = [(p.op_type, p.where) for p in session.placement]
    assert (case.op_type, "gpu") in placed
    return Guarded(whole[1:-1], whole[0], whole[-1])


def check_guarded(case: Case) -> None:
    """The case agrees with ``reference``, and nothing beside it was touched."""
    found = run_guarded(case)
    assert_close(found.output, case.expected()[0])
    assert (found.before == -1).all() and (found.after == 1).all()


#: indices far outside any tensor, and some inside
WILD = np.array([0, -1, 2**31 - 1, -(2**31), 7, -8, 100, -100, 2**31 - 8, 3], np.int64)
