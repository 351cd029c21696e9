"""``vkconv tune``: what it prints and keeps, and wrong usage in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.small_models import floats, model, node
from vkconv import InferenceSession, compile_model
from vkconv.cli.main import main
from vkconv.tuning import read_record
from vkconv.tuning.search import Search


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with net.onnx, of fixed sizes, and open.onnx."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("VKCONV_TUNING", raising=False)
    for name, height in (("net", 6), ("open", "h")):
        made = model(
            [node("Conv", "x w", "y")],
            {"x": [1, 8, height, 5]},
            {"y": None},
            {"w": floats(8, 8, 1, 1)},
        )
        onnx.save(made, f"{name}.onnx")
    return tmp_path


def test_keeps_and_shows_what_it_finds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "net.onnx"]) == 0
    said = capsys.readouterr()
    record = folder / "cache" / "tuning.json"
    assert "conv 1x1g 8>8 6>6k1s1d1p0+0" in said.out and str(record) in said.out
    assert "1 timed" in said.out and "untuned ms" in said.out and not said.err
    assert len(read_record(record) or {}) == 1
    assert main(["tune", "net.onnx"]) == 0
    assert "none were timed; --again" in capsys.readouterr().out
    assert main(["tune", "net.onnx", "--again", "--seconds", "5"]) == 0
    assert "1 timed" in capsys.readouterr().out


def test_open_sizes_and_a_record_of_its_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", "open.onnx", "--shape", "x=1,8,7,5", "-o", "mine.json"]) == 0
    assert "mine.json" in capsys.readouterr().out
    (layers,) = (read_record("mine.json") or {}).values()
    assert list(layers) == ["conv 1x1g 8>8 7>7k1s1d1p0+0 5>5k1s1d1p0+0"]
    assert not (folder / "cache" / "tuning.json").exists()
    with InferenceSession("open.onnx", tuning="mine.json") as session:
        assert session._tuned.choices == {k: t.choice for k, t in layers.items()}


def test_interrupted(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Search.find

    def interrupted(search: Search, problem: Any, *given: Any) -> Any:
        if problem.x.size == 6:
            raise KeyboardInterrupt
        return honest(search, problem, *given)

    made = model(
        [
            node("Conv", "x w", "y", pads=[0, 0, 0, 1]),
            node("LeakyRelu", "y", "a"),
            node("Conv", "a w", "z"),
        ],
        {"x": [1, 8, 6, 5]},
        {"z": None},
        {"w": floats(8, 8, 1, 1)},
    )
    onnx.save(made, "two.onnx")
    monkeypatch.setattr(Search, "find", interrupted)
    assert main(["tune", "two.onnx"]) == 130
    said = capsys.readouterr()
    assert said.err.strip() == "vkconv tune: interrupted"
    assert "1 timed, 1 not reached" in said.out
    assert len(next(iter((read_record(folder / "cache" / "tuning.json") or {}).values()))) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "MODEL"),
        (["none.onnx"], 1, "none.onnx"),
        (["open.onnx"], 1, "--shape x="),
        (["net.onnx", "--shape", "y=1,8,6,5"], 1, "no input 'y'"),
        (["net.onnx", "--shape", "x=1,8"], 1, "does not fit"),
        (["net.onnx", "--shape", "x"], 2, "NAME=N,N"),
        (["net.onnx", "--seconds", "0"], 2, "above 0"),
        (["net.onnx", "--seconds", "nan"], 2, "above 0"),
        (["net.onnx", "-o", "net.onnx"], 1, "would overwrite"),
        (["net.onnx", "-o", "open.onnx"], 1, "no tuning record"),
        (["net.onnx", "-o", "none/tuning.json"], 1, "no folder"),
        (["net.onnx", "--device", "reference"], 1, "no kernels to choose"),
        (["net.onnx", "--device", "no such"], 1, "no device"),
        (["net.vkplan"], 1, "tune the ONNX model"),
    ],
)
def test_wrong_usage(
    folder: Path,
    arguments: list[str],
    code: int,
    says: str,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compile_model("net.onnx", "net.vkplan")
    monkeypatch.setattr(Search, "find", None)  # nothing is timed before all is right
    assert says in refused(main, ["tune", *arguments], code)
    assert (folder / "open.onnx").stat().st_size > 100
