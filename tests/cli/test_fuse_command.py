"""``vkconv fuse`` as a user meets it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import onnx
import pytest

from tests.fusion.models import breaking, one_percent_more, rep_block
from tests.small_models import floats, model, node
from vkconv import fusion
from vkconv.cli.main import main


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with in.onnx, a block to fuse, and plain.onnx, with nothing to fuse."""
    monkeypatch.chdir(tmp_path)
    onnx.save(rep_block(), "in.onnx")
    plain = model([node("Relu", "x", "y")], {"x": [2]}, {"y": [2]})
    onnx.save(plain, "plain.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    return tmp_path


def test_a_model_is_fused_reported_and_written(models: Path, capsys) -> None:
    assert main(["fuse", "in.onnx", "-o", "out.onnx"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = [" ".join(line.split()) for line in captured.out.splitlines()]
    assert "BatchNormalization 3 0" in lines and "all 8 2" in lines
    for start in ("nodes 8 -> 2", "parameters 176 -> 148", "GFLOPs 0.0", "fusions 1, of 6 nodes"):
        assert any(line.startswith(start) for line in lines), start
    for text in ("Conv:c3", "BatchNormalization:n0", "gamma / sqrt", "y vkconv (numpy)"):
        assert text in "\n".join(lines), text
    assert any(line.startswith("y onnxruntime") and line.endswith("agrees") for line in lines)
    assert any(line.startswith("proof both models agree: NMSE ") for line in lines)
    assert lines[-1].startswith("wrote out.onnx (model, ")
    made = onnx.load("out.onnx")
    assert [n.op_type for n in made.graph.node] == ["Conv", "Relu"]
    assert sorted(os.listdir()) == ["in.onnx", "out.onnx", "plain.onnx", "text.onnx"]


def test_without_output_the_report_is_all(models: Path, capsys) -> None:
    before = {path.name: path.read_bytes() for path in models.iterdir()}
    assert main(["fuse", "in.onnx", "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and not any(line.startswith("wrote") for line in lines)
    assert {path.name: path.read_bytes() for path in models.iterdir()} == before


def test_in_place(models: Path, capsys) -> None:
    assert main(["fuse", "in.onnx", "--in-place", "-q"]) == 0
    assert "wrote       in.onnx" in capsys.readouterr().out
    assert len(onnx.load("in.onnx").graph.node) == 2
    assert main(["fuse", "in.onnx", "--in-place", "-q"]) == 0
    assert "nothing to fuse" in capsys.readouterr().out


def test_nothing_to_fuse_is_no_error(models: Path, capsys) -> None:
    assert main(["fuse", "plain.onnx", "-o", "out.onnx"]) == 0
    assert "nothing to fuse" in capsys.readouterr().out
    assert onnx.load("out.onnx") == onnx.load("plain.onnx")


def test_json(models: Path, capsys) -> None:
    arguments = ["fuse", "in.onnx", "-o", "out.onnx", "--shape", "images=2x4x8x6", "--json", "-"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert "wrote" in captured.err
    assert (record["model"], record["output"], record["proven"]) == ("in.onnx", "out.onnx", True)
    assert record["before"]["nodes"]["BatchNormalization"] == 3
    assert record["after"] == {
        "nodes": {"Conv": 1, "Relu": 1},
        "parameters": 148,
        "gflops": round(2 * 2 * 4 * 8 * 6 * 36 / 1e9, 6),
    }
    assert record["shapes"] == {"images": [2, 4, 8, 6]} == record["proof"]["shapes"]
    [done] = record["fusions"]
    assert done["into"] == "Conv:c3" and len(done["nodes"]) == 6 and done["algebra"]
    assert {o["run_by"] for o in record["proof"]["outputs"]} == {"vkconv (numpy)", "onnxruntime"}
    assert all(o["nmse"] < o["limit"] == 1e-6 for o in record["proof"]["outputs"])
    assert main(["fuse", "in.onnx", "--json", "report.json", "-q"]) == 0
    assert json.loads(Path("report.json").read_text())["output"] is None


def test_a_failing_proof_stops_the_writing(models, capsys, monkeypatch, refused) -> None:
    monkeypatch.setattr(fusion, "fuse_linear", breaking(one_percent_more))
    line = refused(main, ["fuse", "in.onnx", "-o", "out.onnx"], 1)
    assert "not written: output 'y' differs on" in line and "--force writes it" in line
    assert not Path("out.onnx").exists()
    assert main(["fuse", "in.onnx", "-o", "out.onnx", "--force"]) == 0
    out = capsys.readouterr().out
    assert "FAILED: output 'y' differs" in out and "differs\n" in out
    assert Path("out.onnx").exists()
    assert main(["fuse", "in.onnx"]) == 1, "a report of a failure is a failure"


def test_the_input_is_not_overwritten_unasked(models: Path, refused) -> None:
    before = Path("in.onnx").read_bytes()
    os.symlink("in.onnx", "link.onnx")
    for target in ("in.onnx", "link.onnx", "./in.onnx"):
        line = refused(main, ["fuse", "in.onnx", "-o", target], 1)
        assert "would overwrite the model that is read" in line and "--in-place" in line
    assert Path("in.onnx").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("missing.onnx -o out.onnx", 1, "no model file 'missing.onnx'"),
        ("text.onnx -o out.onnx", 1, "is not an ONNX model"),
        ("in.onnx -o nowhere/out.onnx", 1, "there is no folder"),
        ("in.onnx -o .", 1, "it is a folder"),
        ("in.onnx -o -", 2, "cannot go to stdout"),
        ("in.onnx -o out.onnx --in-place", 2, "not allowed with"),
        ("in.onnx -o out.onnx --json out.onnx", 1, "would overwrite the fused model"),
        ("in.onnx --json in.onnx", 1, "would overwrite the model"),
        ("in.onnx --in-place --json in.onnx", 1, "would overwrite the model"),
        ("in.onnx --shape images=1x4", 1, "'images' of shape 1x4 does not fit"),
        ("in.onnx --shape other=1x4x8x8", 1, "no input 'other'; its inputs: images"),
        ("in.onnx --shape images", 2, "takes NAME=N,N,... as in images=1,3,320,320"),
        ("in.onnx --shape images=1xa", 2, "takes NAME=N,N"),
        ("in.onnx --shape images=1x4x8x8 --shape images=1x4x9x9", 2, "'images' twice"),
        ("", 2, "MODEL.onnx"),
    ],
)
def test_wrong_input_is_one_line(arguments, code, message, models: Path, refused) -> None:
    assert message in refused(main, ["fuse", *arguments.split()], code)
    assert not Path("out.onnx").exists()


def test_names_cannot_steer_the_terminal(models: Path, capsys) -> None:
    proto = rep_block()
    proto.graph.node[1].name = "\x1b[31mred\n"
    onnx.save(proto, "in.onnx")
    assert main(["fuse", "in.onnx"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_unusual_input_names(models: Path, capsys) -> None:
    """A name may hold what the option's syntax uses."""
    proto = model(
        [node("Conv", "a=b w", "c"), node("Mul", "c two", "y")],
        {"a=b": [1, 3, "h", "w"]},
        {"y": None},
        {"w": floats(3, 3, 1, 1), "two": floats(1)},
    )
    onnx.save(proto, "in.onnx")
    assert main(["fuse", "in.onnx", "--shape", "a=b=1x3x5x5"]) == 0
    assert "a=b 1x3x5x5" in capsys.readouterr().out
