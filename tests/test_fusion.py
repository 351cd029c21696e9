"""``vkconv.fuse``: the model, the report, and the proof."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import vkconv
from tests.small_models import assert_same, expected, floats, info, model, node
from tests.test_onnx_writer import NORM, conv_and_norm, rich_model, scale_and_shift
from tests.test_onnx_writer_files import external
from vkconv import FusionError, InvalidInputError, InvalidModelError, fusion
from vkconv.fusion import engines, fuse, proof, sizes
from vkconv.ir import Fusion, Graph, TensorType, Unfused, Value


def rep_block() -> onnx.ModelProto:
    """3x3 + 1x1 + identity, each with its normalisation, open in batch, height and width."""
    nodes = [
        node("Conv", "images w3", "c3", pads=[1, 1, 1, 1]),
        node(NORM, "c3 gamma beta mean variance", "n3"),
        node("Conv", "images w1", "c1"),
        node(NORM, "c1 gamma beta mean variance", "n1"),
        node(NORM, "images gamma beta mean variance", "n0"),
        node("Add", "n3 n1", "s"),
        node("Add", "s n0", "t"),
        node("Relu", "t", "y"),
    ]
    constants = {"w3": floats(4, 4, 3, 3), "w1": floats(4, 4, 1, 1), **scale_and_shift(4)}
    return model(
        nodes, {"images": ["n", 4, "h", "w"]}, {"y": ["n", 4, "h", "w"]}, constants, opset=15
    )


def test_a_block_of_branches_becomes_one_convolution() -> None:
    proto = rep_block()
    fused = fuse(proto)
    report = fused.report
    assert fused.is_proven and fused.proof is not None
    assert report.before.nodes == {"Conv": 2, NORM: 3, "Add": 2, "Relu": 1}
    assert report.after.nodes == {"Conv": 1, "Relu": 1}
    assert report.before.parameters == 4 * 4 * 9 + 4 * 4 + 4 * 4
    assert report.after.parameters == 4 * 4 * 9 + 4
    assert report.shapes == {"images": (1, 4, 64, 64)}
    assert report.after.flops == 2 * 4 * 64 * 64 * 4 * 9 < report.before.flops
    [done] = report.fusions
    assert done.into == "Conv:c3" and done.algebra
    assert set(done.nodes) == {n.name for n in proto.graph.node} - {"Conv:c3", "Relu:y"}
    assert {c.engine for c in fused.proof.comparisons} == {proof.BY_NUMPY, "onnxruntime"}
    assert all(0 < c.difference < 1e-4 and c.nmse < 1e-10 for c in fused.proof.comparisons)
    made = fused.to_proto()
    onnx.checker.check_model(made, full_check=True)
    assert "1 fusion" in {p.key: p.value for p in made.metadata_props}["vkconv.fused"]
    for shape in ((1, 4, 5, 7), (2, 4, 16, 9)):
        feeds = {"images": floats(*shape)}
        assert_same(expected(made, feeds), expected(proto, feeds))
    json.dumps(report.as_dict(), allow_nan=False)


@pytest.mark.parametrize("give", [bytes, Path, str, onnx.ModelProto])
def test_models_are_taken_as_a_session_takes_them(give: type, tmp_path: Path) -> None:
    proto = rep_block()
    path = tmp_path / "in.onnx"
    onnx.save(proto, path)
    given = {bytes: proto.SerializeToString(), Path: path, str: str(path)}.get(give, proto)
    fused = fuse(given)
    assert fused.is_proven and proto == rep_block()
    fused.save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == fused.to_bytes()
    with vkconv.InferenceSession(tmp_path / "out.onnx", device="reference") as session:
        feeds = {"images": floats(1, 4, 6, 6)}
        assert_same(session.run(None, feeds), expected(proto, feeds))


def test_nothing_to_fuse() -> None:
    proto = model([node("Relu", "x", "y")], {"x": [2]}, {"y": [2]})
    fused = fuse(proto)
    assert fused.proof is None and fused.is_proven and not fused.report.fusions
    assert fused.to_proto() == proto and fused.report.before == fused.report.after


def test_the_rest_of_a_model_may_be_unknown_here() -> None:
    """Custom operators, functions and branches stay; neither engine can run them, so nothing is
    proven."""
    fused = fuse(rich_model())
    assert len(fused.report.fusions) == 1
    assert fused.proof is not None and not fused.is_proven
    assert any("com.example" in note or "Custom" in note for note in fused.proof.notes)
    assert fused.to_proto().functions and fused.report.after.nodes["com.example.Custom"] == 1


def test_functions_are_expanded_where_fusion_reaches_inside() -> None:
    body = [node("Conv", "a k", "c"), node(NORM, "c g b m v", "r")]
    proto = model(
        [node("Block", "x w gamma beta mean variance", "y", domain="local")],
        {"x": [1, 3, 5, 5]},
        {"y": [1, 3, 5, 5]},
        {"w": floats(3, 3, 1, 1), **scale_and_shift(3)},
        domains={"local": 1},
    )
    inputs = ["a", "k", "g", "b", "m", "v"]
    imports = [helper.make_opsetid("", 17)]
    proto.functions.append(helper.make_function("local", "Block", inputs, ["r"], body, imports))
    fused = fuse(proto)
    assert fused.is_proven
    assert fused.report.before.nodes == {"local.Block": 1}
    assert fused.report.after.nodes == {"Conv": 1}
    assert fused.report.notes == ("its 1 local function expanded: fusion reaches inside",)


# --- the proof ------------------------------------------------------------------------


def breaking(change: Callable[[Graph], None]) -> Callable[[Graph], None]:
    """A fusion that is wrong."""

    def run(graph: Graph) -> None:
        change(graph)
        graph.nodes[0].fused.append("something")
        graph.fusions.append(Fusion("wrong", ("something",), graph.nodes[0].name, ""))

    return run


def one_percent_more(graph: Graph) -> None:
    weight = graph.nodes[0].inputs[1]
    assert weight is not None and weight.array is not None
    made = Value("more", weight.type, weight.array * np.float32(1.01))
    graph.nodes[0].inputs[1] = made


def unrunnable(graph: Graph) -> None:
    graph.nodes[0].attributes["pads"] = (-90, -90, -90, -90)


def test_a_wrong_fusion_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion, "fuse_linear", breaking(one_percent_more))
    fused = fuse(rep_block())
    assert fused.proof is not None and not fused.is_proven
    assert all(1e-6 < c.nmse < 1e-2 and c.difference > 0 for c in fused.proof.comparisons)
    target = tmp_path / "out.onnx"
    with pytest.raises(FusionError, match=r"not written: output 'y' differs on .*1e-06 is allowed"):
        fused.save(target)
    assert not target.exists()
    fused.save(target, force=True)
    assert target.exists()


def test_a_fused_model_that_does_not_run_is_not_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion, "fuse_linear", breaking(unrunnable))
    fused = fuse(rep_block())
    assert fused.proof is not None and not fused.is_proven
    assert any("but not the fused one" in failure for failure in fused.proof.failures)


def test_both_models_run_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine may fuse by itself, or it would compare the fused model with itself."""
    ran: list[list[str]] = []
    resolved = engines._resolved

    def watch(*arguments: Any) -> Graph:
        graph = resolved(*arguments)
        ran.append([n.op_type for n in graph.nodes])
        return graph

    monkeypatch.setattr(engines, "_resolved", watch)
    assert fuse(rep_block()).is_proven
    assert [len(kinds) for kinds in ran] == [8, 2]


def test_the_device_runs_every_node_by_its_own() -> None:
    fused = fuse(rep_block(), device=0)
    assert fused.is_proven and fused.proof is not None
    assert {c.engine for c in fused.proof.comparisons} == {proof.ON_DEVICE, "onnxruntime"}


def test_where_the_device_cannot_numpy_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "has_onnxruntime", lambda: False)
    fused = fuse(rep_block(), device="no such device")
    assert fused.is_proven and fused.proof is not None
    assert {c.engine for c in fused.proof.comparisons} == {proof.BY_NUMPY}
    first, second = fused.proof.notes
    assert "onnxruntime is not installed" in first and "no such device" in second


def test_outputs_that_do_not_depend_on_the_input_prove_nothing() -> None:
    dead = [*conv_and_norm("", "x"), node("Mul", "n zero", "y")]
    proto = model(
        dead,
        {"x": [1, 3, 4, 4]},
        {"y": [1, 3, 4, 4]},
        {"w": floats(3, 3, 1, 1), **scale_and_shift(3), "zero": np.zeros((4, 4), np.float32)},
    )
    fused = fuse(proto)
    assert fused.report.fusions and not fused.is_proven
    assert fused.proof is not None and "proves nothing" in fused.proof.verdict


def compared(found: Any, wanted: Any) -> proof.Comparison:
    return proof.compare("y", "e", [(np.asarray(wanted), np.asarray(found))])


def test_comparisons() -> None:
    same = compared([1.0, np.nan, np.inf], [1.0, np.nan, np.inf])
    assert same.difference == same.nmse == 0 and same.holds
    off = compared([1.0, 2.0], [1.0, 2.5])
    assert off.difference == 0.5 and np.isclose(off.nmse, 0.25 / 7.25) and not off.holds
    for found, wanted in (
        ([1.0, np.nan], [1.0, 2.0]),
        ([1.0, np.inf], [1.0, -np.inf]),
        ([1.0], [1.0, 2.0]),
        ([1], [1.0]),
        ([0.1, 0.0], [0.0, 0.0]),
        (["a"], ["b"]),
    ):
        assert not compared(found, wanted).holds
    assert compared(["a"], ["a"]).holds and compared([True], [True]).holds
    assert compared(np.zeros((0, 4)), np.zeros((0, 4))).holds
    assert compared(np.float16([1.004]), np.float16([1.0])).holds, "1e-4 is allowed in float16"
    rounds = [(np.ones(2), np.ones(2)), (np.zeros(2), np.ones(2))]
    assert proof.compare("y", "e", rounds).nmse == np.inf, "the worst of all inputs counts"


def test_without_proof() -> None:
    fused = fuse(rep_block(), prove=False)
    assert fused.proof is None and fused.report.fusions and not fused.is_proven


# --- sizes ----------------------------------------------------------------------------


def test_a_size_that_the_model_takes_is_found() -> None:
    """A head made for a map of 224 x 224 pixels."""
    proto = model(
        [
            *conv_and_norm("", "x"),
            node("Add", "n positions", "y"),
        ],
        {"x": ["n", "c", "h", "w"]},
        {"y": None},
        {"w": floats(3, 5, 1, 1), **scale_and_shift(3), "positions": floats(3, 224, 224)},
    )
    fused = fuse(proto)
    assert fused.is_proven and fused.report.shapes == {"x": (1, 5, 224, 224)}


def test_given_shapes_are_used() -> None:
    fused = fuse(rep_block(), shapes={"images": (2, 4, 9, 7)})
    assert fused.proof is not None and fused.proof.shapes == {"images": (2, 4, 9, 7)}
    for shapes, words in (
        ({"pictures": (1, 4, 8, 8)}, "no input 'pictures'; its inputs: images"),
        ({"images": (1, 3, 8, 8)}, "'images' of shape 1x3x8x8 does not fit nx4xhxw"),
        ({"images": (1, 4, 8)}, "does not fit"),
        ({"images": (0, 4, 8, 8)}, "does not fit"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            fuse(rep_block(), shapes=shapes)


def test_sizes_of_the_same_name_are_the_same() -> None:
    types = {
        "a": ("float32", ("n", 3, "h", "h")),
        "b": ("int64", ("n", "length")),
        "c": ("bool", ("length",)),
        "d": ("float16", None),
    }
    inputs = [Value(name, TensorType(*type_)) for name, type_ in types.items()]
    graph = Graph("", inputs, [], [])
    tried = list(sizes.possible_shapes(graph, {"b": (5, 11)}))
    assert tried[0] == {"a": (5, 3, 64, 64), "b": (5, 11), "c": (11,), "d": (1, 3, 64, 64)}
    assert len(tried) == len(sizes.SIDES)
    feeds = sizes.random_feeds(inputs, tried[0], 1)
    assert {name: (a.dtype.name, a.shape) for name, a in feeds.items()} == {
        "a": ("float32", (5, 3, 64, 64)),
        "b": ("int64", (5, 11)),
        "c": ("bool", (11,)),
        "d": ("float16", (1, 3, 64, 64)),
    }
    assert feeds["b"].min() >= 0 and feeds["b"].max() < 8
    with pytest.raises(InvalidInputError, match="too large for a proof"):
        sizes.random_feeds(inputs[:1], {"a": (1 << 20, 1 << 20)}, 1)


def test_a_contradiction_in_the_model_is_said(tmp_path: Path) -> None:
    proto = model(
        conv_and_norm("", "x"),
        {"x": [1, 7, 4, 4]},
        {"n": None},
        {"w": floats(3, 3, 1, 1), **scale_and_shift(3)},
    )
    with pytest.raises(FusionError, match=r"cannot run the model: Conv 'Conv:c': .* do not fit"):
        fuse(proto).save(tmp_path / "out.onnx")


def test_types_that_are_unknown_here_do_not_matter_elsewhere() -> None:
    """A cast to an 8-bit float behind what is fused: onnxruntime alone proves."""
    proto = model(
        [*conv_and_norm("", "x"), node("Cast", "n", "small", to=TensorProto.FLOAT8E4M3FN),
         node("Cast", "small", "y", to=TensorProto.FLOAT)],
        {"x": [1, 3, 4, 4]},
        {"y": None},
        {"w": floats(3, 3, 1, 1), **scale_and_shift(3)},
        opset=19,
    )  # fmt: skip
    fused = fuse(proto)
    assert fused.report.after.nodes == {"Conv": 1, "Cast": 2}
    assert fused.proof is not None and len(fused.proof.notes) == 1
    assert {c.engine for c in fused.proof.comparisons} == {"onnxruntime"}


# --- files ----------------------------------------------------------------------------


def test_the_model_that_is_read_is_not_overwritten(tmp_path: Path) -> None:
    source = external(tmp_path, data="out.onnx.data")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    fused = fuse(source)
    (tmp_path / "link.onnx").symlink_to(source)
    for target in (source, tmp_path / "link.onnx", tmp_path / "out.onnx"):
        with pytest.raises(InvalidInputError, match="belongs to the model that is read"):
            fused.save(target, force=True)
    (tmp_path / "link.onnx").unlink()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    fused.save(source, force=True, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "in.onnx",
        "in.onnx.data",
        "out.onnx.data",
    ]


def test_models_in_two_files_are_proven_too(tmp_path: Path) -> None:
    path = tmp_path / "in.onnx"
    onnx.save(rep_block(), path, save_as_external_data=True, location="in.data", size_threshold=100)
    fused = fuse(path)
    assert fused.is_proven
    fused.save(tmp_path / "out.onnx")
    feeds = {"images": floats(1, 4, 6, 6)}
    assert_same(expected(onnx.load(tmp_path / "out.onnx"), feeds), expected(rep_block(), feeds))


def test_bad_models(tmp_path: Path) -> None:
    for given, words in (
        (tmp_path / "none.onnx", "no model file"),
        (b"text", "not an ONNX model"),
        (onnx.ModelProto(), "holds no graph"),
        (3, "a model is a path, bytes or an onnx.ModelProto"),
    ):
        with pytest.raises(InvalidModelError, match=words):
            fuse(given)


# --- operators of a newer opset -------------------------------------------------------


def to_newer_operator(graph: Graph) -> None:
    """A stand-in for fusion that makes DeformConv, which opset 17 does not have."""
    kind = "deformable"
    if any(entry.kind == kind for entry in graph.unfused):
        return
    [conv] = graph.nodes
    conv.op_type, conv.opset, conv.fused = "DeformConv", 19, ["sampling"]
    offset = Value("offset", None, np.zeros((1, 2, 4, 4), np.float32))
    conv.inputs = [conv.inputs[0], conv.inputs[1], offset]
    graph.fusions.append(Fusion(kind, ("sampling",), conv.name, "y"))


def one_conv() -> onnx.ModelProto:
    return model(
        [node("Conv", "x w", "y")], {"x": [1, 3, 4, 4]}, {"y": None}, {"w": floats(3, 3, 1, 1)}
    )


def test_the_opset_is_raised_where_fusion_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion, "fuse_linear", to_newer_operator)
    proto = one_conv()
    proto.producer_name, proto.doc_string = "someone", "a model"
    proto.metadata_props.add(key="names", value="cat")
    fused = fuse(proto)
    assert fused.is_proven
    assert fused.report.notes == (
        "opset raised from 17 to 19, which has the operators that fusion made",
    )
    made = fused.to_proto()
    onnx.checker.check_model(made, full_check=True)
    assert [(i.domain, i.version) for i in made.opset_import] == [("", 19)]
    assert made.graph.node[0].op_type == "DeformConv" and made.graph.node[0].name == "Conv:y"
    assert (made.producer_name, made.doc_string) == ("someone", "a model")
    assert [p.key for p in made.metadata_props] == ["names", "vkconv.fused"]


def test_where_the_opset_cannot_be_raised_it_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    from vkconv.onnx_writer import opsets

    def fail(*_: object) -> None:
        raise RuntimeError("no adapter\nfor this")

    monkeypatch.setattr(fusion, "fuse_linear", to_newer_operator)
    monkeypatch.setattr(opsets.onnx.version_converter, "convert_version", fail)
    fused = fuse(one_conv())
    assert not fused.report.fusions and fused.to_proto() == one_conv()
    assert fused.report.unfused == (
        Unfused(
            "deformable",
            ("Conv:y",),
            "needs opset 19, and the model cannot be raised to that from 17 (no adapter); export "
            "it with opset 19 or newer",
        ),
    )


def test_sequences_and_half_precision() -> None:
    half = {
        k: v.astype(np.float16) for k, v in {"w": floats(3, 3, 1, 1), **scale_and_shift(3)}.items()
    }
    proto = model(
        [*conv_and_norm("", "x"), node("SequenceConstruct", "n x", "y")],
        {"x": ("float16", [1, 3, 4, 4])},
        {},
        half,
    )
    proto.graph.output.append(
        helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT16, None)
    )
    proto.graph.output.append(info("n", ("float16", None)))
    fused = fuse(proto)
    assert fused.is_proven and fused.proof is not None
    named = {c.output for c in fused.proof.comparisons if c.engine == "onnxruntime"}
    assert named == {"y[0]", "y[1]", "n"}


def test_inputs_with_defaults_that_are_fused_are_named() -> None:
    proto = rep_block()
    proto.graph.input.append(info("w1", [4, 4, 1, 1]))
    fused = fuse(proto)
    assert fused.report.notes == ("weights that callers could override are fixed now: w1",)
    assert fused.is_proven and [i.name for i in fused.to_proto().graph.input] == ["images"]


def test_inputs_too_large_for_a_proof_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "_MOST_ELEMENTS", 100)
    fused = fuse(rep_block())
    assert fused.proof is not None and not fused.is_proven
    assert "too large for a proof" in fused.proof.verdict
