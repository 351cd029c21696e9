"""Comparisons as they are: processes that take turns, and what each of them replies."""

from __future__ import annotations

import json
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.small_models import floats, model, node
from vkconv.benchmark import Settings, compare, turns
from vkconv.benchmark.worker import main
from vkconv.errors import InvalidInputError

BRIEF = {"rounds": 1, "seconds": 0.01, "warm_up": 0.0, "pause": 0.0, "least_runs": 2}


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A convolution, and a factor which a torch module can agree with or not."""
    proto = model(
        [node("Conv", "x w", "c"), node("Relu", "c", "y")],
        {"x": [1, 3, 6, 6]}, {"y": None}, {"w": np.ones((4, 3, 1, 1), np.float32)},
    )  # fmt: skip
    onnx.save(proto, tmp_path / "net.onnx")
    return str(tmp_path / "net.onnx")


MODULES = """
import torch

class Sum(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return torch.relu(self.factor * x.sum(1, keepdim=True)).repeat(1, 4, 1, 1)

def right():
    return Sum(1.0)

def wrong():
    return Sum(1.5)
"""


def test_blocks_take_turns_and_outputs_are_compared(path: str, tmp_path: Path) -> None:
    (tmp_path / "bench_modules.py").write_text(MODULES)
    heard: list[str] = []
    settings = Settings(
        against=["torch", "onnxruntime", "opencv"],
        torch="bench_modules:right",
        paths=[str(tmp_path)],
        **{**BRIEF, "rounds": 2},
    )
    found = compare(path, settings, title="Net", progress=heard.append)
    assert [line for line in heard if line.startswith("round")] == [
        "round 1 of 2: vkconv", "round 1 of 2: torch", "round 1 of 2: onnxruntime",
        "round 1 of 2: opencv",
        "round 2 of 2: vkconv", "round 2 of 2: torch", "round 2 of 2: onnxruntime",
    ]  # fmt: skip
    assert found.title == "Net" and dict(found.shapes) == {"x": [1, 3, 6, 6]}
    own = found.rows["vkconv"]
    assert own["runs"] >= 4 and 0 < own["least"] <= own["p50"] <= own["p90"] <= own["p99"]
    assert own["nmse"] < 1e-10 and own["cold"] > 0 and own["warm"] > 0
    again = [line for line in heard if line.startswith("loading again")]
    assert again == [f"loading again: {name}" for name in ("vkconv", "torch", "onnxruntime")]
    assert 1e7 < own["peak"] < 4e9 and own["memory"]["arena"] >= own["memory"]["arena_lower_bound"]
    profile = own["profile"]
    assert profile["flops"] == 2 * 4 * 3 * 36 and profile["gpu"] > 0
    assert profile["ceilings"]["gflops"] > 0
    assert {row["node"] for row in profile["rows"]} >= {"Conv:c"}
    for name in ("torch", "onnxruntime"):
        assert found.rows[name]["nmse"] < 1e-10 and len(found.rows[name]["ratios"]) == 2
    assert "is not installed" in found.rows["opencv"]["reason"]
    json.dumps(found.as_json())


def test_a_torch_module_that_computes_something_else(path: str, tmp_path: Path) -> None:
    (tmp_path / "bench_wrong.py").write_text(MODULES)
    settings = Settings(
        against=["torch"], torch="bench_wrong:wrong", paths=[str(tmp_path)], **BRIEF
    )
    found = compare(path, settings)
    assert found.title == "net.onnx"
    assert found.rows["torch"]["nmse"] == pytest.approx(0.25, rel=1e-3)
    assert "differ from onnxruntime's" in found.rows["torch"]["wrong"]
    # the judge was asked, but is no row
    assert "onnxruntime" not in found.rows and found.rows["vkconv"]["nmse"] < 1e-10


def test_what_cannot_be_measured_is_told(path: str) -> None:
    found = compare(path, Settings(against=["torch"], device="no such GPU", **BRIEF))
    assert "no such GPU" in found.rows["vkconv"]["reason"]
    assert "torch does not read ONNX" in found.rows["torch"]["reason"]


def test_a_block_that_does_not_end(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = turns._Turns(path, Path(path).parent, Settings(longest=0.001))
    began = time.perf_counter()
    assert slow._start("vkconv") == {"reason": "no result within 0 s"}
    assert time.perf_counter() - began < 20


def test_a_block_that_crashes(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns.sys, "executable", "/bin/false")
    crashing = turns._Turns(path, Path(path).parent, Settings())
    assert crashing._start("vkconv") == {"reason": "the process ended with status 1"}


def test_bad_input(path: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no runtime 'tensorrt'; there are: torch"):
        compare(path, Settings(against=["tensorrt"]))
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InvalidInputError, match=r"text\.onnx"):
        compare(str(tmp_path / "text.onnx"), Settings(against=[], **BRIEF))


# --- the worker, in this process ------------------------------------------------------------------


def reply(tmp_path: Path, runtime: str, path: str, **more: object) -> dict:
    job = {
        "runtime": runtime, "model": path, "folder": str(tmp_path), "shapes": {},
        "feeds": str(tmp_path / "feeds.npz"), "device": "auto", "torch": "", "paths": [],
        "threads": 0, "ncnn": {"reason": "not converted"}, "device_name": "", "outputs": "",
    }  # fmt: skip
    (tmp_path / "job.json").write_text(json.dumps({**job, **BRIEF, **more}))
    main(str(tmp_path / "job.json"), str(tmp_path / "reply.json"))
    return json.loads((tmp_path / "reply.json").read_text())


def open_model(tmp_path: Path) -> str:
    proto = model(
        [node("Add", "x b", "y"), node("Gather", "t i", "z")],
        {"x": ["n", 3, "h", 4], "i": ("int64", [2])}, {"y": None, "z": None},
        {"b": np.ones(1, np.float32), "t": floats(5)},
    )  # fmt: skip
    onnx.save(proto, tmp_path / "open.onnx")
    return str(tmp_path / "open.onnx")


def test_inputs(tmp_path: Path) -> None:
    path = open_model(tmp_path)
    wrong = [({}, "input 'x' needs a size that fits (1x3x?x4)"),
             ({"x": [1, 2, 5, 4]}, "input 'x' needs a size"),
             ({"x": [1, 3, 5]}, "input 'x' needs a size"),
             ({"q": [1]}, "no input 'q', only x, i")]  # fmt: skip
    for shapes, text in wrong:
        assert text in reply(tmp_path, "inputs", path, shapes=shapes)["reason"]
    shapes = {"x": [2, 3, 5, 4]}
    made = reply(tmp_path, "inputs", path, shapes=shapes)
    assert made == {"shapes": {"x": [2, 3, 5, 4], "i": [2]}}
    with np.load(tmp_path / "feeds.npz") as feeds:
        assert feeds["x"].dtype == np.float32 and 0 <= feeds["x"].min() < feeds["x"].max() < 1
        assert feeds["i"].dtype == np.int64 and set(feeds["i"]) <= {0, 1}


def test_reasons(tmp_path: Path, path: str) -> None:
    reply(tmp_path, "inputs", path)
    assert reply(tmp_path, "torch", path)["reason"].startswith("torch does not read ONNX")
    known = "not converted" if find_spec("ncnn") else "ncnn is not installed"
    assert reply(tmp_path, "ncnn", path)["reason"] == known
    assert "ModuleNotFoundError" in reply(tmp_path, "torch", path, torch="no_such:f")["reason"]
    assert "reason" in reply(tmp_path, "vkconv", str(tmp_path / "absent.onnx"))
