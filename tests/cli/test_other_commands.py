"""``vkconv``, ``vkconv devices`` and ``vkconv inspect``."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import vkconv
from tests.cli.fake_session import FakeSession
from vkconv.capabilities import DeviceInfo
from vkconv.cli.main import main
from vkconv.errors import DeviceError, NodeProblem, UnsupportedModelError

CARD = DeviceInfo(
    0, "Radeon RX 6600", "discrete", "radv 23.2.1", "1.3.255", 8 << 30, ("fp16", "subgroup")
)


def device(**changes: Any) -> DeviceInfo:
    return replace(CARD, **changes)


def test_devices_are_listed(capsys, monkeypatch) -> None:
    small = device(index=1, name="V3D", kind="integrated", memory_bytes=512 << 20, features=())
    monkeypatch.setitem(vars(vkconv), "devices", lambda: [device(), small])
    assert main(["devices"]) == 0
    out = capsys.readouterr().out
    for text in ("Radeon RX 6600", "discrete", "radv 23.2.1", "1.3.255", "8.0 GiB", "fp16"):
        assert text in out
    assert "512.0 MiB" in out and "integrated" in out


def test_no_devices_is_an_error_with_a_remedy(refused, monkeypatch) -> None:
    monkeypatch.setitem(vars(vkconv), "devices", list)
    assert "install the driver" in refused(main, ["devices"], 1)

    def fail() -> list[DeviceInfo]:
        raise DeviceError("no Vulkan loader; install libvulkan1")

    monkeypatch.setitem(vars(vkconv), "devices", fail)
    assert "vkconv devices: error: no Vulkan loader" in refused(main, ["devices"], 1)
    assert "unrecognized" in refused(main, ["devices", "more"], 2)


def test_tables_are_not_folded_when_piped(monkeypatch) -> None:
    long = "a very long device name " * 8
    monkeypatch.setitem(vars(vkconv), "devices", lambda: [device(name=long)])
    monkeypatch.setenv("COLUMNS", "40")
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    assert main(["devices"]) == 0
    assert any(long.strip() in line for line in stream.getvalue().splitlines())


def test_a_broken_pipe_is_silent(capsys, monkeypatch) -> None:
    monkeypatch.setitem(vars(vkconv), "devices", lambda: [device()])
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(os.dup(writer), "w") as closed:
        monkeypatch.setattr("sys.stdout", closed)
        assert main(["devices"]) == 1
    os.close(writer)
    assert capsys.readouterr().err == ""


def test_inspect_shows_the_model_and_its_placement(folder, capsys, fake_session) -> None:
    assert main(["inspect", "model.onnx"]) == 0
    out = capsys.readouterr().out
    for text in ("known_boxes", "tests", "ai.onnx 13", "505 in 2", "images", "float32[1,3,64,64]"):
        assert text in out, text
    for text in ("names", "'cat'", "ReduceMean", "elementwise", "4 gpu", "Fake GPU"):
        assert text in out, text


def test_inspect_lists_every_node_that_cannot_run(folder, capsys, monkeypatch) -> None:
    class Unable:
        def __init__(self, *_: object, **__: object) -> None:
            problems = [
                NodeProblem("top", "TopK", "no kernel", 13, "float"),
                NodeProblem("nms", "Efficient", "unknown operator", domain="trt"),
            ]
            raise UnsupportedModelError("2 nodes cannot be run: top, nms", problems)

    monkeypatch.setitem(vars(vkconv), "InferenceSession", Unable)
    assert main(["inspect", "model.onnx"]) == 1
    captured = capsys.readouterr()
    lines = [" ".join(line.split()) for line in captured.out.splitlines()]
    assert "top TopK, opset 13, float no kernel" in lines
    assert "nms trt.Efficient unknown operator" in lines
    assert captured.err == "vkconv inspect: error: 2 nodes cannot be run: top, nms\n"


def test_inspect_shows_the_file_where_there_is_no_device(folder, capsys, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DeviceError("no Vulkan driver; install mesa-vulkan-drivers")

    monkeypatch.setitem(vars(vkconv), "InferenceSession", fail)
    assert main(["inspect", "model.onnx"]) == 1
    captured = capsys.readouterr()
    assert "ReduceMean" in captured.out
    assert captured.err == (
        "vkconv inspect: error: no Vulkan driver; install mesa-vulkan-drivers\n"
    )


def test_plan_and_graph(folder: Path, capsys, fake_session, monkeypatch) -> None:
    assert main(["inspect", "model.onnx", "--plan"]) == 0
    assert capsys.readouterr().out == "step 0: elementwise\nstep 1:  [31mreduce\nmemory: none\n"

    inspection = ModuleType("vkconv.inspection")
    inspection.describe_graph = lambda model, after=None: f"{model} after {after}"
    monkeypatch.setitem(__import__("sys").modules, "vkconv.inspection", inspection)
    assert main(["inspect", "model.onnx", "--after", "fuse_activation"]) == 0
    assert capsys.readouterr().out == "model.onnx after fuse_activation\n"
    assert main(["inspect", "model.onnx", "--after", "all"]) == 0
    assert capsys.readouterr().out == "model.onnx after None\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("inspect missing.onnx", 1, "no model file 'missing.onnx'"),
        ("inspect image.png", 1, "not an ONNX model"),
        ("inspect .", 1, "cannot be read"),
        ("inspect", 2, "MODEL"),
        ("inspect model.onnx --plan --after x", 2, "not allowed"),
        ("", 2, "name a command: run, devices, inspect"),
        ("dance", 2, "no command 'dance'"),
    ],
)
def test_wrong_input_is_one_line(arguments, code, message, folder, refused, fake_session) -> None:
    assert message in refused(main, arguments.split(), code)


def test_help_and_version(capsys) -> None:
    assert main(["--help"]) == 0
    assert "inspect" in capsys.readouterr().out
    for command in ("run", "devices", "inspect"):
        assert main([command, "--help"]) == 0
        assert f"usage: vkconv {command}" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vkconv {vkconv.__version__}\n"


def test_the_fake_session_has_the_face_of_the_real_one() -> None:
    """What the commands call on it must exist on vkconv.InferenceSession."""
    for name in dir(FakeSession):
        if not name.startswith("_") and name not in ("created", "closed"):
            assert hasattr(vkconv.InferenceSession, name)
