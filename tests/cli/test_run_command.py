"""``vkconv-run``: what it writes, what it prints, and one line for every wrong input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from PIL import Image

from tests.cli.fake_session import ROWS, save_chooser, save_model
from vkconv.cli.main import main as vkconv_main
from vkconv.cli.run import main

pytestmark = pytest.mark.usefixtures("fake_session")


def environment() -> dict[str, str]:
    """The caller's, with buffered streams: a broken pipe then shows only when they are flushed."""
    return dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2]), PYTHONUNBUFFERED="")


def test_picture_table_and_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model.onnx", "image.png"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    for text in ("Fake GPU", "CPU driver", "load", "run", "cat", "dog", "90.0%"):
        assert text in captured.out
    assert "image_detections.png" in captured.out
    with Image.open("image_detections.png") as drawn:
        assert drawn.size == (128, 64)
        assert (np.asarray(drawn) != (40, 60, 80)).any()
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["image.png", "image_detections.png", "model.onnx"]


def test_json_on_stdout_is_all_there_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model.onnx", "image.png", "--json", "-"]) == 0
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert "Fake GPU" in captured.err and "image_detections.png" in captured.err
    assert record["model"] == "model.onnx" and record["image"] == "image.png"
    assert record["size"] == [128, 64] and record["input_size"] == [64, 64]
    assert record["device"]["name"] == "Fake GPU" and record["device"]["kind"] == "cpu"
    assert set(record["timings_ms"]) == {"load", "prepare", "first_run", "run", "detect"}
    assert all(value >= 0 for value in record["timings_ms"].values())
    # 128 x 64 in 64 x 64: halved, with 16 rows of padding above.
    cat, dog = record["detections"]
    assert (cat["label"], cat["class_id"], cat["confidence"]) == ("cat", 0, 0.9)
    assert cat["box"] == [44.0, 22.0, 84.0, 42.0]
    assert (dog["label"], dog["class_id"], dog["confidence"]) == ("dog", 1, 0.6)
    assert dog["box"] == [16.0, 40.0, 32.0, 56.0]


def test_json_file_output_and_trace(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["-o", "out.jpg", "model.onnx", "--json", "out.json", "image.png"]
    assert main([*arguments, "--profile", "trace.json", "--conf", "0.65", "--iou", "1"]) == 0
    record = json.loads(Path("out.json").read_text())
    assert [found["confidence"] for found in record["detections"]] == [0.9, 0.7]
    assert record["output"] == "out.jpg"
    with Image.open("out.jpg") as drawn:
        assert drawn.format == "JPEG"
    assert json.loads(Path("trace.json").read_text()) == {"traceEvents": []}
    out = capsys.readouterr().out
    assert all(name in out for name in ("out.jpg", "out.json", "trace.json"))
    assert "node9" in out and "node10 " not in out and "10 more nodes" in out
    (row,) = (line.split() for line in out.splitlines() if line.startswith("node9 "))
    assert row == ["node9", "gemm", "1.00", "5.0%", "10.0", "1.0", "25%", "ssbo", "8x1x1"]
    assert "40.0 GFLOP/s, 4.0 GB/s" in out


def test_labels_replace_the_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("labels.txt").write_text("[bold]lion[/bold]\nw\x1b[31molf\n")
    assert main(["model.onnx", "image.png", "--labels", "labels.txt", "--json", "-"]) == 0
    captured = capsys.readouterr()
    labels = [found["label"] for found in json.loads(captured.out)["detections"]]
    assert labels == ["[bold]lion[/bold]", "w [31molf"]
    assert "\x1b" not in captured.err and "[bold]lion[/bold]" in captured.err


def test_nothing_found_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model.onnx", "image.png", "--conf", "1"]) == 0
    assert "no objects found" in capsys.readouterr().out
    assert Path("image_detections.png").exists()


def test_a_name_that_looks_like_an_option(folder: Path) -> None:
    (folder / "image.png").rename(folder / "-image.png")
    assert main(["-o", "x.png", "--", "model.onnx", "-image.png"]) == 0


def test_as_a_subcommand(folder: Path) -> None:
    assert vkconv_main(["run", "model.onnx", "-o", "x.png", "image.png"]) == 0
    assert Path("x.png").exists()


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_input_types(kind: int, folder: Path) -> None:
    save_model(folder / "typed.onnx", input_type=kind)
    assert main(["typed.onnx", "image.png"]) == 0


def test_a_dynamic_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(
        folder / "dynamic.onnx",
        input_shape=("batch", 3, "height", "width"),
        output_shape=("batch", "values", "boxes"),
    )
    assert main(["dynamic.onnx", "image.png", "--json", "-", "--size", "50x70"]) == 0
    assert json.loads(capsys.readouterr().out)["input_size"] == [64, 96]
    assert main(["dynamic.onnx", "image.png", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["input_size"] == [640, 640]


def test_a_dynamic_height_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(folder / "tall.onnx", input_shape=(1, 3, "height", 64))
    assert main(["tall.onnx", "image.png", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["input_size"] == [64, 640]


def test_the_head_of_the_metadata(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = np.zeros((1, 84, 7), np.float32)
    for index, (cx, cy, w, h, *scores) in enumerate(ROWS):
        output[0, index] = [cx, cy, w, h, 0.5, *scores]
    metadata = {"vkconv.head": "yolov7", "vkconv.classes": '["one", "two"]'}
    save_model(folder / "seven.onnx", output=output, metadata=metadata)
    assert main(["seven.onnx", "image.png", "--json", "-"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["head"] == "yolov7"
    labels = [(found["label"], found["confidence"]) for found in record["detections"]]
    assert labels == [("one", 0.45), ("two", 0.3)]


def test_the_size_of_the_metadata(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An input that is open has the size the model was exported for, unless --size says another."""
    metadata = {"names": "['cat', 'dog']", "imgsz": "[96, 64]"}
    shape = ("batch", 3, "height", "width")
    save_model(folder / "open.onnx", input_shape=shape, metadata=metadata)
    assert main(["open.onnx", "image.png", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["input_size"] == [64, 96]
    assert main(["open.onnx", "image.png", "--json", "-", "--size", "128"]) == 0
    assert json.loads(capsys.readouterr().out)["input_size"] == [128, 128]


def test_final_boxes_are_not_suppressed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two cats in one place stay two: the model has chosen. Classes without names have numbers."""
    output = np.zeros((1, 19, 6), np.float32)
    output[0, 3] = [22, 27, 42, 37, 0.7, 0]
    output[0, 5] = [22, 27, 42, 37, 0.9, 0]
    output[0, 7] = [8, 36, 16, 44, 0.6, 7]
    save_model(folder / "final.onnx", output=output, metadata={})
    assert main(["final.onnx", "image.png", "--json", "-"]) == 0
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert record["head"] == "end2end" and "(end2end, 64x64)" in captured.err
    found = [(entry["label"], entry["confidence"]) for entry in record["detections"]]
    assert found == [("class 0", 0.9), ("class 0", 0.7), ("class 7", 0.6)]
    assert record["detections"][2]["box"] == [16.0, 40.0, 32.0, 56.0]
    Path("labels.txt").write_text("cat\ndog\n")
    assert main(["final.onnx", "image.png", "--json", "-", "--labels", "labels.txt"]) == 0
    labels = [entry["label"] for entry in json.loads(capsys.readouterr().out)["detections"]]
    assert labels == ["cat", "cat", "class 7"]


def test_a_model_that_is_told_the_size(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """RT-DETR's kin take stretched pictures: 128 x 64 in 64 x 64 is halved in x alone."""
    save_chooser(folder / "chooser.onnx")
    assert main(["chooser.onnx", "image.png", "--json", "-", "--conf", "0.5"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["head"] == "boxes"
    found = [(entry["class_id"], entry["confidence"]) for entry in record["detections"]]
    assert found == [(0, 0.9), (0, 0.7), (1, 0.6)]
    assert record["detections"][0]["box"] == [44.0, 27.0, 84.0, 37.0]


def test_the_head_of_the_user(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = np.zeros((1, 84, 6), np.float32)
    output[0, : len(ROWS)] = ROWS
    save_model(folder / "rows.onnx", output=output)
    arguments = ["rows.onnx", "image.png", "--json", "-"]
    assert main([*arguments, "--head", "rtmdet"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["head"] == "rtmdet"
    # in the upper left corner there is no padding above, and the dog lies below the picture
    assert [entry["box"] for entry in record["detections"]] == [[44.0, 54.0, 84.0, 64.0]]


def test_an_existing_file_is_replaced_and_keeps_its_mode(folder: Path) -> None:
    (folder / "real.png").write_bytes(b"old")
    (folder / "real.png").chmod(0o640)
    (folder / "link.png").symlink_to("real.png")
    assert main(["model.onnx", "image.png", "-o", "link.png"]) == 0
    assert (folder / "link.png").is_symlink()
    assert (folder / "real.png").stat().st_mode & 0o777 == 0o640
    assert Image.open(folder / "real.png").size == (128, 64)


def test_the_null_device_stays_a_device(folder: Path) -> None:
    arguments = ["-o", os.devnull, "--json", os.devnull, "--profile", os.devnull]
    assert main(["model.onnx", "image.png", *arguments]) == 0
    assert Path(os.devnull).is_char_device()
    assert sorted(path.name for path in folder.iterdir()) == ["image.png", "model.onnx"]


def test_interruption(folder: Path, capsys, fake_session, monkeypatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fake_session, "run", interrupt)
    assert main(["model.onnx", "image.png"]) == 130
    assert capsys.readouterr().err == "vkconv-run: interrupted\n"


def test_warnings_are_one_line(folder: Path, capsys, fake_session, monkeypatch) -> None:
    import warnings

    run = fake_session.run

    def warn(self, *arguments):
        warnings.warn("node 'nonzero' (NonZero) runs on the host", stacklevel=2)
        return run(self, *arguments)

    monkeypatch.setattr(fake_session, "run", warn)
    assert main(["model.onnx", "image.png"]) == 0
    expected = "vkconv-run: warning: node 'nonzero' (NonZero) runs on the host\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("module", ["vkconv.cli.run", "vkconv.cli.main"])
def test_help_is_quick_and_a_broken_pipe_is_silent(module: str) -> None:
    command = [sys.executable, "-X", "importtime", "-m", module, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    assert "usage: vkconv" in done.stdout
    for heavy in ("numpy", "PIL", "rich", "onnx", "vulkan"):
        assert f" {heavy}\n" not in done.stderr

    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        command = [sys.executable, "-m", module, "--help"]
        done = subprocess.run(
            command, stdout=closed, stderr=subprocess.PIPE, text=True, env=environment()
        )
    assert done.stderr == "" and done.returncode in (0, 1)


def test_closed_standard_streams(folder: Path) -> None:
    script = f"exec '{sys.executable}' -m vkconv.cli.run missing.png >&- 2>&-"
    assert subprocess.run(["sh", "-c", script], env=environment()).returncode == 1
