"""``vkconv.fuse``: what becomes of a model, and what the report says of it."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import helper

import vkconv
from tests.fusion.models import rep_block
from tests.small_models import assert_same, expected, floats, info, model, node
from tests.test_onnx_writer import NORM, rich_model, scale_and_shift
from vkconv import InvalidModelError
from vkconv.fusion import fuse, proof


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


def test_bad_models(tmp_path: Path) -> None:
    for given, words in (
        (tmp_path / "none.onnx", "no model file"),
        (b"text", "not an ONNX model"),
        (onnx.ModelProto(), "holds no graph"),
        (3, "a model is a path, bytes or an onnx.ModelProto"),
    ):
        with pytest.raises(InvalidModelError, match=words):
            fuse(given)


def test_inputs_with_defaults_that_are_fused_are_named() -> None:
    proto = rep_block()
    proto.graph.input.append(info("w1", [4, 4, 1, 1]))
    fused = fuse(proto)
    assert fused.report.notes == ("weights that callers could override are fixed now: w1",)
    assert fused.is_proven and [i.name for i in fused.to_proto().graph.input] == ["images"]
