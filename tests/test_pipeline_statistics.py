"""The pipelines that are asked about are those of the plan a session would run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

import vkconv
from tests.small_models import floats, model, node
from vkconv import pipeline_statistics
from vkconv.device import open_device
from vkconv.device.vulkan.statistics import PipelineStatistics
from vkconv.dispatch import Dispatch
from vkconv.errors import InvalidInputError
from vkconv.ops.conv_problem import Problem
from vkconv.ops.conv_selection import candidates
from vkconv.pipeline_statistics import compile_pipelines
from vkconv.tuning import Timing, save_record, target_of

SHAPES = {"x": (1, 8, 6, 5)}
#: both convolutions
LAYER = "conv 1x1g 8>8 6>6k1s1d1p0+0 5>5k1s1d1p0+0"


class Mute:
    """A compiler with the capabilities of the device that is there; it says nothing."""

    def __init__(self, choice: str | int) -> None:
        opened = open_device(choice)
        self.info, self.caps = opened.info, opened.caps
        opened.close()

    def __enter__(self) -> Mute:
        return self

    def __exit__(self, *_: object) -> None: ...

    def compile(self, dispatches: Iterable[Dispatch]) -> list[PipelineStatistics]:
        return [PipelineStatistics(d.kernel, dict(d.variant), d.spec, 1, ()) for d in dispatches]


@pytest.fixture(autouse=True)
def _mute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("VKCONV_TUNING", raising=False)
    monkeypatch.setattr(pipeline_statistics, "open_compiler", Mute)


@pytest.fixture
def net() -> bytes:
    made = model(
        [node("Conv", "x w", "a"), node("LeakyRelu", "a", "b"), node("Conv", "b w", "y")],
        {"x": [1, 8, "h", 5]},
        {"y": None},
        {"w": floats(8, 8, 1, 1)},
    )
    data: bytes = made.SerializeToString()
    return data


def used(model: object, **arguments: object) -> Counter[tuple[str, str]]:
    """Kernels with their constants, as texts."""
    found = compile_pipelines(model, **arguments)
    return Counter((p.kernel, str(dict(p.specialization))) for p in found.pipelines)


def test_a_plan_file_has_the_pipelines_of_its_model(net: bytes, tmp_path: Path) -> None:
    path = str(tmp_path / "net.vkplan")
    vkconv.compile_model(net, path, shapes=SHAPES)
    assert used(path) == used(net, shapes=SHAPES)


def test_tuned_kernels_are_the_ones_asked_about(net: bytes, tmp_path: Path) -> None:
    by_rule = used(net, shapes=SHAPES)
    device = Mute("auto")
    found = candidates(Problem.from_key(LAYER), device.caps)
    winner = next(c for c in found[1:] if c.kernel == "conv2d_8x4")
    target = target_of(device.info, device.caps)
    (tmp_path / "cache").mkdir(exist_ok=True)
    timing = Timing(str(winner), 1.0, str(found[0]), 2.0)
    save_record(tmp_path / "cache" / "tuning.json", target, {LAYER: timing})
    assert used(net, shapes=SHAPES) != by_rule


def test_sizes_that_are_open_are_asked_for(net: bytes) -> None:
    with pytest.raises(InvalidInputError, match="--shape x="):
        compile_pipelines(net)
