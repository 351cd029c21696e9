"""If, Loop and Scan: decided when planned, or in the run; onnxruntime judges the results."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

from tests.harness import assert_close, random
from vkconv import InferenceSession
from vkconv.errors import InvalidInputError, InvalidModelError, UnsupportedModelError
from vkconv.ir import Array
from vkconv.loops import DRIVEN
from vkconv.ops import control_flow

DEVICES = pytest.mark.parametrize("device", ["auto", "reference"])
TRUE, FALSE = np.array(True), np.array(False)


def model(text: str) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')


@pytest.fixture(autouse=True)
def _nodes_on_the_host() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def compare(text: str, *runs: dict[str, Array], device: str = "auto") -> dict[str, str]:
    """Runs a model on each of the feeds, and on the first again; where each node ran."""
    proto = model(text)
    oracle = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    with InferenceSession(proto, device=device) as session:
        for feeds in (*runs, runs[0]):
            results = zip(session.run(None, feeds), oracle.run(None, feeds), strict=True)
            for actual, expected in results:
                assert_close(actual, np.asarray(expected), 4)
        return {p.node: p.where for p in session.placement}


def run_once(proto: onnx.ModelProto, feeds: dict[str, Array]) -> None:
    with InferenceSession(proto) as session:
        session.run(None, feeds)


# --- If -----------------------------------------------------------------------------------------

BY_SHAPE = """g (float[a,b] x) => (float[c,d] y) {
    s = Shape(x)
    zero = Constant<value = int64[1] {0}>()
    two = Constant<value = int64[1] {2}>()
    rows = Gather(s, zero)
    is_two = Equal(rows, two)
    t = Relu(x)
    chosen = If(is_two) <
        then_branch = t_graph () => (float[e,f] o) { o = Add(t, x) },
        else_branch = e_graph () => (float[e,f] o) { k = Mul(t, t)
            o = Sub(k, x) }>
    y = Exp(chosen)
}"""

BY_DATA = """g (float[a,b] x, bool c) => (float[d,e] y) {
    t = Relu(x)
    chosen = If(c) <
        then_branch = t_graph () => (float[f,g] o) { o = Concat<axis = 0>(t, x) },
        else_branch = e_graph () => (float[f,g] o) { o = Identity(t) }>
    y = Softmax<axis = 1>(chosen)
}"""


@DEVICES
def test_branch_known_from_shapes(device: str) -> None:
    placed = compare(BY_SHAPE, {"x": random(3, 4)}, {"x": random(2, 4)}, device=device)
    assert placed["If_6"] == "folded" and "If_6/Mul_0" in placed
    if device == "auto":
        assert placed["If_6/Mul_0"] == placed["Relu_5"] == "gpu"


@DEVICES
def test_branch_known_in_the_run(device: str) -> None:
    x = random(3, 4)
    placed = compare(BY_DATA, {"x": x, "c": TRUE}, {"x": x, "c": FALSE}, device=device)
    assert placed["If_1"] == "folded" and "If_1/Concat_0" in placed
    if device == "auto":
        assert placed["If_1/Concat_0"] == placed["Softmax_2"] == "gpu"


def test_branches_that_compute_nothing() -> None:
    text = """g (float[2,3] x, bool c) => (float[2,3] y, float[2,3] z, float[1] k) {
        y, z, k = If(c) <
            then_branch = t_graph () => (float[2,3] o, float[2,3] p, float[1] q) {
                o = Neg(x)
                p = Identity(o)
                q = Constant<value = float[1] {1.5}>() },
            else_branch = e_graph () => (float[2,3] o, float[2,3] p, float[1] q) {
                o = Identity(x)
                p = Identity(x)
                q = Constant<value = float[1] {2.5}>() }>
    }"""
    proto = model(text)
    for item in proto.graph.node[0].attribute:
        graph = item.g
        if item.name == "then_branch":  # one value for two outputs
            del graph.node[1]
            graph.output[1].name = graph.node[0].output[0]
        else:  # outputs that the graph around has
            del graph.node[:2]
            graph.output[0].name = graph.output[1].name = "x"
    x = random(2, 3)
    with InferenceSession(proto) as session:
        for c, sign in ((TRUE, -1), (FALSE, 1), (TRUE, -1)):
            y, z, k = session.run(None, {"x": x, "c": c})
            assert np.array_equal(y, sign * x) and np.array_equal(z, sign * x)
            assert k == (1.5 if c else 2.5)


def test_branches_inside_branches_capture_from_both_graphs_around() -> None:
    text = """g (float[2,3] x, bool c, bool d) => (float[2,3] y) {
        t = Abs(x)
        y = If(c) <
            then_branch = t_graph () => (float[2,3] o) {
                u = Neg(t)
                o = If(d) <
                    then_branch = tt_graph () => (float[2,3] p) { p = Add(u, x) },
                    else_branch = te_graph () => (float[2,3] p) { p = Mul(u, t) }> },
            else_branch = e_graph () => (float[2,3] o) { o = Sub(t, x) }>
    }"""
    x = random(2, 3)
    compare(text, *({"x": x, "c": c, "d": d} for c in (TRUE, FALSE) for d in (TRUE, FALSE)))


# --- Loop ---------------------------------------------------------------------------------------

COUNTED = """g (float[a,b] x) => (float[a,b] y, float[n,a,b] s) {
    n = Constant<value = int64 {5}>()
    c = Constant<value = bool {1}>()
    y, s = Loop(n, c, x) <body = b_graph (int64 i, bool ci, float[d,e] v)
        => (bool co, float[d,e] vo, float[d,e] so) {
        co = Identity(ci)
        fi = Cast<to = 1>(i)
        vo = Add(v, fi)
        so = Mul(vo, x) }>
}"""

#: goes on while a sum is below a limit
UNTIL = """g (float[a,b] x, int64 n, float limit) => (float[a,b] y, float[n,a,b] s) {
    c = Constant<value = bool {1}>()
    w = Constant<value = float[1] {0.5}>()
    y, s = Loop(n, c, x) <body = b_graph (int64 i, bool ci, float[d,e] v)
        => (bool co, float[d,e] vo, float[d,e] so) {
        fi = Cast<to = 1>(i)
        step = Add(fi, w)
        vo = Add(v, step)
        largest = ReduceMax<keepdims = 0>(vo)
        co = Less(largest, limit)
        so = Mul(vo, x) }>
}"""


@DEVICES
def test_counted_loops_are_unrolled(device: str) -> None:
    placed = compare(COUNTED, {"x": random(2, 3)}, {"x": random(4, 5)}, device=device)
    assert placed["Loop_2"] == "folded" and "Loop_2/4/Mul_3" in placed


@DEVICES
def test_loops_that_data_ends_are_driven_from_the_host(device: str) -> None:
    x, limit = random(2, 3), np.array(20, np.float32)
    runs = [{"x": x, "n": np.array(n), "limit": limit} for n in (100, 3, 1)]
    assert compare(UNTIL, *runs, device=device)["Loop_2"] == "host"


def test_a_driven_loop_says_so_and_strict_refuses_it() -> None:
    feeds = {"x": random(2, 3), "n": np.array(2), "limit": np.array(9, np.float32)}
    with InferenceSession(model(UNTIL)) as session:
        with pytest.warns(RuntimeWarning, match=DRIVEN):
            session.run(None, feeds)
        details = {p.node: p.detail for p in session.placement}
    assert details["Loop_2"] == DRIVEN
    strict = InferenceSession(model(UNTIL), strict=True)
    with strict, pytest.raises(UnsupportedModelError, match="Loop_2"):
        strict.run(None, feeds)


def test_no_iteration() -> None:
    feeds = {"x": random(2, 3), "n": np.array(0), "limit": np.array(9, np.float32)}
    with InferenceSession(model(UNTIL)) as session:
        y, s = session.run(None, feeds)
    assert np.array_equal(y, feeds["x"]) and s.size == 0 and s.dtype == np.float32


def test_conditions_over_shapes_are_folded() -> None:
    """``while i < x.shape[0]``, as torch.jit.script writes it: no trip count of its own."""
    text = """g (float[a,b] x) => (float[b] y) {
        many = Constant<value = int64 {9223372036854775807}>()
        zero = Constant<value = int64 {0}>()
        one = Constant<value = int64 {1}>()
        start = Constant<value = float {0}>()
        s = Shape(x)
        rows = Gather(s, zero)
        any_row = Less(zero, rows)
        i, y = Loop(many, any_row, zero, start) <body = b_graph
            (int64 number, bool ci, int64 i, float[e] v) => (bool co, int64 ni, float[e] vo) {
            row = Gather(x, i)
            vo = Add(v, row)
            ni = Add(i, one)
            co = Less(ni, rows) }>
    }"""
    placed = compare(text, {"x": random(3, 4)}, {"x": random(6, 4)})
    assert placed["Loop_7"] == "folded" and set(placed.values()) <= {"folded", "gpu"}


def test_omitted_trip_count_and_condition() -> None:
    text = """g (float[2] x) => (float[2] y, float[2] z) {
        three = Constant<value = int64 {3}>()
        yes = Constant<value = bool {1}>()
        limit = Constant<value = float {50.0}>()
        y = Loop(three, , x) <body = a_graph (int64 i, bool ci, float[2] v)
            => (bool co, float[2] vo) {
            co = Identity(ci)
            vo = Add(v, v) }>
        z = Loop(, yes, x) <body = b_graph (int64 i, bool ci, float[2] v)
            => (bool co, float[2] vo) {
            vo = Add(v, v)
            m = ReduceMax<keepdims = 0>(vo)
            co = Less(m, limit) }>
    }"""
    proto = model(text.replace(", ,", ", nothing,").replace("(,", "(nothing,"))
    for node in proto.graph.node:
        for position, name in enumerate(node.input):
            if name == "nothing":
                node.input[position] = ""
    x = np.array([0.7, 1.0], np.float32)
    with InferenceSession(proto) as session:
        y, z = session.run(None, {"x": x})
    assert np.allclose(y, 8 * x) and np.allclose(z, 64 * x)


def test_state_that_grows_and_loops_inside_loops() -> None:
    text = """g (float[a] x, int64 n) => (float[b] y) {
        yes = Constant<value = bool {1}>()
        two = Constant<value = int64 {2}>()
        y = Loop(n, yes, x) <body = b_graph (int64 i, bool ci, float[d] v)
            => (bool co, float[f] vo) {
            co = Identity(ci)
            w = Loop(two, yes, v) <body = c_graph (int64 j, bool cj, float[e] u)
                => (bool ck, float[e] uo) {
                ck = Identity(cj)
                k = Cast<to = 1>(j)
                ux = Add(u, k)
                m = ReduceMax<keepdims = 1>(x)
                uo = Mul(ux, m) }>
            vo = Concat<axis = 0>(v, w) }>
    }"""
    x = random(3, low=-1, high=1)
    compare(text, *({"x": x, "n": np.array(n)} for n in (1, 2, 4)))


def test_a_branch_inside_a_driven_loop() -> None:
    text = """g (float[a,b] x, int64 n) => (float[a,b] y) {
        yes = Constant<value = bool {1}>()
        zero = Constant<value = float {0}>()
        y = Loop(n, yes, x) <body = b_graph (int64 i, bool ci, float[d,e] v)
            => (bool co, float[d,e] vo) {
            co = Identity(ci)
            total = ReduceSum<keepdims = 0>(v)
            positive = Less(zero, total)
            vo = If(positive) <
                then_branch = t_graph () => (float[d,e] o) { o = Sub(v, x) },
                else_branch = e_graph () => (float[d,e] o) { k = Add(x, x)
                    o = Add(v, k) }> }>
    }"""
    compare(text, {"x": np.abs(random(2, 3)), "n": np.array(7)})


# --- Scan ---------------------------------------------------------------------------------------

SCAN = """g (float[2,3] h, float[2,s,3] x) => (float[2,3] y, float[3,n] z) {
    w = Constant<value = float {0.25}>()
    y, z = Scan(h, x) <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
        scan_input_directions = [1], scan_output_directions = [1],
        body = b_graph (float[2,3] v, float[2,3] e) => (float[2,3] vo, float[3] so) {
        scaled = Mul(e, w)
        vo = Add(v, scaled)
        m = ReduceMean<keepdims = 0, axes = [0]>(vo)
        so = Tanh(m) }>
}"""


@DEVICES
def test_scan(device: str) -> None:
    runs = [{"h": random(2, 3), "x": random(2, n, 3)} for n in (1, 6)]
    assert compare(SCAN, *runs, device=device)["Scan_1"] == "folded"


def test_long_scans_are_driven_from_the_host() -> None:
    placed = compare(SCAN, {"h": random(2, 3), "x": random(2, 400, 3)})
    assert placed["Scan_1"] == "host" and len(placed) < 10


# --- what is wrong with a model -------------------------------------------------------------------


def test_unknown_operators_inside_graphs_are_listed() -> None:
    text = BY_DATA.replace("Concat<axis = 0>(t, x)", "Nonsense(t)").replace(
        "Identity(t)", "Odd(t, x)"
    )
    with pytest.raises(UnsupportedModelError) as caught:
        InferenceSession(model(text))
    assert {p.op_type for p in caught.value.nodes} == {"Nonsense", "Odd"}


@pytest.mark.parametrize("length", ["short", "long"])
def test_graphs_that_do_not_fit_their_node(length: str) -> None:
    for text in (BY_SHAPE, COUNTED, UNTIL, SCAN):
        proto = model(text)
        node = next(n for n in proto.graph.node if n.op_type in ("If", "Loop", "Scan"))
        for item in node.attribute:
            if item.type == onnx.AttributeProto.GRAPH:
                graph = item.g
                if length == "short":
                    del graph.output[-1]
                else:
                    graph.output.append(graph.output[0])
        feeds = {
            "x": random(2, 6, 3) if text is SCAN else random(3, 4), "h": random(2, 3),
            "n": np.array(3), "limit": np.array(5, np.float32),
        }  # fmt: skip
        known = {info.name for info in proto.graph.input}
        with pytest.raises(InvalidModelError, match=f"{node.op_type}_"):
            run_once(proto, {k: v for k, v in feeds.items() if k in known})


def test_endless_loops_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_flow, "MOST_ITERATIONS", 50)
    feeds = {"x": random(2, 3), "n": np.array(2**62), "limit": np.array(np.inf, np.float32)}
    with InferenceSession(model(UNTIL)) as session:
        with pytest.raises(InvalidInputError, match="does not end"):
            session.run(None, feeds)
        session.run(None, feeds | {"n": np.array(3)})


def test_loops_inside_loops_do_not_multiply_the_work_of_planning() -> None:
    body = "v = Add(u, one)"
    for level in range(8):
        body = f"""v = Loop(many, yes, u) <body = g{level} (int64 i{level}, bool c{level}, float w)
            => (bool d{level}, float z) {{ d{level} = Identity(c{level})
            {body.replace("u", "w").replace("v = ", "z = ")} }}>"""
    text = f"""g (float u) => (float v) {{
        many = Constant<value = int64 {{100}}>()
        yes = Constant<value = bool {{1}}>()
        one = Constant<value = float {{1.0}}>()
        {body}
    }}"""
    proto = model(text)
    # loading ends; nobody would wait for the run
    InferenceSession(proto).close()


def test_names_made_up_for_a_branch_are_free() -> None:
    text = BY_SHAPE.replace("t = Relu(x)", "t = Relu(x)\nq = Neg(x)").replace(
        "y = Exp(chosen)", "y = Add(chosen, q)"
    )
    proto = model(text)
    taken = "If_7/Add_0"
    proto.graph.node[6].name = taken  # what the taken branch's node would be called
    proto.graph.node[6].output[0] = taken
    proto.graph.node[8].input[1] = taken
    x = random(2, 4)
    with InferenceSession(proto) as session:
        (y,) = session.run(None, {"x": x})
    assert_close(y, np.maximum(x, 0) + x - x, 4)
