"""The watch sees what it is there to see, and a mutant's number is all that a report needs."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from tests.fuzz import files
from tests.fuzz.minimise import smaller
from tests.fuzz.mutators import MUTATORS, mutant
from tests.fuzz.seeds import all_seeds
from tests.fuzz.trials import Laboratory
from tests.small_models import floats, model, node
from vkconv.device.vulkan import arena
from vkconv.device.vulkan.executable import VulkanExecutable
from vkconv.errors import InvalidModelError
from vkconv.ops.clip import Relu

GOOD = model(
    [node("Relu", "x", "r"), node("MatMul", "r w", "y")], {"x": [3, 4]}, {"y": None},
    {"w": floats(4, 5)},
).SerializeToString()  # fmt: skip


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    files.plans()
    with Laboratory(tmp_path_factory.mktemp("fuzz")) as opened:
        yield opened


def spoiled(*_: Any, **__: Any) -> Any:
    raise KeyError("planted")


def test_a_good_model_runs_and_is_no_finding(laboratory: Laboratory) -> None:
    trial = laboratory.model(GOOD, fuse=True)
    assert (trial.stage, trial.error, trial.finding) == ("run", "", "")


def test_a_model_that_is_refused_is_no_finding(laboratory: Laboratory) -> None:
    for data in (b"", b"\x08", GOOD[: len(GOOD) // 2]):
        trial = laboratory.model(data)
        assert (trial.stage, trial.error, trial.finding) == ("read", "InvalidModelError", "")


def test_an_error_of_another_kind_is_a_finding(laboratory: Laboratory) -> None:
    with mock.patch("vkconv.session.checked_feeds", spoiled):
        trial = laboratory.model(GOOD)
    assert trial.finding.startswith("KeyError at session.py") and "planted" in trial.details


def test_a_message_of_two_lines_is_a_finding(laboratory: Laboratory) -> None:
    with (
        mock.patch.object(InvalidModelError, "__str__", return_value="one\ntwo"),
        mock.patch("vkconv.loading.read_onnx", side_effect=InvalidModelError("x")),
    ):
        assert "message of 2 lines" in laboratory.model(GOOD).finding


def test_a_slow_model_is_a_finding(laboratory: Laboratory) -> None:
    def slow(_: Relu, x: Any) -> Any:
        until = time.process_time() + 0.1
        while time.process_time() < until:
            pass
        return np.maximum(x, 0)

    with (
        mock.patch.object(Relu, "reference", slow),
        mock.patch("tests.fuzz.trials.TIME_LIMIT", 0.09),
    ):
        assert "slow: running on reference" in laboratory.model(GOOD).finding


def test_memory_is_watched(laboratory: Laboratory) -> None:
    kept: list[Any] = []

    def greedy(_: Relu, x: Any) -> Any:
        # the watch sees the peak, which earlier tests may have raised
        now = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        kept.append(np.ones(peak - now + (40 << 20), np.uint8))
        return np.maximum(x, 0)

    with (
        mock.patch.object(Relu, "reference", greedy),
        mock.patch("tests.fuzz.trials.MEMORY_LIMIT", 16 << 20),
    ):
        assert "memory grew" in laboratory.model(GOOD).finding


def test_a_write_out_of_bounds_is_a_finding(laboratory: Laboratory) -> None:
    """As if a kernel wrote zeros all over the arena."""
    run = VulkanExecutable.run

    def spoiling(executable: VulkanExecutable, *given: Any) -> Any:
        results = run(executable, *given)
        arena.poison(executable, 0)
        return results

    with mock.patch.object(VulkanExecutable, "run", spoiling):
        finding = laboratory.model(GOOD).finding
    assert "written out of bounds" in finding


def test_the_seeds_are_valid(laboratory: Laboratory) -> None:
    """Every special one, and one in 200 of the others, runs."""
    seeds = all_seeds()
    chosen = [n for n in seeds if n.startswith("special/") and n.endswith("/0")]
    assert len(chosen) >= 12 and len(seeds) > 2000
    for name in [*chosen, *list(seeds)[::200]]:
        trial = laboratory.model(seeds[name])
        assert (trial.stage, trial.finding) == ("run", ""), name


def test_mutants_are_reproducible_and_differ() -> None:
    first = [mutant(n) for n in range(60)]
    assert first == [mutant(n) for n in range(60)]
    seeds = all_seeds()
    changed = sum(data != seeds[name] for name, data in first)
    assert changed > 30 and len({data for _, data in first}) > 50
    assert len(MUTATORS) >= 25


def test_most_mutants_come_to_be_planned(laboratory: Laboratory) -> None:
    stages = Counter(laboratory.model(mutant(n)[1]).stage for n in range(1000, 1060))
    assert stages["run"] >= 15 and stages["read"] + stages["rewrite"] >= 10


def test_hostile_plans_come_to_be_run(laboratory: Laboratory) -> None:
    trials = [laboratory.plan(files.plan_mutant(n)) for n in range(80)]
    assert not [t.finding for t in trials if t.finding]
    assert {"read", "run"} <= {t.stage for t in trials}


@pytest.mark.parametrize(
    ("name", "number"),
    [("STRIDE_X", -2), ("OUTPUT_TILE", -1), ("OUTPUT_TILE", 65536), ("KERNEL_W", 1000),
     ("STRIDE_X", 1000),     ("PIXELS", 4096), ("local_size_x", 0)],
)  # fmt: skip
def test_plans_that_would_crash_a_driver_are_refused(
    name: str, number: int, laboratory: Laboratory
) -> None:
    """Specialization constants that lavapipe's compiler crashed on, or never came back from."""
    changed = 0
    for whole in files.plans():
        tables = files.tables_of(whole)
        for step in tables["body"]["plan"]["steps"]:
            if name in step.get("spec", {}):
                step["spec"][name] = number
                changed += 1
        if tables != files.tables_of(whole):
            trial = laboratory.plan(files.with_tables(whole, tables))
            assert (trial.error, trial.finding) == ("InvalidModelError", "")
    assert changed


def test_hostile_pictures(laboratory: Laboratory) -> None:
    trials = [laboratory.picture(files.picture_mutant(n)) for n in range(60)]
    assert not [t.finding for t in trials if t.finding]
    assert {"read", "run"} <= {t.stage for t in trials}


def test_files_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    """The folder of a trial has ways out; each is refused by name."""
    from tests.fuzz.mutators.parts import LOCATIONS
    from tests.fuzz.seeds import tensors

    with Laboratory(tmp_path) as laboratory:
        for location in LOCATIONS:
            proto = tensors()
            far = next(t for t in proto.graph.initializer if t.name == "far")
            far.external_data[0].value = location
            trial = laboratory.model(proto.SerializeToString())
            inside = location in ("data.bin", "./data.bin", "sub/../data.bin")
            assert not trial.finding, trial.finding
            assert trial.error == ("" if inside else "InvalidModelError"), location


def test_minimising_keeps_what_it_is_asked_to() -> None:
    data = smaller(GOOD, lambda candidate: b"MatMul" in candidate)
    assert b"MatMul" in data and len(data) < len(GOOD) // 2
