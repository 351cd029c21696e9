"""Spatial operators on feature maps amid other channels.

x is a channel slice of a wider C4 tensor full of enormous numbers, y a part of a concatenation: a
read outside x is then plainly wrong, and a write outside y spoils a neighbour.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import vkconv
from tests.harness import IR_VERSION, Case, assert_close, random
from tests.ops.test_conv import conv, transposed
from tests.ops.test_deform_conv import deform
from tests.ops.test_grid_sample import sample
from tests.ops.test_lp_pool import pool as lp_pool
from tests.ops.test_roi_align import align
from tests.ops.test_roi_align import pool as roi_pool
from vkconv.ir import Array

GUARD = 1.0e30
#: channels on each side
MARGIN = 4
WILD = np.array([1e30, -1e30, np.inf, -np.inf, np.nan, 2.0**31, -3.0, 40.0], np.float32)


def scatter_wild(array: Array | None, every: int) -> Array:
    """The array with one element in ``every`` replaced by one of WILD."""
    assert array is not None
    changed = np.array(array)
    places = changed.reshape(-1)[::every]
    places[:] = np.resize(WILD, len(places))
    return changed


def with_input(case: Case, position: int, array: Array) -> Case:
    inputs = list(case.inputs)
    inputs[position] = array
    return case.but(inputs=tuple(inputs))


def _deform(case: Case) -> Case:
    return with_input(case, 2, scatter_wild(case.inputs[2], 5))


PADS = [1, 1, 1, 1]
CASES = [
    _deform(deform((2, 8, 9, 7), 8, (3, 3), pads=PADS)),
    _deform(deform((2, 8, 9, 7), 12, (3, 3), group=2, offset_group=2, pads=PADS)),
    _deform(deform((2, 8, 6, 7), 8, (3, 3), group=4, offset_group=4, mask=False, pads=PADS)),
    *(
        with_input(case, 1, scatter_wild(case.inputs[1], 3))
        for case in (
            sample((2, 8, 6, 7), (5, 4), mode=mode, padding_mode=padding)
            for mode in ("nearest", "linear", "cubic")
            for padding in ("zeros", "border", "reflection")
        )
    ),
    sample((2, 4, 3, 6, 7), (2, 5, 4), mode="linear"),
    with_input(
        align((3, 8, 9, 7), 6, (3, 2)), 2, np.array([0, 7, -1, 2**31 - 1, -(2**31), 2], np.int64)
    ),
    with_input(roi_pool((3, 8, 9, 7), 6, (3, 2)), 1, scatter_wild(random(6, 5, high=9), 4)),
    lp_pool((2, 8, 7, 6), kernel_shape=[3, 3], pads=PADS),
    conv((2, 8, 3, 5, 6), 8, (3, 3, 3), pads=[1] * 6),
    conv((2, 8, 3, 5, 6), 8, (3, 3, 3), group=4, pads=[1] * 6),
    conv((2, 8, 9, 7), 8, (3, 3), pads=PADS).but(constant=()),
    conv((2, 8, 9, 7), 8, (3, 3), group=8, pads=PADS).but(constant=()),
    conv((2, 8, 9, 7), 12, (2, 2), group=4).but(constant=()),
    transposed((2, 8, 3, 4, 5), 8, (3, 3, 3), strides=[2, 1, 2], pads=[1] * 6),
    transposed((2, 8, 4, 5), 8, (3, 3), strides=[2, 2], group=2).but(constant=()),
]


def run_guarded(case: Case) -> tuple[Array, Array, Array]:
    """The case's output, and what the maps before and behind it hold afterwards."""
    x, *rest = case.inputs
    assert x is not None
    channels = x.shape[1]
    margin = np.full((x.shape[0], MARGIN, *x.shape[2:]), GUARD, np.float32)
    expected = case.expected()[0]
    neighbour = np.ones((expected.shape[0], MARGIN, *expected.shape[2:]), np.float32)
    constants = [numpy_helper.from_array(np.array([MARGIN, channels, MARGIN], np.int64), "sizes")]
    names = [f"input_{i}" if a is not None else "" for i, a in enumerate(case.inputs)]
    feeds = {"wide": np.concatenate([margin, x, margin], axis=1), "neighbour": neighbour}
    for i, array in enumerate(rest, 1):
        if array is not None and i in case.constant:
            constants.append(numpy_helper.from_array(array, names[i]))
        elif array is not None:
            feeds[names[i]] = array

    def scaled(name: str, result: str, count: int, rank: int, factor: float) -> onnx.NodeProto:
        """A convolution that multiplies each channel: its output is C4."""
        kernel = np.full((count, 1, *[1] * (rank - 2)), factor, np.float32)
        constants.append(numpy_helper.from_array(kernel, f"{result}_weights"))
        return helper.make_node("Conv", [name, f"{result}_weights"], [result], group=count)

    nodes = [
        scaled("wide", "whole", channels + 2 * MARGIN, x.ndim, 1.0),
        helper.make_node("Split", ["whole", "sizes"], ["low", names[0], "high"], axis=1),
        scaled("neighbour", "left", MARGIN, expected.ndim, -1.0),
        scaled("neighbour", "right", MARGIN, expected.ndim, 1.0),
        helper.make_node(case.op_type, names, ["result"], "tested", **dict(case.attributes)),
        helper.make_node("Concat", ["left", "result", "right"], ["output"], axis=1),
    ]
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in feeds.items()
    ]
    outputs = [helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "guarded", inputs, outputs, constants)
    opset = [helper.make_opsetid("", case.opset)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
    with vkconv.InferenceSession(model) as session:
        (found,) = session.run(None, feeds)
        placed = {p.node: p.where for p in session.placement}
    assert placed["tested"] == "gpu"
    return found[:, MARGIN:-MARGIN], found[:, :MARGIN], found[:, -MARGIN:]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_outside_is_touched(case: Case) -> None:
    found, before, after = run_guarded(case)
    assert_close(found, case.expected()[0], case.reduction)
    assert (before == -1).all() and (after == 1).all()
