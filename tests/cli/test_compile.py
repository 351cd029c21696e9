"""``vkconv compile``: the file it writes runs, and wrong usage is one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.small_models import floats, model, node
from vkconv import ImageInput, InferenceSession
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


@pytest.mark.parametrize("chosen", [["--images"], ["--image", "x=in"]])
def test_a_plan_for_pixels(
    chosen: list[str], open_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = ["--scale", "1/255", "--mean", "0.485,0.456,0.406", "--std", "0.25"]
    numbers += ["--channel-order", "bgr", "--shape", "x=in=2,3,6,8"]
    assert main(["compile", str(open_model), *chosen, *numbers]) == 0
    assert "[2, 6, 8, 3] of 8-bit pixels" in capsys.readouterr().out
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3), dtype=np.uint8)
    image = ImageInput(1 / 255, (0.485, 0.456, 0.406), 0.25, "bgr")
    with (
        InferenceSession(open_model, images=image) as of_model,
        InferenceSession(open_model.with_suffix(".vkplan")) as of_plan,
    ):
        (wanted,) = of_model.run(None, {"x=in": pixels})
        np.testing.assert_array_equal(of_plan.run(None, {"x=in": pixels})[0], wanted)
    assert np.any(wanted)
    assert main(["inspect", str(open_model.with_suffix(".vkplan"))]) == 0
    assert "2,6,8,3" in capsys.readouterr().out


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


def test_inspect_plans_for_the_sizes_that_are_given(
    open_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in ([], ["--plan"]):
        assert main(["inspect", str(open_model), *arguments]) == 0
        said = capsys.readouterr().out
        assert "--shape NAME=N,N,..." in said
        assert "deferred" in said or "no plan yet" in said
        assert main(["inspect", str(open_model), "--shape", "x=in=2,3,6,8", *arguments]) == 0
        said = capsys.readouterr().out
        assert "conv2d" in said and "--shape" not in said and "deferred" not in said


def test_inspect_says_what_is_wrong_with_a_shape(
    open_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = str(open_model.with_suffix(".vkplan"))
    assert main(["compile", str(open_model), "--shape", "x=in=1,3,6,8"]) == 0
    shape = ["--shape", "x=in=1,3,6,8"]
    for arguments, code, says in (
        ([str(open_model), "--shape", "y=1"], 1, "no input 'y'"),
        ([str(open_model), "--shape", "x=in=1,3,6,9"], 1, "does not fit"),
        ([str(open_model), "--after", "all", *shape], 2, "not with --after"),
        ([plan, *shape], 1, "has its sizes already"),
    ):
        assert main(["inspect", *arguments]) == code
        said = capsys.readouterr().err.splitlines()
        assert says in said[-1], said


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
        (["--shape", "x=in=1,3,8,8", "--image", "z"], 1, "input 'z' takes no images"),
        (["--shape", "x=in=1,3,8,8", "--images", "--mean", "1,2"], 1, "2 numbers for 3 channels"),
        (["--shape", "x=in=1,3,8,8", "--images", "--std", "0"], 1, "std 0.0 is no number"),
        (["--shape", "x=in=1,3,8,8", "--scale", "1/255"], 2, "--scale is about pixels"),
        (["--images", "--scale", "1,2,3"], 2, "--scale is one number"),
        (["--images", "--mean", "a,b"], 2, "no list of numbers"),
        (["--images", "--scale", "1/0"], 2, "no list of numbers"),
        (["--images", "--channel-order", "grb"], 2, "invalid choice"),
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
