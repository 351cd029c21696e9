"""Fixtures of the command line's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image

import vkconv
from tests.cli.fake_session import FakeSession, save_model
from vkconv.ceilings import Ceilings


@pytest.fixture
def fake_session(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeSession]]:
    FakeSession.created = []
    monkeypatch.setitem(vars(vkconv), "InferenceSession", FakeSession)
    monkeypatch.setitem(vars(vkconv), "measure_ceilings", lambda device: Ceilings(40.0, 4.0))
    yield FakeSession
    assert all(session.closed for session in FakeSession.created)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with model.onnx and a picture of 128 x 64, image.png."""
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "model.onnx")
    Image.new("RGB", (128, 64), (40, 60, 80)).save(tmp_path / "image.png")
    return tmp_path


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail with one line on stderr; returns that line."""

    def check(main: Callable[..., int], arguments: Sequence[str], code: int) -> str:
        capsys.readouterr()
        assert main(list(arguments)) == code
        captured = capsys.readouterr()
        lines = captured.err.splitlines()
        assert len(lines) == 1, captured.err
        assert "Traceback" not in captured.err + captured.out
        assert ": error: " in lines[0]
        return lines[0]

    return check
