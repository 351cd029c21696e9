"""Starts the processes of a comparison, one at a time and in turns.

A runtime that gave a reason once is not started again. What the runtimes compile is kept in folders
of their own that are empty at the start: the first block of each loads cold, the others warm.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vkconv.benchmark.figures import ORACLE, Block, Result, machine, nmse, summarise
from vkconv.errors import InvalidInputError
from vkconv.ir import Array

__all__ = ["RUNTIMES", "Settings", "compare"]

#: what ``--against`` knows; vkconv itself is always there
RUNTIMES = ("torch", "onnxruntime", "ncnn", "ncnn-defaults", "opencv")
#: variables that name folders for compiled shaders
_CACHES = ("VKCONV_CACHE_DIR", "MESA_SHADER_CACHE_DIR", "__GL_SHADER_DISK_CACHE_PATH")
#: a block that loads, and runs as little as a block can
ONCE = {"seconds": 0.0, "warm_up": 0.0, "least_runs": 1, "profile": False}


@dataclass(frozen=True)
class Settings:
    """How a comparison is made.

    against:  names of RUNTIMES.
    torch:    "module:function" that makes the model's torch module; paths: where it is looked for.
    shapes:   of inputs that the model leaves open.
    rounds:   blocks of each runtime; seconds: length of a block; pause: between blocks.
    loads:    further processes of each runtime that load and run once: their caches are filled.
    threads:  of all runtimes; 0: each runtime's own choice.
    longest:  seconds after which a block is given up.
    """

    against: Sequence[str] = RUNTIMES
    device: str | int = "auto"
    torch: str = ""
    paths: Sequence[str] = ()
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    rounds: int = 3
    seconds: float = 5.0
    warm_up: float = 1.0
    pause: float = 2.0
    loads: int = 2
    threads: int = 0
    least_runs: int = 3
    longest: float = 900.0


def compare(
    model: str,
    settings: Settings,
    *,
    title: str = "",
    progress: Callable[[str], None] = lambda _: None,
) -> Result:
    """Measure a model on vkconv and the runtimes that ``settings`` name; ``progress`` hears of each
    block. Raises InvalidInputError where the model cannot be read or fed; what a single
    runtime cannot do is told in its row."""
    if unknown := sorted(set(settings.against) - set(RUNTIMES)):
        raise InvalidInputError(
            f"there is no runtime '{unknown[0]}'; there are: {', '.join(RUNTIMES)}"
        )
    facts = machine()
    with tempfile.TemporaryDirectory(prefix="vkconv-bench-") as folder:
        turns = _Turns(os.path.abspath(model), Path(folder), settings)
        progress("preparing inputs")
        turns.prepare()
        blocks = turns.take(["vkconv", *settings.against], progress)
    return Result(
        title=title or os.path.basename(model),
        shapes=turns.job["input_shapes"],
        machine=facts,
        settings={**asdict(settings), "paths": []},
        rows=summarise(blocks, settings.against),
    )


class _Turns:
    """The job that all blocks have in common, and the processes."""

    def __init__(self, model: str, folder: Path, settings: Settings) -> None:
        self._folder, self._settings = folder, settings
        self.job: dict[str, Any] = {
            "model": model,
            "folder": str(folder),
            "feeds": str(folder / "feeds.npz"),
            "device_name": "",
            "ncnn": {},
            **asdict(settings),
        }

    def prepare(self) -> None:
        reply = self._start("inputs")
        if "reason" in reply:
            raise InvalidInputError(f"{self.job['model']}: {reply['reason']}")
        self.job["input_shapes"] = reply["shapes"]
        if any(name.startswith("ncnn") for name in self._settings.against):
            self.job["ncnn"] = self._start("pnnx")

    def take(
        self, chosen: Sequence[str], progress: Callable[[str], None]
    ) -> dict[str, list[Block]]:
        """The replies of all blocks by runtime; the judge runs once, if it is not measured."""
        blocks: dict[str, list[Block]] = {name: [] for name in dict.fromkeys([*chosen, ORACLE])}
        last = self._settings.rounds - 1
        for turn in range(self._settings.rounds):
            for name, own in blocks.items():
                if any("reason" in reply for reply in own) or (turn and name not in chosen):
                    continue
                progress(f"round {turn + 1} of {last + 1}: {name}")
                reply = self._block(name, first=turn == 0, last=turn == last)
                own.append(reply)
                self.job["device_name"] = reply.get("device_name", self.job["device_name"])
                if "times" in reply:
                    time.sleep(self._settings.pause)
        for name, own in blocks.items():
            self._judge(name, own)
        for name in chosen:
            if not any("reason" in reply for reply in blocks[name]):
                progress(f"loading again: {name}")
                blocks[name][-1]["again"] = self._load_again(name)
        return blocks

    def _block(self, name: str, *, first: bool, last: bool) -> Block:
        outputs = str(self._folder / f"{name}.npz") if first else ""
        extra: dict[str, Any] = {"outputs": outputs, "profile": last and name == "vkconv"}
        if name == ORACLE and name not in self._settings.against:
            extra |= ONCE
        return self._start(name, extra)

    def _load_again(self, name: str) -> list[Block]:
        """Replies of processes that do nothing but load and run once."""
        replies = [self._start(name, {"outputs": "", **ONCE}) for _ in range(self._settings.loads)]
        return [reply for reply in replies if "reason" not in reply]

    def _judge(self, name: str, own: list[Block]) -> None:
        """Note how far the outputs of a runtime's first block are from the judge's."""
        expected, given = (self._folder / f"{n}.npz" for n in (ORACLE, name))
        if own and "times" in own[0] and expected.exists() and given.exists():
            own[0]["nmse"] = nmse(_stored(given), _stored(expected))

    def _start(self, runtime: str, extra: Mapping[str, Any] | None = None) -> Block:
        """One process; its reply."""
        cache = self._folder / f"cache-{runtime}"
        cache.mkdir(exist_ok=True)
        environment = {**os.environ, **dict.fromkeys(_CACHES, str(cache))}
        if self._settings.threads:
            for variable in ("OMP_NUM_THREADS", "LP_NUM_THREADS"):
                environment[variable] = str(self._settings.threads)
        job, reply = self._folder / "job.json", self._folder / "reply.json"
        job.write_text(json.dumps({**self.job, **(extra or {}), "runtime": runtime}))
        reply.unlink(missing_ok=True)
        command = [sys.executable, "-m", "vkconv.benchmark.worker", str(job), str(reply)]
        try:
            done = subprocess.run(
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
                env=environment,
                timeout=self._settings.longest,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"reason": f"no result within {self._settings.longest:.0f} s"}
        if not reply.exists():
            return {"reason": f"the process ended with status {done.returncode}"}
        found: Block = json.loads(reply.read_text())
        return found


def _stored(path: Path) -> list[Array]:
    with np.load(path) as arrays:
        return [arrays[name] for name in arrays]
