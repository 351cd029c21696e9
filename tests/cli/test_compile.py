"""``vkconv compile``: the file it writes runs, and wrong usage is one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.small_models import floats, model, node
from vkconv import InferenceSession
from vkconv.cli.main import main


@pytest.fixture
def open_model(tmp_path: Path) -> Path:
    proto = model(
        [node("Conv", "x=in w", "y")], {"x=in": ["n", 3, "h", 8]}, {"y": None},
        {"w": floats(4, 3, 3, 3)},
    )  # fmt: skip
    onnx.save(proto, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_writes_a_plan_that_runs(open_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", str(open_model), "--shape", "x=in=2,3,6,8"]) == 0
    said = capsys.readouterr()
    plan = open_model.with_suffix(".vkplan")
    assert str(plan) in said.out and "[2, 3, 6, 8]" in said.out and not said.err
    x = floats(2, 3, 6, 8)
    with InferenceSession(open_model) as of_model, InferenceSession(plan) as of_plan:
        (expected,), (y,) = of_model.run(None, {"x=in": x}), of_plan.run(None, {"x=in": x})
    np.testing.assert_array_equal(y, expected)


def test_inspect_knows_plans(open_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(open_model.parent / "other.vkplan")
    assert main(["compile", str(open_model), "-o", path, "--shape", "x=in=1x3x6x8"]) == 0
    capsys.readouterr()
    assert main(["inspect", path, "--plan"]) == 0
    assert "dispatches" in capsys.readouterr().out
    assert main(["inspect", path]) == 0
    said = capsys.readouterr().out
    assert "[1,3,6,8]" in said and "Conv:y" in said and "made for" in said
    assert main(["inspect", path, "--after", "all"]) == 1
    assert "inspect the ONNX model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 1, "--shape x=in="),
        (["--shape", "x=in=1,3,8"], 1, "does not fit"),
        (["--shape", "y=1,3,8,8"], 1, "no input 'y'"),
        (["--shape", "x=in"], 2, "NAME=N,N"),
        (["--shape", "x=in=1,3,8,8", "-o", "{folder}/none/m.vkplan"], 1, "no folder"),
        (["--shape", "x=in=1,3,8,8", "-o", "{folder}/net.onnx"], 1, "would overwrite"),
        (["--shape", "x=in=1,3,8,8", "--device", "no such"], 1, "no device"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str],
    code: int,
    says: str,
    open_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = str(open_model.parent)
    before = open_model.read_bytes()
    given = [a.format(folder=folder) for a in arguments]
    assert main(["compile", str(open_model), *given]) == code
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1 and "Traceback" not in said
    assert open_model.read_bytes() == before
    assert not list(open_model.parent.glob("*.vkplan"))


def test_a_damaged_plan_is_one_line(
    open_model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "net.vkplan"
    assert main(["compile", str(open_model), "-o", str(path), "--shape", "x=in=1,3,6,8"]) == 0
    path.write_bytes(path.read_bytes()[:-1])
    capsys.readouterr()
    assert main(["inspect", str(path), "--plan"]) == 1
    said = capsys.readouterr().err
    assert "net.vkplan" in said and "damaged" in said and said.count("\n") == 1
