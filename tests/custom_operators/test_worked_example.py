"""The worked example of docs/custom_operators.md does what an operator of our own does."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from tests.custom_operators.made_operators import DOMAIN, raw_model
from tests.harness import Case, check_device, check_reference, random
from tests.small_models import floats, node
from vkconv import InferenceSession
from vkconv.cli.main import main
from vkconv.errors import InvalidModelError, UnsupportedModelError

SHAPES = [(1, 1, 1, 1), (1, 3, 5, 7), (2, 4, 17, 3), (1, 7, 1, 13), (3, 6, 8, 1)]


def test_the_example_runs_as_the_guide_says(
    example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(example)
    importlib.import_module("export_model").main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("corners")]
    assert [line.split(":")[0] for line in lines] == ["corners.onnx", "corners_dynamo.onnx"]
    for line in lines:
        assert line.count("com.example.corner_pool") == 2
        assert float(line.split()[-1]) < 1e-5
    for name in ("corners.onnx", "corners_dynamo.onnx"):
        nodes = [n for n in onnx.load(example / name).graph.node if n.domain == DOMAIN]
        assert [n.op_type for n in nodes] == ["CornerPool"] * 2


def corner_pool(shape: tuple[int, ...], direction: str, **more: Any) -> Case:
    given = {"direction": direction} if direction != "top" else {}
    return Case("CornerPool", (random(*shape),), given, domain=DOMAIN, **more)


CASES = [corner_pool(s, d) for s in SHAPES for d in ("top", "bottom", "left", "right")]
CASES += [corner_pool((1, 5, 9, 6), d, layout="c4") for d in ("top", "right")]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_example_s_reference_is_pytorch_s(example: Path, case: Case) -> None:
    running_maximum: Any = importlib.import_module("export_model").running_maximum

    def by_torch(asked: Case) -> list[Any]:
        x = torch.from_numpy(asked.inputs[0])
        return [running_maximum(x, asked.attributes.get("direction", "top"))[0].numpy()]

    check_reference(case, by_torch)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_example_s_kernel(example: Path, case: Case) -> None:
    check_device(case)


def test_nan_stays(example: Path) -> None:
    x = random(1, 2, 4, 5)
    x[0, 1, 2, 3] = np.nan
    check_device(Case("CornerPool", (x,), domain=DOMAIN))


def test_it_is_seen_like_every_operator(
    example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(corner_pool((1, 3, 5, 7), "left").model(), path)
    with InferenceSession(path) as session:
        profile = session.profile({"input_0": random(1, 3, 5, 7)})
        assert "com.example.corner_pool" in session.describe_plan()
    assert any("com.example.corner_pool" in str(row) for row in profile.rows())
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "com.example.CornerPool" in out and "com.example.corner_pool" in out


def test_a_plan_file_holds_it(example: Path, tmp_path: Path, capsys: Any) -> None:
    path, plan = tmp_path / "m.onnx", tmp_path / "m.vkplan"
    case = corner_pool((1, 3, 5, 7), "right")
    onnx.save(case.model(), path)
    assert main(["compile", str(path), "-o", str(plan)]) == 0
    with InferenceSession(plan) as session:
        [y] = session.run(None, case.feeds())
    np.testing.assert_array_equal(y, case.expected()[0])


def test_fusing_leaves_it(example: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(raw_model("CornerPool", direction="left"), path)
    assert main(["fuse", str(path), "-o", str(tmp_path / "fused.onnx")]) == 0
    fused = onnx.load(tmp_path / "fused.onnx")
    assert [n.op_type for n in fused.graph.node] == ["Relu", "CornerPool", "Relu"]
    assert {o.domain: o.version for o in fused.opset_import}[DOMAIN] == 1


def test_a_registered_operator_comes_before_a_function_of_its_name(example: Path) -> None:
    """A model may carry a body for runtimes without the operator."""
    proto = raw_model("CornerPool", direction="left")
    body = [node("Neg", "x", "t"), node("Neg", "t", "y")]
    opsets = [helper.make_opsetid("", 17)]
    for name in ("CornerPool", "Unheard"):
        function = helper.make_function(DOMAIN, name, ["x"], ["y"], body, opsets, ["direction"])
        proto.functions.append(function)
    proto.graph.node[2].CopyFrom(node("Unheard", "b", "y", name="call", domain=DOMAIN))
    with InferenceSession(proto) as session:
        placed = {p.node: p.detail for p in session.placement if p.op_type == "CornerPool"}
        [y] = session.run(None, {"x": floats(1, 3, 5, 7)})
        assert not [p for p in session.placement if p.op_type == "Unheard"]
    assert placed == {"node_under_test": "com.example.corner_pool"}
    given = corner_pool((1, 3, 5, 7), "left")
    np.testing.assert_array_equal(y, given.expected([np.maximum(floats(1, 3, 5, 7), 0)])[0])


def test_an_attribute_that_does_not_fit_names_the_node(example: Path) -> None:
    with pytest.raises(InvalidModelError, match=r"node_under_test.*direction 'up' is not one of"):
        InferenceSession(raw_model("CornerPool", direction="up"), device="reference")
    with pytest.raises(UnsupportedModelError, match="attribute 'direction' should be str"):
        InferenceSession(raw_model("CornerPool", direction=3), device="reference")
