"""``vkconv convert``: weights in, an ONNX file out, and one line for whatever does not fit."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import torch
from PIL import Image

from tests.models import rtmdet_ins, yolov7
from tests.models.repvgg import repvgg_small
from vkconv.cli.main import main
from vkconv.converters.checkpoints import writing
from vkconv.fusion.report import Size

Refused = Callable[[Callable[..., int], Sequence[str], int], str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with w.pt (a small RepVGG), and net.yaml with net.pt (a thin YOLOv7-tiny)."""
    monkeypatch.chdir(tmp_path)
    torch.save(repvgg_small().state_dict(), "w.pt")
    net = yolov7.yolov7_tiny(classes=2, width=0.125)
    torch.save({"model": net.state_dict()}, "net.pt")
    Path("net.yaml").write_text(yolov7.yaml_of("yolov7-tiny", 80, 0.125))
    Path("names.txt").write_text("cat\ndog\n")
    return tmp_path


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What the command asks to be written; nothing is exported."""
    calls: list[dict] = []
    size = Size({"Conv": 3, "Relu": 2}, 1000, 10)

    def record(checkpoint: object, path: str, **how: object) -> SimpleNamespace:
        calls.append({"checkpoint": checkpoint, "path": path, **how})
        Path(path).write_bytes(b"model")
        fusion = SimpleNamespace(before=size, after=size)
        return SimpleNamespace(fusion=fusion, notes=("a note",), checks=())

    monkeypatch.setattr(writing, "write_onnx", record)
    return calls


def test_a_detector_from_weights_to_boxes(here, capsys) -> None:
    """The whole way: convert, then detect with what was written."""
    arguments = ["convert", "yolov7", "--cfg", "net.yaml", "--weights", "net.pt"]
    assert main([*arguments, "-o", "net.onnx", "--size", "90x60", "--names", "names.txt"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for text in ("yolov7, 2 classes", "1 x 3 x 64 x 96", "58 Conv", "'detections' by", "NMSE"):
        assert text in out, text
    assert "the weights have 2 classes, where the cfg says 80" in out
    assert "vkconv-run net.onnx IMAGE" in out
    model = onnx.load("net.onnx")
    entries = {entry.key: entry.value for entry in model.metadata_props}
    assert entries["vkconv.head"] == "yolov7" and json.loads(entries["vkconv.classes"]) == [
        "cat",
        "dog",
    ]
    assert sorted(path.name for path in here.iterdir()) == sorted(
        ["w.pt", "net.pt", "net.yaml", "names.txt", "net.onnx"]
    )
    Image.new("RGB", (128, 64), (40, 60, 80)).save("image.png")
    command = ["run", "net.onnx", "image.png", "-o", "o.png", "--json", "o.json", "--conf", "0.01"]
    assert main(command) == 0
    record = json.loads(Path("o.json").read_text())
    assert (record["head"], record["input_size"]) == ("yolov7", [96, 64])
    assert {found["label"] for found in record["detections"]} <= {"cat", "dog"}


def test_a_classifier(here, capsys) -> None:
    assert main(["convert", "repvgg", "--weights", "w.pt", "-o", "w.onnx", "--size", "64"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "weights of the training form" in out and "1 x 3 x 64 x 64" in out
    assert "vkconv-run" not in out
    kinds = [node.op_type for node in onnx.load("w.onnx").graph.node]
    assert kinds.count("Conv") == 7 and "BatchNormalization" not in kinds


def test_options_reach_the_file(here, written) -> None:
    command = ["convert", "yolov7", "--cfg", "net.yaml", "--weights", "net.pt", "-o", "n.onnx"]
    assert main(command) == 0
    assert main([*command, "--size", "100x33", "--batch", "dynamic"]) == 0
    assert main([*command, "--batch", "8", "--names", "names.txt"]) == 0
    sizes = [(call["size"], call["batch"], call["classes"]) for call in written]
    assert sizes == [
        ((640, 640), 1, None),
        ((64, 128), "dynamic", None),
        ((640, 640), 8, ("cat", "dog")),
    ]
    assert main(["convert", "repvgg", "--weights", "w.pt", "-o", "n.onnx", "--size", "50"]) == 0
    assert written[-1]["size"] == (50, 50)


def test_options_reach_the_loader(here, written) -> None:
    torch.save(rtmdet_ins.rtmdet().state_dict(), "r.pt")
    command = ["convert", "rtmdet", "--weights", "r.pt", "-o", "r.onnx"]
    for options, distances in (([], ""), (["--exp-on-reg"], "exp"), (["--no-exp-on-reg"], "")):
        assert main([*command, *options]) == 0
        assert written[-1]["checkpoint"].module.sizes.distances == distances


def test_without_pytorch_it_says_what_to_install(here, refused: Refused, monkeypatch) -> None:
    for name in list(sys.modules):
        if name.startswith("vkconv.converters"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    arguments = ["convert", "repvgg", "--weights", "w.pt", "-o", "w.onnx"]
    line = refused(main, arguments, 1)
    assert "needs 'torch'" in line and "pip install 'vkconv[torch]'" in line
    # what it is about can be read all the same
    assert main(["convert", "repvgg", "--help"]) == 0
    assert main(["convert", "--help"]) == 0


YOLOV7 = ["yolov7", "--cfg", "net.yaml", "--weights", "net.pt"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["resnet", "-o", "x.onnx"], 2, "no family 'resnet'; there are yolov7, repvgg"),
        ([], 2, "FAMILY"),
        (["yolov7", "--weights", "net.pt", "-o", "x.onnx"], 2, "--cfg"),
        ([*YOLOV7], 2, "-o/--output"),
        ([*YOLOV7, "-o", "x.onnx", "--size", "0"], 2, "'0' is not within"),
        ([*YOLOV7, "-o", "x.onnx", "--size", "1x2x3"], 2, "not a size"),
        ([*YOLOV7, "-o", "x.onnx", "--batch", "many"], 2, "neither 'dynamic' nor"),
        ([*YOLOV7, "-o", "net.pt"], 1, "would overwrite the weights"),
        ([*YOLOV7, "-o", "net.yaml"], 1, "would overwrite the cfg"),
        ([*YOLOV7, "-o", "names.txt", "--names", "names.txt"], 1, "would overwrite the names"),
        ([*YOLOV7, "-o", "no/x.onnx"], 1, "there is no folder"),
        (["yolov7", "--cfg", "no.yaml", "--weights", "net.pt", "-o", "x"], 1, "cfg 'no.yaml'"),
        (["yolov7", "--cfg", "names.txt", "--weights", "net.pt", "-o", "x"], 1, "no yaml mapping"),
        (["yolov7", "--cfg", "net.yaml", "--weights", "no.pt", "-o", "x"], 1, "no such file"),
        (["yolov7", "--cfg", "net.yaml", "--weights", "w.pt", "-o", "x"], 1, "lack 'model.0.conv"),
        (["fcos", "--weights", "w.pt", "-o", "x"], 1, "lack 'backbone.conv1.weight'"),
        (["repvgg", "--weights", "w.pt", "-o", "x", "--arch", "A0"], 1, "no RepVGG-A0"),
        (["repvgg", "--weights", "w.pt", "-o", "x", "--names", "names.txt"], 1, "tells 10 classes"),
        (["rtmdet-ins", "--weights", "i.pt", "-o", "x", "--batch", "2"], 1, "one picture at"),
        (["rtmdet", "--weights", "i.pt", "-o", "x"], 1, "convert them as rtmdet-ins"),
        (["repvgg", "--weights", "model.pt", "-o", "x"], 1, "unpickling it would run code"),
    ],
)
def test_what_does_not_fit(here, refused: Refused, arguments, code, message) -> None:
    if "i.pt" in arguments:
        torch.save(rtmdet_ins.rtmdet_ins_suppressed().state_dict(), "i.pt")
    torch.save(repvgg_small(), "model.pt")
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    assert message in refused(main, ["convert", *arguments], code)
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before
