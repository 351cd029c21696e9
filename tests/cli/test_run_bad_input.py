"""``vkconv-run`` and every wrong input: one line on stderr, the remedy in it, nothing written."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from PIL import Image

from tests.cli.fake_session import save_model
from vkconv.cli.run import main

pytestmark = pytest.mark.usefixtures("fake_session")


def prepare_bad_files(folder: Path) -> None:
    (folder / "text.png").write_text("this is no picture")
    (folder / "cut.png").write_bytes((folder / "image.png").read_bytes()[:60])
    (folder / "few.txt").write_text("cat\n")
    (folder / "many.txt").write_text("cat\ndog\nbird\n")
    (folder / "empty.txt").write_text("")
    (folder / "text.onnx").write_text("this is no model")
    save_model(folder / "two.onnx", extra_input=True)
    save_model(folder / "flat.onnx", input_shape=(1, 300))
    save_model(folder / "gray.onnx", input_shape=(1, 1, 64, 64))
    save_model(folder / "batch.onnx", input_shape=(4, 3, 64, 64))
    save_model(folder / "int.onnx", input_type=TensorProto.INT32)
    save_model(folder / "huge.onnx", input_shape=(1, 3, 64, 1 << 20))
    save_model(folder / "scores.onnx", output=np.zeros((1, 1000), np.float32))
    save_model(folder / "contrary.onnx", metadata={"names": "['a']", "vkconv.head": "yolov8"})
    save_model(folder / "segment.onnx", metadata={"task": "segment"})


RUN_TIME_ERRORS = {
    "missing image": ("model.onnx nothing.png", "no such image file: 'nothing.png'"),
    "not an image": ("model.onnx text.png", "not an image that can be read"),
    "cut image": ("model.onnx cut.png", "damaged"),
    "folder as image": ("model.onnx .", "is a folder"),
    "no output folder": ("model.onnx image.png -o no/where.png", "create it first"),
    "folder as output": ("model.onnx image.png -o .", "it is a folder"),
    "output format": ("model.onnx image.png -o out.xyz", "'.xyz'; end its name in one of .png"),
    "no output format": ("model.onnx image.png -o out", "no extension"),
    "no JSON folder": ("model.onnx image.png --json no/x.json", "create it first"),
    "no trace folder": ("model.onnx image.png --profile no/x.json", "create it first"),
    "over the image": ("model.onnx image.png -o image.png", "would overwrite the image"),
    "over the model": ("model.onnx image.png --json model.onnx", "would overwrite the model"),
    "same outputs": ("model.onnx image.png -o a.png --json ./a.png", "overwrite the picture"),
    "too few labels": ("model.onnx image.png --labels few.txt", "1 names, but the model detects 2"),
    "too many labels": ("model.onnx image.png --labels many.txt", "3 names, but the model"),
    "empty labels": ("model.onnx image.png --labels empty.txt", "is empty"),
    "missing labels": ("model.onnx image.png --labels no.txt", "No such file"),
    "unknown head": ("model.onnx image.png --head ssd", "'ssd' is no head; understood are"),
    "another head": ("model.onnx image.png --head boxes", "not those of the head 'boxes'"),
    "unknown device": ("model.onnx image.png --device Voodoo", "no device 'Voodoo'"),
    "missing model": ("no.onnx image.png", "no model file 'no.onnx'"),
    "not a model": ("text.onnx image.png", "is not an ONNX model"),
    "two inputs": ("two.onnx image.png", "one image input"),
    "flat input": ("flat.onnx image.png", "one image input"),
    "gray input": ("gray.onnx image.png", "(1, 3, H, W)"),
    "batch of four": ("batch.onnx image.png", "export it with batch 1"),
    "integer input": ("int.onnx image.png", "float or uint8"),
    "huge input": ("huge.onnx image.png", "pixels a side"),
    "no detector": ("scores.onnx image.png", "understood are"),
    "contrary names": ("contrary.onnx image.png", "names 1 classes"),
    "other task": ("segment.onnx image.png", "task is 'segment'"),
    "fixed size": ("model.onnx image.png --size 320", "fixed at 64x64"),
}

USAGE_ERRORS = {
    "nothing": ("", "name an image"),
    "three files": ("a b c", "too many files"),
    "model only": ("model.onnx", "is a model"),
    "wrong order": ("image.png model.onnx", "give the image last"),
    "conf above": ("image.png --conf 1.01", "--conf"),
    "conf below": ("image.png --conf=-0.1", "--conf"),
    "conf no number": ("image.png --conf many", "'many' is not a number from 0 to 1"),
    "conf nan": ("image.png --conf nan", "--conf"),
    "iou above": ("image.png --iou 7", "--iou"),
    "size": ("image.png --size big", "not a size"),
    "size zero": ("image.png --size 0", "pixels"),
    "size of a planet": ("image.png --size 99999999999x1", "pixels"),
    "option": ("image.png --confidence-threshold 1", "unrecognized"),
    "value missing": ("image.png -o", "expected one argument"),
    "picture to stdout": ("image.png -o -", "only --json"),
    "trace to stdout": ("image.png --profile -", "only --json"),
}


@pytest.mark.parametrize("case", RUN_TIME_ERRORS)
def test_wrong_input_is_one_line(case: str, folder: Path, refused) -> None:
    prepare_bad_files(folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    arguments, message = RUN_TIME_ERRORS[case]
    line = refused(main, arguments.split(), 1)
    assert line.startswith("vkconv-run: error: ") and message in line
    # Nothing was written and nothing was changed, whatever went wrong.
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("case", USAGE_ERRORS)
def test_wrong_usage_is_one_line(case: str, folder: Path, refused) -> None:
    arguments, message = USAGE_ERRORS[case]
    line = refused(main, arguments.split(), 2)
    assert line.startswith("vkconv-run: error: ") and message in line
    assert "vkconv-run --help" in line


def test_a_name_cannot_steer_the_terminal(folder: Path, refused) -> None:
    line = refused(main, ["model.onnx", "evil\n\x1b[2J\rname.png"], 1)
    assert "\x1b" not in line and r"evil\n\x1b[2J\rname.png" in line


def test_an_output_that_turns_unwritable(folder: Path, refused, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    line = refused(main, ["model.onnx", "image.png"], 1)
    assert "cannot write the picture to 'image_detections.png': No space left" in line
    assert sorted(path.name for path in folder.iterdir()) == ["image.png", "model.onnx"]


def test_a_folder_without_permission(folder: Path, refused, monkeypatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "no permission" in refused(main, ["model.onnx", "image.png"], 1)


def test_a_picture_too_large_for_its_format(folder: Path, refused) -> None:
    Image.new("RGB", (17000, 2)).save("long.png")
    line = refused(main, ["model.onnx", "long.png", "-o", "out.webp"], 1)
    assert "use a name that ends in .png" in line


def test_without_a_demo_detector(folder: Path, refused, monkeypatch) -> None:
    import importlib.resources

    monkeypatch.setattr(importlib.resources, "files", lambda name: folder)
    assert "holds no demo detector" in refused(main, ["image.png"], 1)


def test_an_unexpected_fault_is_one_line_too(folder: Path, refused, fake_session, monkeypatch):
    monkeypatch.setattr(fake_session, "run", lambda *_: [][0])
    line = refused(main, ["model.onnx", "image.png"], 1)
    assert "unexpected IndexError" in line and "VKCONV_TRACEBACK" in line
    monkeypatch.setenv("VKCONV_TRACEBACK", "1")
    with pytest.raises(IndexError):
        main(["model.onnx", "image.png"])


def test_running_out_of_memory(folder: Path, refused, fake_session, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(fake_session, "run", fail)
    assert "not enough memory" in refused(main, ["model.onnx", "image.png"], 1)
