"""The commands as a user calls them: real interpreter, real session, real driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.fake_session import save_chooser
from tests.validation import without_announcement

ROOT = Path(__file__).parents[2]


def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "vkconv.cli.main", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        timeout=300,
    )
    done.stdout = without_announcement(done.stdout)
    return done


@pytest.mark.parametrize("device", ["auto", "reference"])
def test_known_boxes_through_a_real_session(folder: Path, device: str) -> None:
    done = call("run", "model.onnx", "image.png", "--json", "-", "--device", device)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    found = [(entry["label"], entry["confidence"], entry["box"]) for entry in record["detections"]]
    assert found == [
        ("cat", 0.9, [44.0, 22.0, 84.0, 42.0]),
        ("dog", 0.6, [16.0, 40.0, 32.0, 56.0]),
    ]
    assert Image.open("image_detections.png").size == (128, 64)
    assert record["device"]["name"] in done.stderr


@pytest.mark.parametrize("device", ["auto", "reference"])
def test_final_boxes_through_a_real_session(folder: Path, device: str) -> None:
    save_chooser(folder / "chooser.onnx")
    arguments = ["chooser.onnx", "image.png", "--json", "-", "--device", device]
    done = call("run", *arguments, *(["--verify"] if device == "auto" else []))
    assert done.returncode == 0, done.stderr
    found = [(d["class_id"], d["box"]) for d in json.loads(done.stdout)["detections"]]
    assert found == [
        (0, [44.0, 27.0, 84.0, 37.0]),
        (0, [46.0, 27.0, 86.0, 37.0]),
        (1, [16.0, 36.0, 32.0, 44.0]),
    ]


def test_the_demo_detector_needs_no_model(folder: Path) -> None:
    done = call("run", "image.png", "--profile", "trace.json", "--json", "boxes.json")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    record = json.loads(Path("boxes.json").read_text())
    assert record["model"] == "demo" and record["head"] == "yolov7"
    names = {event["name"] for event in json.loads(Path("trace.json").read_text())["traceEvents"]}
    assert len(names) > 10
    assert "costliest nodes" in done.stdout


def test_devices_and_inspect(folder: Path) -> None:
    listed = call("devices")
    assert listed.returncode == 0 and "Vulkan" in listed.stdout
    inspected = call("inspect", "model.onnx")
    assert inspected.returncode == 0, inspected.stderr
    for text in ("ReduceMean", "float32[1,3,64,64]", "placed"):
        assert text in inspected.stdout
    assert "dispatches" in call("inspect", "model.onnx", "--plan").stdout
    assert "known_boxes(" in call("inspect", "model.onnx", "--after", "all").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["devices"],
        ["run", "model.onnx", "image.png"],
        ["inspect", "model.onnx", "--plan"],
        ["run", "model.onnx", "image.png", "--device", "Voodoo"],
    ],
)
def test_a_machine_without_a_driver(folder: Path, arguments: list[str]) -> None:
    nowhere = str(folder / "no_driver.json")
    done = call(*arguments, VK_ICD_FILENAMES=nowhere, VK_DRIVER_FILES=nowhere)
    assert done.returncode == 1 and done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and f"vkconv {arguments[0]}: error: " in lines[0]
    assert "install" in lines[0]


def test_models_that_are_not_whole(folder: Path) -> None:
    data = (folder / "model.onnx").read_bytes()
    (folder / "cut.onnx").write_bytes(data[: len(data) // 2])
    (folder / "empty.onnx").write_bytes(b"")
    for name in ("cut.onnx", "empty.onnx", "image.png"):
        done = call("run", name, "image.png")
        assert done.returncode == 1 and done.stdout == ""
        lines = done.stderr.splitlines()
        assert len(lines) == 1 and lines[0].startswith("vkconv run: error: ")
