"""A plan cache of each test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from vkconv import loading, plan_cache


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, in which every plan of every model is worth keeping."""
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(plan_cache, "SMALLEST_MODEL", 1)
    monkeypatch.setattr(plan_cache, "WORTH_KEEPING", 0.0)
    return tmp_path / "cache" / plan_cache.FOLDER


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one whenever a session reads an ONNX model."""
    found: list[str] = []
    original = loading.read_onnx

    def counted(source: object) -> loading.LoadedModel:
        found.append(str(source))
        return original(source)

    monkeypatch.setattr(loading, "read_onnx", counted)
    return found
