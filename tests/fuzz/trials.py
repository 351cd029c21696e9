"""What is done with one hostile file, and what counts as a finding.

A model is loaded and run on the reference device, then on the Vulkan device with sentinel bands
around every storage and a poisoned arena; some go through ``vkconv.fuse`` as well. A plan file is
opened and run. A picture is read. Only VkconvErrors may come out, each in one line.

How far a model came is its ``stage``: "read" (the reader refused it), "rewrite" (a pass did),
"plan" (planning or preparing did), "load" (it was loaded and is too large to be run here), "run"
(it ran, or said in the run what is wrong with its inputs).
"""

from __future__ import annotations

import importlib
import os
import resource
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from tests.fuzz.feeds import feeds_for
from tests.sentinels import POISON, Guard, guarded_arenas
from vkconv import InferenceSession
from vkconv.device import open_device
from vkconv.device.vulkan import arena as device_arena
from vkconv.device.vulkan.device import VulkanDevice
from vkconv.dispatch import Plan
from vkconv.errors import BuildError, VkconvError
from vkconv.ops import control_flow
from vkconv.ops.registry import create

#: seconds of CPU that loading, and running what is small enough to be run, may take each
TIME_LIMIT = 2.0
#: bytes that the process may grow by
MEMORY_LIMIT = 1536 << 20
#: what is larger is loaded and not run: the arithmetic that a model asks for takes its time
LARGEST_ARENA = 16 << 20
LARGEST_FLOPS = 20_000_000
LARGEST_FEED = 1 << 20
#: rounds of a loop without end: instead of ten million, which takes minutes. Sizes that a run
#: decides are limited to LARGEST_ARENA, instead of 2^28 elements
ROUNDS = 300
LONGEST_MESSAGE = 4000
STAGES = ("read", "rewrite", "plan", "load", "run")
_EXTERNAL = b"location"


@dataclass
class Trial:
    """What became of one file."""

    stage: str = "read"
    #: class of the error that was raised, "" for none
    error: str = ""
    #: what is wrong, in a line; "" where nothing is
    finding: str = ""
    details: str = ""
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)


class Laboratory:
    """The devices that a worker's trials share, and what watches them. ``with`` closes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self._stage = "read"
        self._flops = self._arena = 0

    def __enter__(self) -> Laboratory:
        enter = self._stack.enter_context
        enter(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        np.seterr(all="ignore")
        enter(mock.patch.dict(os.environ, {"VKCONV_DISABLE": "plan_cache"}))
        self._guard: Guard = enter(guarded_arenas())
        prepare = VulkanDevice.prepare
        enter(mock.patch.object(VulkanDevice, "prepare", _poisoned(prepare)))
        self._device = open_device("auto")
        self._stack.callback(self._device.close)
        self._device_view = _Unclosable(self._device)
        enter(mock.patch("vkconv.session.open_device", self._open))
        enter(mock.patch.object(control_flow, "MOST_ITERATIONS", ROUNDS))
        enter(mock.patch("vkconv.planning.LARGEST_COMPUTED", LARGEST_ARENA // 4))
        enter(mock.patch("vkconv.ops.range.LONGEST", LARGEST_ARENA // 4))
        reader = importlib.import_module("vkconv.onnx_reader")
        planning = importlib.import_module("vkconv.planning")
        enter(mock.patch.object(reader, "read_model", self._read(reader.read_model)))
        enter(mock.patch.object(planning, "make_plan", self._planned(planning.make_plan)))
        lay_out(self.folder)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # --- trials ----------------------------------------------------------------------------------

    def model(self, data: bytes, fuse: bool = False) -> Trial:
        """A model on the reference device, then on the Vulkan one."""
        source: Any = data
        if _EXTERNAL in data:  # by its path, so that external data may be looked for
            source = self.folder / "model" / "model.onnx"
            source.write_bytes(data)
        trial = self._watched(lambda t: self._run_model(source, data, t, fuse))
        if "slow" in trial.finding:  # once more: the first time may have compiled a pipeline
            trial = self._watched(lambda t: self._run_model(source, data, t, fuse))
        return trial

    def plan(self, data: bytes) -> Trial:
        trial = self._watched(lambda t: self._run_session(data, zlib.crc32(data), t, "auto"))
        if "slow" in trial.finding:
            trial = self._watched(lambda t: self._run_session(data, zlib.crc32(data), t, "auto"))
        return trial

    def picture(self, data: bytes) -> Trial:
        return self._watched(lambda t: _read_picture(data, self.folder / "picture", t))

    def _run_model(self, source: Any, data: bytes, trial: Trial, fuse: bool) -> None:
        number = zlib.crc32(data)
        for device in ("reference", "auto"):
            self._run_session(source, number, trial, device)
            if trial.error and trial.stage != "run":
                break
        if fuse:
            self._fuse(source, trial)

    def _run_session(self, source: Any, number: int, trial: Trial, device: str) -> None:
        self._stage, self._flops, self._arena = "read", 0, 0
        random = np.random.default_rng(number)
        began = time.process_time()
        try:
            with InferenceSession(source, device=device) as session:
                self._stage = "load"
                self._took(trial, began, "loading")
                for _ in range(2):
                    feeds = feeds_for(session.get_inputs(), random, LARGEST_FEED)
                    if feeds is None or self._is_large():
                        return
                    began = time.process_time()
                    self._stage = "run"
                    try:
                        self._guard.poison()
                        session.run(None, feeds)
                    except VkconvError as error:
                        trial.error = type(error).__name__
                        _check_message(error, trial)
                    self._guard.check()
                    self._took(trial, began, f"running on {device}")
        except VkconvError as error:
            trial.error = type(error).__name__
            _check_message(error, trial)
            self._took(trial, began, "refusing")
        finally:
            trial.stage = self._stage
            self._guard.prepared.clear()

    def _fuse(self, source: Any, trial: Trial) -> None:
        import vkconv

        began = time.process_time()
        try:
            vkconv.fuse(source, prove=False).to_bytes()
        except VkconvError as error:
            _check_message(error, trial)
        self._took(trial, began, "fusing")

    # --- watching --------------------------------------------------------------------------------

    def _watched(self, attempt: Callable[[Trial], None]) -> Trial:
        trial = Trial()
        began, before = time.process_time(), _peak()
        try:
            attempt(trial)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            trial.error = type(error).__name__
            trial.findings.append(f"{trial.error} at {place_of(error)}: {str(error)[:200]}")
            trial.details = traceback.format_exc()
            self._guard.prepared.clear()
        trial.seconds = time.process_time() - began
        if _peak() - before > MEMORY_LIMIT:
            trial.findings.append(f"memory grew by {(_peak() - before) >> 20} MiB")
        trial.finding = "; ".join(trial.findings)
        return trial

    def _took(self, trial: Trial, began: float, what: str) -> None:
        seconds = time.process_time() - began
        if seconds > TIME_LIMIT:
            trial.findings.append(f"slow: {what} took {seconds:.1f} s of CPU")

    def _is_large(self) -> bool:
        return self._arena > LARGEST_ARENA or self._flops > LARGEST_FLOPS

    def _open(self, choice: Any) -> Any:
        return self._device_view if choice == "auto" else open_device(choice)

    def _read(self, read_model: Callable[..., Any]) -> Callable[..., Any]:
        def reading(*given: Any, **named: Any) -> Any:
            graph = read_model(*given, **named)
            self._stage = "rewrite" if self._stage == "read" else self._stage
            return graph

        return reading

    def _planned(self, make_plan: Callable[..., Plan]) -> Callable[..., Plan]:
        def planning(graph: Any, *given: Any, **named: Any) -> Plan:
            if self._stage in ("read", "rewrite"):
                self._stage = "plan"
            for node in graph.nodes:
                self._flops += create(node).flops(node.inputs, node.outputs)
                self._arena += sum(v.known_type.size * 4 for v in node.outputs)
            if self._stage == "run" and self._is_large():  # a size that the run decided
                raise TooLargeHereError("too large to be run here")
            return make_plan(graph, *given, **named)

        return planning


class TooLargeHereError(VkconvError):
    """Raised by the watch, not by the package: what follows would take more than its share."""


class _Unclosable:
    """A device that sessions close, and that stays open."""

    def __init__(self, device: Any) -> None:
        self._device = device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def close(self) -> None:
        pass


def _poisoned(prepare: Callable[..., Any]) -> Callable[..., Any]:
    """Plans made in the run (later stages, loops) begin in a poisoned arena too."""

    def preparing(device: VulkanDevice, plan: Plan) -> Any:
        executable = prepare(device, plan)
        if plan.arena_size:
            device_arena.poison(executable, POISON)
        return executable

    return preparing


def place_of(error: BaseException) -> str:
    """The innermost line of the package that the error went through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/vkconv/" in f.filename or "/sentinels" in f.filename]
    if not own:
        return "nowhere in the package"
    return f"{own[-1].filename.rsplit('/vkconv/', 1)[-1]}:{own[-1].lineno}"


def _check_message(error: VkconvError, trial: Trial) -> None:
    """One line, not too long; and a model is never to blame for a BuildError."""
    message = str(error)
    if isinstance(error, BuildError):
        trial.findings.append(
            f"BuildError at {place_of(error.__cause__ or error)}: {message[:200]}"
        )
    if "\n" in message or not message:
        trial.findings.append(f"message of {len(message.splitlines())} lines: {message[:300]!r}")
    elif len(message) > LONGEST_MESSAGE:
        trial.findings.append(f"message of {len(message)} characters: {message[:200]!r}")


def _peak() -> int:
    """The most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _read_picture(data: bytes, path: Path, trial: Trial) -> None:
    from vkconv.vision.preprocess import image_to_tensor, letterbox, load_image

    path.write_bytes(data)
    try:
        image = load_image(path)
        trial.stage = "load"
        image_to_tensor(letterbox(image, (64, 48))[0])
        trial.stage = "run"
    except VkconvError as error:
        trial.error = type(error).__name__
        _check_message(error, trial)


def lay_out(folder: Path) -> None:
    """A model's folder with data, and ways out of it: links, a folder, a pipe."""
    inside = folder / "model"
    (inside / "sub").mkdir(parents=True, exist_ok=True)
    (folder / "secret.bin").write_bytes(b"secret  " * 512)
    (inside / "data.bin").write_bytes(bytes(range(256)) * 16)
    for name, target in (("link.bin", "../secret.bin"), ("loop", "loop"), ("up", "..")):
        if not (inside / name).is_symlink():
            (inside / name).symlink_to(target)
    if not (inside / "fifo").exists():
        os.mkfifo(inside / "fifo")


@contextmanager
def limited_memory(extra: int) -> Iterator[None]:
    """The process may map no more than ``extra`` bytes beyond what it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + extra, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
