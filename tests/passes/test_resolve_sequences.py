"""Sequences of tensors disappear when a model is planned; onnxruntime judges the results."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

from tests.small_models import assert_same, expected, floats
from vkconv import InferenceSession
from vkconv.errors import InvalidModelError, UnsupportedModelError
from vkconv.ir import Array

pytestmark = pytest.mark.filterwarnings("ignore:nodes that run on the host:RuntimeWarning")


def model(text: str, opset: int = 17) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')


def compare(text: str, feeds: dict[str, Array], opset: int = 17) -> set[str]:
    """Where the nodes ran."""
    proto = model(text, opset)
    with InferenceSession(proto) as session:
        assert_same(session.run(None, feeds), expected(proto, feeds))
        return {p.where for p in session.placement}


@pytest.mark.parametrize("opset", [12, 17])
@pytest.mark.parametrize("split", ["", "scalar 2", "list 1 3 1"])
def test_split_take_and_join(split: str, opset: int) -> None:
    kind, *sizes = split.split() or [""]
    given = {"": "", "scalar": "int64 {2}", "list": "int64[3] {1, 3, 1}"}[kind]
    second = ", sizes" if given else ""
    text = f"""g (float[a,b] x) => (float[c,d] y, float[e,f] z, float[g,h,i] w, int64 n) {{
        {f"sizes = Constant<value = {given}>()" if given else ""}
        first = Constant<value = int64 {{0}}>()
        last = Constant<value = int64 {{-1}}>()
        s = SplitToSequence<axis = 0>(x{second})
        y = SequenceAt(s, last)
        t = SequenceErase(s, first)
        u = SequenceInsert(t, y, first)
        v = SequenceInsert(u, x)
        z = ConcatFromSequence<axis = 0>(v)
        same = SequenceConstruct(x, x)
        w = ConcatFromSequence<axis = -1, new_axis = 1>(same)
        n = SequenceLength(v)
    }}"""
    where = compare(text, {"x": floats(5, 3)}, opset)
    assert where <= {"gpu", "folded"}
    assert sizes or kind == ""


def test_parts_without_their_axis() -> None:
    text = """g (float[a,b] x) => (float[b] y, float[c] z) {
        one = Constant<value = int64 {1}>()
        s = SplitToSequence<axis = 0, keepdims = 0>(x)
        y = SequenceAt(s, one)
        z = ConcatFromSequence<axis = 0>(s)
    }"""
    compare(text, {"x": floats(3, 4)})


def test_a_sequence_that_a_loop_fills() -> None:
    text = """g (float[a,b] x) => (float[c,d] y) {
        three = Constant<value = int64 {3}>()
        yes = Constant<value = bool {1}>()
        none = SequenceEmpty<dtype = 1>()
        s = Loop(three, yes, none) <body = b_graph
            (int64 i, bool ci, seq(float[e,f]) u) => (bool co, seq(float[e,f]) v) {
            co = Identity(ci)
            k = Cast<to = 1>(i)
            t = Mul(x, k)
            v = SequenceInsert(u, t) }>
        y = ConcatFromSequence<axis = 0>(s)
    }"""
    assert compare(text, {"x": floats(2, 3)}) <= {"gpu", "folded"}


def test_sizes_that_the_model_computes() -> None:
    text = """g (float[a,b] x, int64[2] sizes) => (float[c,d] y) {
        one = Constant<value = int64 {1}>()
        s = SplitToSequence<axis = 0>(x, sizes)
        part = SequenceAt(s, one)
        y = Relu(part)
    }"""
    proto, x = model(text), floats(5, 3)
    with InferenceSession(proto) as session:
        for sizes in ([2, 3], [4, 1], [2, 3]):
            feeds = {"x": x, "sizes": np.array(sizes)}
            assert_same(session.run(None, feeds), expected(proto, feeds))


TAKE = """g (float[a,b] x{inputs}) => (float[c,d] y) {{
    at = Constant<value = int64 {{5}}>()
    s = SequenceConstruct(x, x)
    y = SequenceAt(s, {position})
}}"""


def test_positions_beyond_the_sequence() -> None:
    proto = model(TAKE.format(inputs="", position="at"))
    with pytest.raises(InvalidModelError, match="position 5 in a sequence of 2"):
        InferenceSession(proto)


def test_positions_that_the_model_computes_are_refused() -> None:
    proto = model(TAKE.format(inputs=", int64 p", position="p"))
    with (
        InferenceSession(proto) as session,
        pytest.raises(UnsupportedModelError, match="sequence of tensors"),
    ):
        session.run(None, {"x": floats(2, 3), "p": np.array(1)})


def test_sizes_that_do_not_fit() -> None:
    text = """g (float[4,3] x) => (float[c,d] y) {
        one = Constant<value = int64 {1}>()
        sizes = Constant<value = int64[2] {2, 3}>()
        s = SplitToSequence<axis = 0>(x, sizes)
        y = SequenceAt(s, one)
    }"""
    with pytest.raises(InvalidModelError, match="do not add up to 4"):
        InferenceSession(model(text))
