"""A record of its own for every test, and a small model with three convolutions of two shapes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.small_models import floats, model, node


@pytest.fixture(autouse=True)
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's tuning record is; nothing of the user's is read or written."""
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("VKCONV_TUNING", raising=False)
    return tmp_path / "cache" / "tuning.json"


@pytest.fixture
def net() -> bytes:
    """Two 1x1 convolutions of one shape, and one of another."""
    made = model(
        [
            node("Conv", "x w", "a"),
            node("LeakyRelu", "a", "b"),
            node("Conv", "b w", "c"),
            node("LeakyRelu", "c", "d"),
            node("Conv", "d v", "y"),
        ],
        {"x": [1, 8, 6, 5]},
        {"y": None},
        {"w": floats(8, 8, 1, 1), "v": floats(3, 8, 1, 1)},
    )
    data: bytes = made.SerializeToString()
    return data


KEYS = (
    "conv 1x1g 8>8 6>6k1s1d1p0+0 5>5k1s1d1p0+0",
    "conv 1x1g 8>3 6>6k1s1d1p0+0 5>5k1s1d1p0+0",
)
