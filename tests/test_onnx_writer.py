"""Models edited where a rewrite changed their graph, and nowhere else."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.small_models import assert_same, expected, floats, info, model, node
from vkconv.ir import Fusion, Graph, Node, Value, constant
from vkconv.onnx_reader import open_model
from vkconv.onnx_writer import ModelEditor, contents_of, missing_operators
from vkconv.passes import fuse_linear

# --- what is not fused stays as it is -------------------------------------------------


def scale_and_shift(channels: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "gamma": random.uniform(0.5, 2, channels).astype(np.float32),
        "beta": random.standard_normal(channels).astype(np.float32),
        "mean": random.standard_normal(channels).astype(np.float32),
        "variance": random.uniform(0.5, 2, channels).astype(np.float32),
    }


NORM = "BatchNormalization"


def rich_model() -> onnx.ModelProto:
    """A convolution with a normalisation among everything else a model may hold."""
    then_branch = helper.make_graph(
        [node("Add", "n outside", "then_y")], "then", [], [info("then_y", None)]
    )
    else_branch = helper.make_graph(
        [node("Mul", "n own", "else_y")],
        "else",
        [],
        [info("else_y", None)],
        [numpy_helper.from_array(floats(1), "own")],
    )
    nodes = [
        node("Identity", "x", "same", name="identity"),
        node("Conv", "same w", "c", name="conv", pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        node(NORM, "c gamma beta mean variance", "n", name="norm"),
        node("ReduceMean", "x", "level", name="level", keepdims=0),
        node("Greater", "level outside", "cond"),
        node("If", "cond", "chosen", then_branch=then_branch, else_branch=else_branch),
        node("Shape", "x", "unread_shape", name="nobody reads this"),
        node("Twice", "chosen", "twice", domain="local"),
        node("Custom", "twice", "z", domain="com.example", level=3),
        node("Constant", "", "k", value=numpy_helper.from_array(floats(1), "k")),
        node("Add", "z k", "y"),
    ]
    nodes[1].doc_string = "the first layer"
    constants = {
        "w": floats(4, 3, 3, 3),
        **scale_and_shift(4),
        "outside": floats(),
        "idle": floats(7),
    }
    proto = model(
        nodes, {"x": ["batch", 3, 8, "width"]}, {"y": ["batch", 4, 8, "width"]}, constants,
        domains={"com.example": 2, "local": 1},
    )  # fmt: skip
    body = [node("Add", "a a", "b")]
    proto.functions.append(
        helper.make_function("local", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    )
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(floats(2), "thin"), numpy_helper.from_array(np.array([1, 3])), [4]
    )
    proto.graph.sparse_initializer.append(sparse)
    for name in ("c", "n", "chosen"):
        proto.graph.value_info.append(info(name, ["batch", 4, 8, "width"]))
    for name in ("c", "n"):
        proto.graph.quantization_annotation.add(tensor_name=name)
    proto.graph.doc_string, proto.doc_string = "of the graph", "of the model"
    proto.producer_name, proto.producer_version, proto.model_version = "someone", "1.2", 5
    proto.metadata_props.add(key="names", value="{0: 'cat'}")
    return proto


def fused(proto: onnx.ModelProto) -> onnx.ModelProto:
    editor = ModelEditor(open_model(proto))
    for graph in editor.graphs:
        fuse_linear(graph)
    return editor.write({"vkconv.fused": "a note"})


def test_nothing_but_the_fused_nodes_changes() -> None:
    proto = rich_model()
    before = onnx.ModelProto()
    before.CopyFrom(proto)
    made = fused(proto)
    assert proto == before, "the caller's model stays as it is"
    assert [n.name for n in made.graph.node] == [
        n.name for n in before.graph.node if n.name not in ("identity", "norm")
    ]
    by_name = {n.name: n for n in before.graph.node}
    for item in made.graph.node:
        if item.name != "conv":
            assert item == by_name[item.name]
    conv = next(n for n in made.graph.node if n.name == "conv")
    assert conv.doc_string == "the first layer" and conv.output == ["n"]
    assert list(conv.attribute) == list(by_name["conv"].attribute)
    assert len(conv.input) == 3 and conv.input[0] == "x"
    # types, annotations and weights of what is gone went with it; all else is there
    assert [v.name for v in made.graph.value_info] == ["n", "chosen"]
    assert [q.tensor_name for q in made.graph.quantization_annotation] == ["n"]
    kept = [t for t in before.graph.initializer if t.name in ("outside", "idle")]
    assert list(made.graph.initializer)[:2] == kept
    assert {t.name for t in made.graph.initializer[2:]} == set(conv.input[1:])
    assert [(p.key, p.value) for p in made.metadata_props] == [
        ("names", "{0: 'cat'}"),
        ("vkconv.fused", "a note"),
    ]
    # and the rest, field by field
    for field in ("node", "value_info", "quantization_annotation", "initializer"):
        made.graph.ClearField(field)
        before.graph.ClearField(field)
    del made.metadata_props[1:]
    assert made == before


def test_a_model_without_anything_to_fuse_is_not_touched() -> None:
    proto = rich_model()
    del proto.graph.node[2].attribute[:]
    proto.graph.node[2].input[1] = "x"  # a scale that the model computes
    assert fused(proto) == proto


def test_fusing_twice_changes_nothing_more() -> None:
    once = fused(rich_model())
    assert fused(once) == once


def conv_and_norm(prefix: str, source: str) -> list[onnx.NodeProto]:
    return [
        node("Conv", f"{source} w", f"{prefix}c"),
        node(NORM, f"{prefix}c gamma beta mean variance", f"{prefix}n"),
    ]


@pytest.mark.parametrize("trips", [0, 2])
def test_fusion_reaches_into_the_graphs_of_nodes(trips: int) -> None:
    """A convolution in a loop's body, whose weights lie outside; those go when none reads them."""
    body = helper.make_graph(
        [
            *conv_and_norm("", "state"),
            node("Identity", "going_in", "going_on"),
        ],
        "body",
        [info("i", ("int64", [])), info("going_in", ("bool", [])), info("state", None)],
        [info("going_on", ("bool", [])), info("n", None)],
    )
    constants = {"w": floats(3, 3, 1, 1), **scale_and_shift(3), "trips": np.array(trips)}
    proto = model(
        [node("Loop", "trips - x", "y", body=body)],
        {"x": [1, 3, 4, 4]},
        {"y": [1, 3, 4, 4]},
        constants,
    )
    made = fused(proto)
    onnx.checker.check_model(made, full_check=True)
    inner = made.graph.node[0].attribute[0].g
    assert [n.op_type for n in inner.node] == ["Conv", "Identity"]
    assert [t.name for t in made.graph.initializer] == ["trips"]
    assert {t.name for t in inner.initializer} == set(inner.node[0].input[1:])
    feeds = {"x": floats(1, 3, 4, 4)}
    assert_same(expected(made, feeds), expected(proto, feeds))


def test_weights_that_others_read_stay() -> None:
    proto = model(
        [*conv_and_norm("a", "x"), node("Relu", "an", "r"), node("Conv", "r w", "y")],
        {"x": [1, 3, 4, 4]},
        {"y": [1, 3, 4, 4]},
        {"w": floats(3, 3, 1, 1), **scale_and_shift(3)},
    )
    made = fused(proto)
    assert made.graph.initializer[0] == proto.graph.initializer[0]
    assert [n.op_type for n in made.graph.node] == ["Conv", "Relu", "Conv"]
    feeds = {"x": floats(1, 3, 4, 4)}
    assert_same(expected(made, feeds), expected(proto, feeds))


def test_names_of_new_weights_are_new_to_the_whole_model() -> None:
    proto = model(
        [*conv_and_norm("a", "x"), node("Relu", "an", "r"), node("Conv", "r w", "y")],
        {"x": [1, 3, 4, 4]},
        {"y": [1, 3, 4, 4]},
        {"w": floats(3, 3, 1, 1), **scale_and_shift(3)},
    )
    for wanted in [t.name for t in fused(proto).graph.initializer]:
        if wanted != "w":
            proto.graph.initializer.append(numpy_helper.from_array(floats(2), wanted))
    made = fused(proto)
    names = [t.name for t in made.graph.initializer]
    assert len(names) == len(set(names)) == 5
    feeds = {"x": floats(1, 3, 4, 4)}
    assert_same(expected(made, feeds), expected(proto, feeds))


@pytest.mark.parametrize("ir_version", [3, 8])
def test_initializers_among_the_inputs(ir_version: int) -> None:
    """IR version 3 wants every initializer to be listed as an input."""
    proto = model(
        conv_and_norm("", "x"),
        {"x": [1, 3, 4, 4]},
        {"n": [1, 3, 4, 4]},
        {"w": floats(3, 3, 1, 1), **scale_and_shift(3)},
        opset=8,
    )
    proto.ir_version = ir_version
    proto.graph.input.extend(info(t.name, list(t.dims)) for t in proto.graph.initializer)
    onnx.checker.check_model(proto)
    made = fused(proto)
    onnx.checker.check_model(made, full_check=True)
    assert len(made.graph.node) == 1
    names = [i.name for i in made.graph.input]
    assert names == ["x", *(list(made.graph.node[0].input[1:]) if ir_version == 3 else [])]


def test_what_is_computed_from_sizes_survives_the_value_it_was_asked_of() -> None:
    """The shape of a value that is fused away is a constant then."""
    proto = model(
        [
            node("Conv", "x w", "c"),
            node("Shape", "c", "shape"),
            node(NORM, "c gamma beta mean variance", "n"),
            node("Reshape", "n shape", "y"),
        ],
        {"x": [1, 3, 4, 4]},
        {"y": [1, 3, 4, 4]},
        {"w": floats(3, 3, 1, 1), **scale_and_shift(3)},
    )
    editor = ModelEditor(open_model(proto))
    graph = editor.graph
    shape = graph.nodes.pop(1).outputs[0]
    shape.array, shape.producer = np.array([1, 3, 4, 4]), None
    fuse_linear(graph)
    made = editor.write({})
    assert [n.op_type for n in made.graph.node] == ["Conv", "Reshape"]
    assert "shape" in {t.name for t in made.graph.initializer}
    assert editor.removed == ["Shape:shape", f"{NORM}:n"]
    feeds = {"x": floats(1, 3, 4, 4)}
    assert_same(expected(made, feeds), expected(proto, feeds))


def test_nodes_that_a_rewrite_adds() -> None:
    """A chain of new nodes with values and constants of their own, before the node that reads
    it."""
    proto = model([node("Relu", "x", "y")], {"x": [2, 3]}, {"y": [2, 3]})
    editor = ModelEditor(open_model(proto))
    graph = editor.graph
    [relu] = graph.nodes
    doubled, shifted = Value("x"), Value("sum")
    two = constant("factor", np.float32([2]))
    graph.nodes = [
        Node("Mul", [relu.inputs[0], two], [doubled], {}, "double", "", 17),
        Node("Add", [doubled, two], [shifted], {}, "shift", "", 17),
        relu,
    ]
    relu.inputs = [shifted]
    graph.fusions.append(Fusion("made up", ("none",), "Relu:y", ""))
    made = editor.write({})
    onnx.checker.check_model(made, full_check=True)
    assert [list(n.output) for n in made.graph.node] == [["x_1"], ["sum"], ["y"]]
    x = floats(2, 3)
    assert_same(expected(made, {"x": x}), [np.maximum(2 * x + 2, 0)])


def test_gemm_of_an_old_opset_broadcasts_its_last_operand() -> None:
    proto = model(
        [node("MatMul", "x w", "p"), node("Add", "p b", "y", broadcast=1)],
        {"x": [2, 3]},
        {"y": [2, 4]},
        {"w": floats(3, 4), "b": floats(4)},
        opset=6,
    )
    editor = ModelEditor(open_model(proto))
    matmul, add = editor.graph.nodes
    matmul.op_type, matmul.inputs, matmul.outputs = (
        "Gemm",
        [*matmul.inputs, add.inputs[1]],
        add.outputs,
    )
    matmul.fused, editor.graph.nodes = ["Add:y"], [matmul]
    made = editor.write({})
    assert [(a.name, a.i) for a in made.graph.node[0].attribute] == [("broadcast", 1)]
    onnx.checker.check_model(made, full_check=True)


# --- what a model holds ---------------------------------------------------------------


def test_contents() -> None:
    nodes, parameters = contents_of(rich_model())
    assert nodes["If"] == nodes["com.example.Custom"] == nodes["local.Twice"] == 1
    assert nodes["Add"] == 2 and nodes["Mul"] == 1, "those inside branches count"
    weights = 4 * 3 * 9 + 4 * 4 + 1 + 7
    assert parameters == weights + 1 + 1 + 2, "of the constant, the branch and the sparse tensor"


def test_operators_that_the_opset_does_not_have() -> None:
    proto = model([node("Relu", "x", "y")], {"x": [2]}, {"y": [2]}, opset=17)
    old = Node("Relu", [], [Value("a")], opset=19)
    new = Node("DeformConv", [], [Value("b")], opset=19)
    other = Node("DeformConv", [], [Value("b")], opset=19, domain="com.example")
    graphs = [Graph("", [], [], [old]), Graph("", [], [], [old, new, other])]
    assert missing_operators(graphs, proto) == {1: [new]}
    proto.opset_import[0].version = 19
    assert not missing_operators(graphs, proto)
