"""``vkconv verify`` and ``vkconv-run --verify``: tables, exit codes, exports, wrong usage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.cli.fake_session import save_model
from tests.small_models import floats, model, node
from vkconv.cli.main import main
from vkconv.cli.run import main as run_main
from vkconv.plan import lowering


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path / "cache"))
    proto = model(
        [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Conv", "r v", "y")],
        {"x": [1, 3, "h", 8]}, {"y": None},
        {"w": floats(6, 3, 3, 3), "v": floats(6, 6, 1, 1)},
    )  # fmt: skip
    path = tmp_path / "net.onnx"
    onnx.save(proto, path)
    return str(path)


@pytest.fixture
def wrong_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last convolution reads one block of channels only."""
    real = lowering.PlanLowering.dispatch

    def dispatch(self: Any, kernel: str, buffers: Any, push: Any, *rest: Any, **axes: str) -> Any:
        if self.node == "Conv:y" and "in_blocks" in push:
            push = {**push, "in_blocks": 1}
        return real(self, kernel, buffers, push, *rest, **axes)

    monkeypatch.setattr(lowering.PlanLowering, "dispatch", dispatch)


def test_a_right_model(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", net, "--shape", "x=1,3,9,8", "--seed", "3"]) == 0
    said = capsys.readouterr()
    assert not said.err
    for text in ("Conv:c + Relu:r", "conv2d", "NMSE", "float32[1, 3, 9, 8]", "seed 3", "agree"):
        assert text in said.out
    assert "end to end" in said.out and "differs" not in said.out


def test_a_wrong_one_is_named_exported_and_exits_with_1(
    net: str, wrong_kernel: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    np.savez(tmp_path / "inputs.npz", x=floats(1, 3, 7, 8))
    folder = str(tmp_path / "report")
    arguments = ["verify", net, "--inputs", str(tmp_path / "inputs.npz"), "--bisect", folder]
    assert main([*arguments, "--json", str(tmp_path / "found.json")]) == 1
    said = capsys.readouterr().out
    result = next(line for line in said.splitlines() if line.startswith("result"))
    assert "Conv 'Conv:y'" in result and "(conv2d_" in result and "worst element [" in result
    assert "1 node, which fails alone" in said
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["first"] == "Conv:y" and found["holds"] is False
    guilty = next(entry for entry in found["nodes"] if entry["node"] == "Conv:y")
    assert guilty["kernels"][0].startswith("conv2d_") and len(guilty["index"]) == 4
    assert guilty["got"] != guilty["wanted"] and guilty["nmse"] > guilty["allowed"]
    part = str(Path(folder) / "model.onnx")
    assert main(["verify", part, "--inputs", str(Path(folder) / "inputs.npz")]) == 1
    capsys.readouterr()


def test_nothing_is_exported_of_a_right_model(
    net: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "report"
    assert main(["verify", net, "--nodes-only", "--bisect", str(folder), "--json", "-"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["holds"] is True and found["first"] is None
    assert {entry["compared"] for entry in found["outputs"]} == {"replay"}
    assert "none written" in said.err and not list(folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["{folder}/none.onnx"], 1, "no model file"),
        (["{net}", "--inputs", "{folder}/none.npz"], 1, "no inputs file"),
        (["{net}", "--inputs", "{net}"], 1, "numpy.savez"),
        (["{net}", "--inputs", "{folder}/one.npy"], 1, "no .npz file"),
        (["{net}", "--inputs", "{folder}/objects.npz"], 1, "cannot be read"),
        (["{net}", "--inputs", "{folder}/other.npz"], 1, "no input 'z'"),
        (["{net}", "--shape", "x=1,3"], 1, "'x'"),
        (["{net}", "--shape", "x"], 2, "NAME=N,N"),
        (["{net}", "--shape", "x=1,3,8,8", "--inputs", "{folder}/other.npz"], 2, "random inputs"),
        (["{net}", "--image", "{folder}/other.npz", "--inputs", "a"], 2, "not allowed with"),
        (["{net}", "--head", "yolov8"], 2, "with --image"),
        (["{net}", "--seed", "-1"], 2, "from 0 on"),
        (["{net}", "--device", "reference"], 1, "name a Vulkan device"),
        (["{net}", "--bisect", "{folder}"], 1, "not an empty folder"),
        (["{net}", "--bisect", "{net}/below"], 1, "cannot be made"),
        (["{net}", "--json", "{net}"], 1, "would overwrite"),
        (["{net}", "--json", "{folder}/none/a.json"], 1, "no folder"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str],
    code: int,
    says: str,
    net: str,
    tmp_path: Path,
    refused: Callable[..., str],
) -> None:
    np.save(tmp_path / "one.npy", floats(3))
    np.savez(tmp_path / "objects.npz", x=np.array([{}], object))
    np.savez(tmp_path / "other.npz", z=floats(3))
    before = Path(net).read_bytes()
    given = [a.format(folder=tmp_path, net=net) for a in arguments]
    assert says in refused(main, ["verify", *given], code)
    assert Path(net).read_bytes() == before


# --- with pictures -----------------------------------------------------------------------------


@pytest.fixture
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path / "cache"))
    save_model(tmp_path / "model.onnx")
    pixels = np.random.default_rng(5).integers(0, 256, (64, 128, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return str(tmp_path / "image.png")


def test_run_verifies_on_the_picture(picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(["model.onnx", picture, "-o", "out.png", "--verify", "--json", "-"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["verification"]["holds"] is True and len(found["detections"]) == 2
    assert "ImageToTensor" in said.err and "agree" in said.err and "images uint8" in said.err


def test_run_without_verify_says_nothing_of_it(
    picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(["model.onnx", picture, "-o", "out.png", "--json", "-"]) == 0
    said = capsys.readouterr()
    assert "verification" not in json.loads(said.out) and "NMSE" not in said.err


def test_run_exits_with_1_when_a_node_differs(
    picture: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = lowering.PlanLowering.dispatch

    def dispatch(self: Any, kernel: str, buffers: Any, push: Any, *rest: Any, **axes: str) -> Any:
        if kernel == "reduce":
            push = {**push, "reduced_size": (1, 1, 1)}
        return real(self, kernel, buffers, push, *rest, **axes)

    monkeypatch.setattr(lowering.PlanLowering, "dispatch", dispatch)
    assert run_main(["model.onnx", picture, "-o", "out.png", "--verify"]) == 1
    said = capsys.readouterr().out
    assert "ReduceMean 'mean'" in said and Path("out.png").exists()


def test_verify_takes_a_picture(picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "model.onnx", "--image", picture]) == 0
    assert "images uint8[1, 64, 64, 3]" in capsys.readouterr().out
    assert main(["verify", "model.onnx", "--image", picture, "--head", "yolov8"]) == 0
    capsys.readouterr()
    assert main(["verify", "model.onnx", "--image", picture, "--head", "boxes"]) == 1
    assert "not those of the head 'boxes'" in capsys.readouterr().err
