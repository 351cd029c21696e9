"""The seed corpus, replayed: every file that was a finding once, and one of each kind of refusal.

Each file is loaded and run as in a campaign (scripts/fuzz.py): on the reference device and on the
Vulkan device, in a poisoned arena with sentinel bands.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.trials import Laboratory

CORPUS = Path(__file__).parent / "corpus"
MODELS = sorted(CORPUS.glob("*.onnx"))
PLANS = sorted(CORPUS.glob("*.vkplan"))
PICTURES = sorted(CORPUS.glob("*.picture"))


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    with Laboratory(tmp_path_factory.mktemp("fuzz")) as opened:
        yield opened


def test_the_corpus_is_there() -> None:
    assert len(MODELS) >= 40 and len(PLANS) >= 5 and len(PICTURES) >= 5


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_models(path: Path, laboratory: Laboratory) -> None:
    trial = laboratory.model(path.read_bytes(), fuse=True)
    assert not trial.finding, f"{trial.finding}\n{trial.details}"


@pytest.mark.parametrize("path", PLANS, ids=lambda p: p.stem)
def test_plans(path: Path, laboratory: Laboratory) -> None:
    trial = laboratory.plan(path.read_bytes())
    assert not trial.finding, f"{trial.finding}\n{trial.details}"


@pytest.mark.parametrize("path", PICTURES, ids=lambda p: p.stem)
def test_pictures(path: Path, laboratory: Laboratory) -> None:
    trial = laboratory.picture(path.read_bytes())
    assert not trial.finding, f"{trial.finding}\n{trial.details}"
