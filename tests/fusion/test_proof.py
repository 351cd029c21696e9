"""Both models on the same inputs, as they are: what is proven, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.fusion.models import breaking, one_percent_more, rep_block
from tests.small_models import floats, info, model, node
from tests.test_onnx_writer import conv_and_norm, scale_and_shift
from vkconv import FusionError, fusion
from vkconv.fusion import engines, fuse, proof, sizes
from vkconv.ir import Graph


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


def test_inputs_too_large_for_a_proof_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "_MOST_ELEMENTS", 100)
    fused = fuse(rep_block())
    assert fused.proof is not None and not fused.is_proven
    assert "too large for a proof" in fused.proof.verdict
