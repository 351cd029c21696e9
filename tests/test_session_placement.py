"""Where nodes run: on the device, by numpy, folded, fused, or later; and how that is told."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.small_models import assert_same, expected, floats, model, node
from tests.test_session import DEVICES, detector, feeds
from vkconv import InferenceSession
from vkconv.errors import InvalidInputError, InvalidModelError, UnsupportedModelError
from vkconv.inspection import describe_graph
from vkconv.passes import PASSES


def check(proto: onnx.ModelProto, given: dict[str, Any], *, device: str = "auto",
          runs: int = 1) -> dict[str, str]:  # fmt: skip
    """The session's results are onnxruntime's; returns where each node ran."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with InferenceSession(proto, device=device) as session:
            for _ in range(runs):
                assert_same(session.run(None, given), expected(proto, given))
            return {p.node: p.where for p in session.placement}


# --- shapes that the run decides ----------------------------------------------------------------


@DEVICES
def test_reshape_by_a_computed_shape(device: str) -> None:
    nodes = [node("Relu", "x", "r"), node("Reshape", "r shape", "a"), node("Softmax", "a", "y")]
    proto = model(nodes, {"x": [2, 6], "shape": ("int64", [2])}, {"y": None, "r": None})
    with InferenceSession(proto, device=device) as session:
        assert [p.where for p in session.placement][1:] == ["deferred", "deferred"]
        for shape in ([3, 4], [4, 3], [-1, 2], [3, 4], [12, 1], [1, 12], [2, 6], [6, -1]):
            given = {"x": floats(2, 6), "shape": np.array(shape)}
            assert_same(session.run(None, given), expected(proto, given))
        where = {p.node: p.where for p in session.placement}
        assert where["Softmax:y"] == ("gpu" if device == "auto" else "host")
        assert "then, shapes being known" in session.describe_plan()


@DEVICES
def test_range_expand_and_constant_of_shape_by_computed_values(device: str) -> None:
    nodes = [
        node("Range", "zero n one", "r"), node("Cast", "r", "f", to=1),
        node("ConstantOfShape", "dims", "z"), node("Expand", "x dims", "e"),
        node("Add", "e z", "a"), node("Relu", "x", "b"),
    ]  # fmt: skip
    constants = {"zero": np.array(0), "one": np.array(1)}
    inputs = {"x": [1, 3], "n": ("int64", []), "dims": ("int64", [2])}
    proto = model(nodes, inputs, {"f": None, "a": None, "b": None}, constants)
    for n, rows in ((4, 2), (1, 5)):
        given = {"x": floats(1, 3), "n": np.array(n), "dims": np.array([rows, 3])}
        check(proto, given, device=device, runs=2)


@DEVICES
def test_stages_behind_stages(device: str) -> None:
    """The second reshape's target is computed from what the first one made."""
    nodes = [
        node("Reshape", "x s", "a"), node("Shape", "a", "d"),
        node("ReduceSum", "a", "t", keepdims=0),
        node("Cast", "t", "i", to=7), node("Mul", "i two", "m"), node("Reshape", "m one", "v"),
        node("Concat", "v rest", "target", axis=0), node("Reshape", "a target", "y"),
    ]  # fmt: skip
    constants = {"two": np.array(2), "one": np.array([1]), "rest": np.array([-1])}
    outputs = {"y": None, "d": ("int64", None)}
    proto = model(nodes, {"x": [12], "s": ("int64", [2])}, outputs, constants)
    x = np.zeros(12, np.float32)
    x[0] = 2.0
    check(proto, {"x": x, "s": np.array([3, 4])}, device=device, runs=2)
    x[0] = 3.0
    check(proto, {"x": x, "s": np.array([2, 6])}, device=device)


@DEVICES
def test_an_output_whose_size_depends_on_data(device: str) -> None:
    nodes = [node("Relu", "x", "r"), node("NonZero", "r", "i"), node("Cast", "i", "y", to=1)]
    proto = model(nodes, {"x": [3, 4]}, {"y": None})
    for seed in range(3):
        check(proto, {"x": floats(3, 4, seed=seed)}, device=device)
    check(proto, {"x": -np.ones((3, 4), np.float32)}, device=device)


def test_a_shape_that_does_not_fit_is_a_typed_error_in_the_run() -> None:
    proto = model([node("Reshape", "x s", "y")], {"x": [6], "s": ("int64", [2])}, {"y": None})
    with InferenceSession(proto) as session:
        with pytest.raises(InvalidModelError, match="Reshape:y"):
            session.run(None, {"x": floats(6), "s": np.array([4, 4])})
        (y,) = session.run(None, {"x": floats(6), "s": np.array([2, 3])})
        assert y.shape == (2, 3)


# --- on the host --------------------------------------------------------------------------------


def host_model() -> onnx.ModelProto:
    """Float64 arithmetic between two convolutions."""
    nodes = [
        node("Conv", "x w", "a"), node("Cast", "a", "d", to=11), node("Exp", "d", "e", "first"),
        node("Mul", "e e", "m", "second"), node("Cast", "m", "f", to=1), node("Conv", "f w", "y"),
    ]  # fmt: skip
    return model(nodes, {"x": ["n", 4, 5, 5]}, {"y": None, "d": ("float64", None)},
                 {"w": floats(4, 4, 1, 1, scale=0.3)})  # fmt: skip


def test_host_steps_in_the_middle() -> None:
    where = check(host_model(), {"x": floats(2, 4, 5, 5)}, runs=2)
    assert where["first"] == where["second"] == "host"
    assert where["Conv:a"] == where["Conv:y"] == "gpu"


def test_one_warning_names_each_host_node_once() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with InferenceSession(host_model()) as session:
            for n in (1, 2, 1, 3):
                session.run(None, {"x": floats(n, 4, 5, 5)})
    told = [w for w in caught if issubclass(w.category, RuntimeWarning)]
    assert len(told) == 1 and told[0].filename == __file__
    message = str(told[0].message)
    assert message.count("'first'") == message.count("'second'") == 1 and "float64" in message


def test_the_warning_is_as_if_from_whoever_loads_the_model() -> None:
    proto = host_model()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.warns(RuntimeWarning, match="'first'") as caught:
        InferenceSession(proto).close()
    assert [w.filename for w in caught] == [__file__]


def test_the_reference_device_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with InferenceSession(host_model(), device="reference") as session:
            session.run(None, {"x": floats(1, 4, 5, 5)})


def test_strict_refuses_every_time() -> None:
    with InferenceSession(host_model(), strict=True) as session:
        for _ in range(2):
            with pytest.raises(UnsupportedModelError, match=r"strict=True.*'first'") as caught:
                session.run(None, {"x": floats(1, 4, 5, 5)})
            assert {"first", "second"} <= {p.node for p in caught.value.nodes}
    with InferenceSession(detector(), strict=True) as session:
        assert session.run(None, feeds())


@pytest.mark.parametrize(
    ("op_type", "dtype"), [("Add", "int64"), ("Mul", "float64"), ("Sub", "uint8"), ("Max", "int8")]
)
def test_arithmetic_of_other_dtypes(op_type: str, dtype: str) -> None:
    proto = model([node(op_type, "x x", "a"), node(op_type, "a x", "y")], {"x": (dtype, [5])},
                  {"y": (dtype, [5])})  # fmt: skip
    check(proto, {"x": np.arange(5).astype(dtype)})


def test_three_spatial_axes() -> None:
    proto = model([node("Conv", "x w", "c"), node("Relu", "c", "y")], {"x": [1, 2, 3, 4, 5]},
                  {"y": None}, {"w": floats(3, 2, 2, 2, 2)})  # fmt: skip
    check(proto, {"x": floats(1, 2, 3, 4, 5)})


# --- dtypes -------------------------------------------------------------------------------------


@DEVICES
def test_float16(device: str) -> None:
    nodes = [node("Conv", "x w", "a"), node("Relu", "a", "r"), node("Add", "r r", "y")]
    proto = model(nodes, {"x": ("float16", [1, 3, 4, 5])}, {"y": ("float16", None)},
                  {"w": (floats(4, 3, 1, 1) * 0.3).astype(np.float16)})  # fmt: skip
    check(proto, {"x": floats(1, 3, 4, 5).astype(np.float16)}, device=device)


@DEVICES
def test_integers_and_bools_in_and_out(device: str) -> None:
    nodes = [node("Concat", "i i", "j", axis=0), node("Cast", "b", "f", to=1),
             node("Cast", "f", "c", to=9), node("Identity", "b", "d")]  # fmt: skip
    inputs = {"i": ("int64", [3]), "b": ("bool", [4])}
    proto = model(nodes, inputs, {"j": ("int64", None), "c": ("bool", None), "d": ("bool", None),
                                  "i": ("int64", None)})  # fmt: skip
    given = {"i": np.array([-5, 0, 2**31 - 1]), "b": np.array([True, False, True, True])}
    check(proto, given, device=device)


def test_integers_beyond_int32_are_a_clear_error() -> None:
    proto = model([node("Concat", "i i", "j", axis=0)], {"i": ("int64", [2])}, {"j": None})
    with InferenceSession(proto) as session:
        for wide in (2**31, -(2**31) - 1, 2**62):
            with pytest.raises(InvalidInputError, match=f"'i'.*{wide}.*int32"):
                session.run(None, {"i": np.array([0, wide])})
        assert session.run(None, {"i": np.array([7, -7])})[0].tolist() == [7, -7, 7, -7]
    with InferenceSession(proto, device="reference") as session:
        assert session.run(None, {"i": np.array([0, 2**62])})[0][1] == 2**62


@DEVICES
def test_text(device: str) -> None:
    proto = model([node("Identity", "t", "u")], {"t": ("string", [2])}, {"u": ("string", [2])})
    with InferenceSession(proto, device=device) as session:
        (u,) = session.run(None, {"t": np.array(["a", "ü"], object)})
        assert list(u) == ["a", "ü"]


# --- placement, plan, profile -------------------------------------------------------------------


@DEVICES
def test_every_node_is_placed_once(device: str) -> None:
    proto = model(
        [
            node("Constant", "", "two", value_float=2.0), node("Conv", "x w", "c"),
            node("BatchNormalization", "c k k k v", "n"), node("Sigmoid", "n", "s"),
            node("Mul", "n s", "m"), node("Identity", "m", "i"), node("Mul", "i two", "t"),
            node("Shape", "t", "h"), node("Gather", "h zero", "g"), node("Flatten", "t", "f"),
            node("Neg", "x", "dead"), node("Cast", "f", "d", to=11), node("Exp", "d", "y"),
        ],
        {"x": [1, 3, 4, 4]}, {"y": ("float64", None), "g": ("int64", None)},
        {"w": floats(3, 3, 1, 1), "k": floats(3), "v": np.ones(3, np.float32),
         "zero": np.array(0)},
    )  # fmt: skip
    proto.graph.node[4].name = proto.graph.node[6].name = "twice"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with InferenceSession(proto, device=device) as session:
            placed = session.placement
    assert [p.op_type for p in placed] == [n.op_type for n in proto.graph.node]
    assert len({p.node for p in placed}) == len(placed)
    run = "gpu" if device == "auto" else "host"
    wanted = {
        "Constant": "folded", "Conv": run, "BatchNormalization": "fused", "Sigmoid": "fused",
        "Identity": "folded", "Shape": "folded", "Gather": "folded", "Flatten": run,
        "Neg": "folded", "Exp": "host",
    }  # fmt: skip
    assert {p.op_type: p.where for p in placed if p.op_type in wanted} == wanted
    assert [p.where for p in placed if p.op_type == "Mul"] == ["fused", run]
    details = {p.op_type: p.detail for p in placed}
    assert details["Sigmoid"] == details["BatchNormalization"] == "Conv:c"
    assert details["Identity"] == "hands on its input"
    if device == "auto":
        assert details["Flatten"] == "view" and details["Conv"].startswith("conv")
        assert "float64" in details["Exp"]


def test_describe_plan() -> None:
    with InferenceSession(detector()) as session:
        lines = session.describe_plan().splitlines()
    assert "dispatches" in lines[0] and "arena" in lines[0]
    assert any("Conv:a" in line and "conv2d" in line for line in lines)
    with InferenceSession(host_model()) as session:
        with pytest.warns(RuntimeWarning, match="Exp"):
            session.run(None, {"x": floats(1, 4, 5, 5)})
        assert "host: Exp" in session.describe_plan()


@pytest.mark.parametrize("kind", ["device", "host steps", "stages", "reference"])
def test_profile(kind: str, tmp_path: Path) -> None:
    proto, given = detector(), feeds()
    if kind == "host steps":
        proto, given = host_model(), {"x": floats(1, 4, 5, 5)}
    elif kind == "stages":
        nodes = [node("Relu", "x", "r"), node("Reshape", "r s", "a"), node("Neg", "a", "y")]
        proto = model(nodes, {"x": [6], "s": ("int64", [2])}, {"y": None})
        given = {"x": floats(6), "s": np.array([2, 3])}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with InferenceSession(
            proto, device="reference" if kind == "reference" else "auto"
        ) as session:
            session.run(None, given)
            profile = session.profile(given)
            assert_same(profile.outputs, session.run(None, given))
            name = session.device.name
    rows = profile.rows()
    assert profile.device == name and rows
    assert abs(sum(r.share for r in rows) - 1) < 1e-6
    assert abs(sum(r.seconds for r in rows) - sum(s.duration for s in profile.steps)) < 1e-9
    assert [r.seconds for r in rows] == sorted((r.seconds for r in rows), reverse=True)
    assert len({r.node for r in rows}) == len(rows)
    profile.write_chrome_trace(tmp_path / "trace.json")
    trace = json.loads((tmp_path / "trace.json").read_text())
    events = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert len(events) == len(profile.steps)
    assert all(e["dur"] >= 0 and e["ts"] >= 0 and e["tid"] in (1, 2) for e in events)
    assert [p.name for p in tmp_path.iterdir()] == ["trace.json"]


def test_a_trace_that_cannot_be_written(tmp_path: Path) -> None:
    with InferenceSession(detector(), device="reference") as session:
        profile = session.profile(feeds())
    for path in (tmp_path / "nowhere" / "trace.json", tmp_path, "a\0b"):
        with pytest.raises(InvalidInputError, match="cannot write the trace"):
            profile.write_chrome_trace(path)
    assert not list(tmp_path.iterdir())


# --- graphs as text -----------------------------------------------------------------------------


@pytest.mark.parametrize("dynamic", [False, True])
def test_describe_graph_after_each_pass(dynamic: bool) -> None:
    proto = detector(dynamic=dynamic)
    names = ["read", "infer_and_fold", *(p.__name__ for p in PASSES), None]
    texts = {name: describe_graph(proto, name) for name in names}
    assert all(text.startswith("graph(image: float32[") for text in texts.values())
    assert "Sigmoid(a)" in texts["read"] and "Swish(a)" in texts["recognise_activations"]
    assert "vkconv.Conv" in texts["fuse_activation"]
    assert texts[None] == texts[PASSES[-1].__name__]
    assert "<- Add:r" in texts["fuse_linear_branches"]
    assert len(texts["read"].splitlines()) == 1 + len(proto.graph.node)


def test_describe_graph_refuses() -> None:
    with pytest.raises(InvalidInputError, match=r"no pass is called 'nothing'.*fuse_residual"):
        describe_graph(detector(), "nothing")
    unknown = model([node("Nonsense", "x", "y", domain="d")], {"x": [1]}, {"y": [1]},
                    domains={"d": 1})  # fmt: skip
    assert "d.Nonsense(x)" in describe_graph(unknown, "read")
    with pytest.raises(UnsupportedModelError, match="Nonsense"):
        describe_graph(unknown)
