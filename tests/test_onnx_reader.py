"""Reading models: sources, graphs in order, attributes, and everything a file can have wrong."""

from __future__ import annotations

import io
import time
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from PIL import Image

from tests.small_models import floats, model, node
from vkconv import InferenceSession
from vkconv.errors import InvalidModelError, UnsupportedModelError, VkconvError
from vkconv.ir import Opaque
from vkconv.onnx_reader import read_model


def small() -> onnx.ModelProto:
    return model(
        [node("Add", "x c", "sum"), node("Relu", "sum", "y")], {"x": [2, 3]}, {"y": [2, 3]},
        {"c": floats(3)},
    )  # fmt: skip


def refused(source: object) -> str:
    """The message of the error that reading ends with: one line."""
    with pytest.raises(InvalidModelError) as caught:
        read_model(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def unsupported(proto: onnx.ModelProto) -> UnsupportedModelError:
    with pytest.raises(UnsupportedModelError) as caught:
        InferenceSession(proto, device="reference")
    assert "\n" not in str(caught.value)
    return caught.value


# --- where a model comes from -------------------------------------------------------------------


def test_path_bytes_and_proto_give_the_same_graph(tmp_path: Path) -> None:
    proto, path = small(), tmp_path / "small.onnx"
    onnx.save(proto, path)
    data = proto.SerializeToString()
    for source in (path, str(path), data, bytearray(data), memoryview(data), proto):
        graph = read_model(source)
        assert [n.op_type for n in graph.nodes] == ["Add", "Relu"]
        assert graph.output_names == ["y"] and [v.name for v in graph.inputs] == ["x"]
        assert graph.opsets == {"": 17} and graph.nodes[0].opset == 17


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [b"", b"hello, this is text", b"\x00" * 100, b"\xff" * 64, picture(),
     np.random.default_rng(0).bytes(4096)],
    ids=["empty", "text", "zeros", "ones", "image", "random"],
)  # fmt: skip
def test_what_is_no_model(data: bytes, tmp_path: Path) -> None:
    assert "ONNX model" in refused(data)
    path = tmp_path / "file.onnx"
    path.write_bytes(data)
    assert "file.onnx" in refused(path)


def test_every_cut_is_noticed() -> None:
    data = small().SerializeToString()
    for length in range(len(data)):
        with pytest.raises(VkconvError):
            InferenceSession(data[:length], device="reference")


def test_changed_bytes_raise_typed_errors_only() -> None:
    proto = model(
        [node("Conv", "x w b", "c", pads=[1, 1, 1, 1]), node("Reshape", "c s", "r"),
         node("Softmax", "r", "y", axis=-1)],
        {"x": [1, 2, 4, 4]}, {"y": None},
        {"w": floats(2, 2, 3, 3), "b": floats(2), "s": np.array([2, -1])},
    )  # fmt: skip
    data = bytearray(proto.SerializeToString())
    random = np.random.default_rng(1)
    began, survived = time.perf_counter(), 0
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(int(random.integers(1, 4))):
            changed[int(random.integers(len(data)))] = int(random.integers(256))
        try:
            with InferenceSession(bytes(changed), device="reference") as session:
                feeds = {i.name: np.zeros([1, 2, 4, 4], np.float32) for i in session.get_inputs()}
                session.run(None, feeds)
            survived += 1
        except VkconvError:
            pass
    assert survived and time.perf_counter() - began < 30


def test_wrong_sources(tmp_path: Path) -> None:
    assert "check the path" in refused(tmp_path / "nothing.onnx")
    assert "cannot be read" in refused(tmp_path)
    assert "cannot be read" in refused("a\0b")
    assert "not int" in refused(3)
    assert "not list" in refused([b"x"])


# --- the graph ----------------------------------------------------------------------------------


def test_nodes_in_any_order_are_sorted_and_valid_order_is_kept() -> None:
    proto = small()
    proto.graph.node.reverse()
    assert [n.op_type for n in read_model(proto).nodes] == ["Add", "Relu"]
    names = [f"n{i}" for i in (3, 1, 2, 0)]
    parallel = model([node("Relu", "x", n) for n in names], {"x": [1]}, {n: [1] for n in names})
    assert [n.outputs[0].name for n in read_model(parallel).nodes] == names


def test_sorting_a_long_chain_takes_no_time() -> None:
    count = 20_000
    chain = [node("Relu", f"v{i}", f"v{i + 1}", name="same") for i in range(count)]
    proto = model(chain[::-1], {"v0": [1]}, {f"v{count}": [1]})
    began = time.perf_counter()
    graph = read_model(proto)
    assert time.perf_counter() - began < 10
    assert [n.inputs[0].name for n in graph.nodes if n.inputs[0]][:2] == ["v0", "v1"]
    assert len({n.name for n in graph.nodes}) == count


def test_cycles_are_named() -> None:
    nodes = [node("Relu", "a", "b", "first"), node("Relu", "b", "a", "second")]
    assert "cycle through 'first'" in refused(model(nodes, {}, {"b": [1]}))
    own = [node("Add", "x a", "a", "own")]
    assert "cycle through 'own'" in refused(model(own, {"x": [1]}, {"a": [1]}))


def test_dangling_names() -> None:
    assert "input 'z' of node 'Relu:y'" in refused(model([node("Relu", "z", "y")], {}, {"y": [1]}))
    assert "graph output 'q'" in refused(model([node("Relu", "x", "y")], {"x": [1]}, {"q": [1]}))
    assert "no outputs" in refused(model([node("Relu", "x", "y")], {"x": [1]}, {}))
    nameless = model([helper.make_node("Relu", ["x"], [])], {"x": [1]}, {"x": [1]})
    assert "has no output" in refused(nameless)


@pytest.mark.parametrize("case", ["two nodes", "input and node", "two initializers", "two inputs"])
def test_duplicate_values(case: str) -> None:
    proto = small()
    if case == "two nodes":
        proto.graph.node[1].output[0] = "sum"
    elif case == "input and node":
        proto.graph.node[1].output[0] = "x"
    elif case == "two initializers":
        proto.graph.initializer.append(proto.graph.initializer[0])
    else:
        proto.graph.input.append(proto.graph.input[0])
    assert "defined twice" in refused(proto) or "cycle" in refused(proto)


def test_node_names_become_unique_and_unnamed_nodes_named() -> None:
    nodes = [node("Relu", "x", "a", "n"), node("Relu", "a", "b", "n"), node("Relu", "b", "y", "n")]
    nodes.append(helper.make_node("Neg", ["x"], ["z"]))
    graph = read_model(model(nodes, {"x": [1]}, {"y": [1], "z": [1]}))
    names = [n.name for n in graph.nodes]
    assert names[0] == "n" and len(set(names)) == 4 and all(names)
    assert [name for name, _ in graph.source_nodes] == names


def test_names_with_odd_characters() -> None:
    names = ["a b", "日本/1:0", "x\ty", "%s{0}'\"", "🦆"]
    nodes = [helper.make_node("Neg", [a], [b]) for a, b in pairwise(names)]
    proto = model(nodes, {names[0]: [2]}, {names[-1]: [2]})
    with InferenceSession(proto) as session:
        x = floats(2)
        assert np.array_equal(session.run([names[-1]], {names[0]: x})[0], x)


def test_names_that_are_no_utf8() -> None:
    data = small().SerializeToString().replace(b"sum", b"s\xff\xfe")
    graph = read_model(data)
    assert graph.nodes[0].outputs[0].name == "s\\xff\\xfe"
    with InferenceSession(data, device="reference") as session:
        assert session.run(None, {"x": floats(2, 3)})[0].shape == (2, 3)


def test_omitted_inputs_and_outputs() -> None:
    nodes = [
        helper.make_node("Clip", ["x", "", "high", ""], ["y"]),
        helper.make_node("Split", ["x"], ["", "part", ""], axis=0, num_outputs=2),
    ]
    graph = read_model(
        model(nodes, {"x": [4]}, {"y": [4], "part": [2]}, {"high": np.float32(1)}, opset=18)
    )
    clip, split = graph.nodes
    assert [v and v.name for v in clip.inputs] == ["x", None, "high"]
    assert len(split.outputs) == 2 and split.outputs[1].name == "part" and split.outputs[0].name


def test_initializers() -> None:
    proto = small()
    proto.graph.input.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, [3]))
    proto.graph.initializer.append(numpy_helper.from_array(floats(7), "unused"))
    graph = read_model(proto)
    assert [v.name for v in graph.inputs] == ["x"]
    with InferenceSession(proto, device="reference") as session:
        assert [i.name for i in session.get_inputs()] == ["x"]
        (y,) = session.run(None, {"x": floats(2, 3)})
    assert np.array_equal(y, np.maximum(floats(2, 3) + floats(3), 0))


def test_outputs_may_be_inputs_initializers_and_repeated() -> None:
    proto = model([node("Relu", "x", "y")], {"x": [2]}, {"y": [2], "x": [2], "c": [3]},
                  {"c": floats(3)})  # fmt: skip
    proto.graph.output.append(proto.graph.output[0])
    with InferenceSession(proto) as session:
        x = floats(2)
        values = session.run(None, {"x": x})
    assert [o.name for o in session.get_outputs()] == ["y", "x", "c", "y"]
    for value, wanted in zip(values, (np.maximum(x, 0), x, floats(3), np.maximum(x, 0)),
                             strict=True):  # fmt: skip
        assert np.array_equal(value, wanted)


def test_declared_types() -> None:
    proto = small()
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_param = "batch"
    dims[1].dim_value = -1
    value = read_model(proto).inputs[0]
    assert value.type is not None and value.type.shape == ("batch", None)
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    value = read_model(proto).inputs[0]
    assert value.type is not None and value.type.shape is None


# --- attributes ---------------------------------------------------------------------------------


def test_attributes_of_every_kind() -> None:
    made = helper.make_node(
        "Odd", ["x"], ["y"], i=3, f=0.5, s="text", ints=[1, 2], floats=[0.5, 1.5],
        strings=["a", "b"], t=numpy_helper.from_array(floats(2), "t"),
        g=helper.make_graph([], "inner", [], []),
    )  # fmt: skip
    sparse = AttributeProto(name="sp", type=AttributeProto.SPARSE_TENSOR)
    sparse.sparse_tensor.CopyFrom(sparse_tensor())
    kind = AttributeProto(name="tp", type=AttributeProto.TYPE_PROTO)
    made.attribute.extend([sparse, kind])
    values = read_model(model([made], {"x": [1]}, {"y": [1]})).nodes[0].attributes
    assert np.array_equal(values.pop("t"), floats(2)) and values.pop("g") is not None
    assert np.array_equal(values.pop("sp"), [[0, 5, 0], [7, 0, 0]])
    assert values == {
        "i": 3, "f": 0.5, "s": "text", "ints": (1, 2), "floats": (0.5, 1.5), "strings": ("a", "b"),
        "tp": Opaque("type proto"),
    }  # fmt: skip


def test_attribute_without_type() -> None:
    made = node("Relu", "x", "y")
    made.attribute.append(AttributeProto(name="a", i=1))
    assert "attribute 'a' has no type" in refused(model([made], {"x": [1]}, {"y": [1]}))


def test_wrong_attributes_are_reported_with_all_others() -> None:
    nodes = [
        node("Relu", "x", "a", "unknown", surprise=1),
        node("LeakyRelu", "a", "b", "wrong", alpha="soft"),
        node("Add", "b", "c", "few"),
        node("Relu", "c c", "d", "many"),
        node("Add", "- d", "y", "omitted"),
    ]
    error = unsupported(model(nodes, {"x": [1]}, {"y": [1]}))
    assert [p.node for p in error.nodes] == ["unknown", "wrong", "few", "many", "omitted"]
    for word in ("surprise", "alpha", "1 inputs", "2 inputs", "omits its input"):
        assert word in str(error)


def sparse_tensor() -> onnx.SparseTensorProto:
    values = numpy_helper.from_array(np.array([5, 7], np.float32), "sparse")
    indices = numpy_helper.from_array(np.array([1, 3], np.int64), "indices")
    return helper.make_sparse_tensor(values, indices, [2, 3])


def test_reading_prints_and_warns_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_model(small().SerializeToString())
    captured = capfd.readouterr()
    assert not captured.out and not captured.err
