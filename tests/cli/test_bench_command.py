"""``vkconv bench`` as a user meets it; the measuring itself is tested in tests/benchmark."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.benchmark.made import result
from vkconv import benchmark
from vkconv.benchmark import Settings
from vkconv.cli.main import main


@pytest.fixture
def asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings of every comparison asked for; none is made."""
    heard: list[Settings] = []

    def compare(model: str, settings: Settings, *, title: str = "", progress=None):
        heard.append(settings)
        progress("round 1 of 1: vkconv")
        return result(model)

    monkeypatch.setattr(benchmark, "compare", compare)
    return heard


def test_the_table_and_the_files(asked: list[Settings], capsys) -> None:
    files = ["--json", "a.json", "--html", "a.html", "--markdown", "a.md"]
    assert main(["bench", "model.onnx", *files]) == 0
    captured = capsys.readouterr()
    assert captured.err == "round 1 of 1: vkconv\n"
    lines = [" ".join(line.split()) for line in captured.out.splitlines()]
    assert any(
        line.startswith("ncnn, Vulkan, fp32 50.0 60.0 75.0 45.0 5.00x faster") for line in lines
    )
    assert any(line.startswith("onnxruntime, CPU 5.0") and "2.00x slower" in line for line in lines)
    for text in (
        "ceilings 200.0 GFLOP/s, 20.0 GB/s (copy), measured",
        "OpenCV DNN, Vulkan: cv2 is not installed",
        "PyTorch, CPU: its outputs differ",
        "wrote a.html (the page)",
    ):
        assert text in lines, text
    assert json.loads(Path("a.json").read_text())["rows"]["ncnn"]["ratio"] == 5.0
    assert "vkconv bench model.onnx --json a.json" in Path("a.html").read_text()
    assert Path("a.md").read_text().startswith("# model.onnx")
    assert asked[0] == Settings(
        against=["torch", "onnxruntime", "ncnn", "opencv"], rounds=3, seconds=5.0, pause=2.0
    )


def test_all_that_can_be_chosen(asked: list[Settings], capsys) -> None:
    options = "--against none --shape x=1,3,8,8 --device 0 --rounds 2 --seconds 0.5 --pause 0 -q"
    assert main(["bench", "model.onnx", *options.split(), "--torch", "a.b:c", "--json", "-"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["title"] == "model.onnx" and "50.0" in captured.err
    (settings,) = asked
    assert (settings.against, settings.device, settings.torch) == ([], "0", "a.b:c")
    assert dict(settings.shapes) == {"x": (1, 3, 8, 8)} and settings.paths == [os.getcwd()]
    assert (settings.rounds, settings.seconds, settings.pause) == (2, 0.5, 0.0)


def test_a_model_that_vkconv_cannot_run(folder: Path, monkeypatch, refused) -> None:
    broken = result(vkconv={"reason": "no Vulkan driver"})
    monkeypatch.setattr(benchmark, "compare", lambda *_, **__: broken)
    line = refused(main, ["bench", "model.onnx"], 1)
    assert "vkconv could not be measured: no Vulkan driver" in line


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ("", 2, "required: MODEL"),
        ("absent.onnx", 1, "no model 'absent.onnx'"),
        ("model.onnx --rounds 0", 2, "not a number from 1 to 1000"),
        ("model.onnx --seconds -1", 2, "--seconds takes a number from 0 on"),
        ("model.onnx --seconds nan", 2, "--seconds takes a number from 0 on"),
        ("model.onnx --torch module", 2, "--torch takes MODULE:FUNCTION"),
        ("model.onnx --shape x=y", 2, "--shape takes NAME=N,N"),
        ("model.onnx --html -", 2, "only --json can go to stdout"),
        ("model.onnx --html no/page.html", 1, "create it first"),
        ("model.onnx --json model.onnx", 1, "would overwrite the model"),
        ("model.onnx --json a --html a", 1, "would overwrite the JSON"),
        ("model.onnx --against tensorrt", 1, "no runtime 'tensorrt'"),
    ],
)
def test_bad_input(folder: Path, refused, options: str, code: int, text: str) -> None:
    assert text in refused(main, ["bench", *options.split()], code)
