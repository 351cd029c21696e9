"""SIGINT and SIGTERM: a command ends with one line and no half file, a session stays usable."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.fake_session import save_model

ROOT = Path(__file__).parents[2]

#: says when it begins, so that the signal does not meet the interpreter's own start
COMMAND = """
import sys
import vkconv.cli.main as command
print("ready", flush=True)
sys.exit(command.main(sys.argv[1:]))
"""

#: says when, for a signal to come then: while a model is loaded, and again while it runs
LIBRARY = """
import numpy as np, sys
import vkconv
from tests.small_models import floats, model, node

names = [f"v{k}" for k in range(40)]
nodes = [node("Conv", f"{a} w", b) for a, b in zip(["x", *names], names)]
proto = model(nodes, {"x": [1, 8, 96, 96]}, {names[-1]: None}, {"w": floats(8, 8, 3, 3, scale=0.1)})
proto = proto.SerializeToString()
x = floats(1, 8, 96, 96)
session = vkconv.InferenceSession(proto)
(expected,) = session.run(None, {"x": x})

interrupts = 0
print("ready", flush=True)
while not interrupts:
    try:
        if sys.argv[1] == "load":
            vkconv.InferenceSession(proto).close()
        elif sys.argv[1] == "run":
            session.run(None, {"x": x})
        else:
            [f.result() for f in [session.run_async(None, {"x": x}) for _ in range(3)]]
    except KeyboardInterrupt:
        interrupts += 1
assert np.array_equal(session.run(None, {"x": x})[0], expected)
session.close()
with vkconv.InferenceSession(proto) as session:
    assert np.array_equal(session.run(None, {"x": x})[0], expected)
print("usable")
"""


@pytest.fixture(autouse=True)
def _sigint_as_in_a_terminal() -> Iterator[None]:
    """Ignored signals stay ignored in a new process, and a shell ignores SIGINT in what it runs in
    the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def begin(code: str, *arguments: str, folder: Path) -> subprocess.Popen[str]:
    """Starts ``code``; returns when it is ready."""
    made = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "VKCONV_CACHE_DIR": str(folder / "cache")},
    )
    assert made.stdout is not None and made.stdout.readline() == "ready\n", made.communicate()
    return made


@pytest.mark.parametrize("delay", [0.02, 0.15, 0.4])
@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_command_ends_with_one_line_and_no_half_file(
    tmp_path: Path, number: int, code: int, word: str, delay: float
) -> None:
    save_model(tmp_path / "model.onnx")
    Image.new("RGB", (128, 64)).save(tmp_path / "image.png")
    before = {p.name for p in tmp_path.iterdir()} | {"cache"}
    outputs = ("-o", "picture.png", "--json", "boxes.json", "--profile", "trace.json")
    command = begin(COMMAND, "run", "model.onnx", "image.png", *outputs, folder=tmp_path)
    time.sleep(delay)
    command.send_signal(number)
    stdout, stderr = command.communicate(timeout=60)
    left = {p.name for p in tmp_path.iterdir()} - before
    if command.returncode == 0:  # it was faster
        assert left == {"picture.png", "boxes.json", "trace.json"}, stderr
        return
    assert command.returncode == code and stdout == "", (command.returncode, stderr)
    assert stderr == f"vkconv run: {word}\n"
    for name in left:  # complete, where they were written at all
        assert name in ("picture.png", "boxes.json", "trace.json")
        if name == "picture.png":
            Image.open(tmp_path / name).load()


#: sends the second signal where a command puts things in order, or after it
TWICE = """
import os, signal, sys
from vkconv.cli.terminal import guarded

first, second = map(int, sys.argv[1:3])

def command():
    try:
        os.kill(os.getpid(), first)
    finally:
        if sys.argv[3] == "within":
            os.kill(os.getpid(), second)

print("ready", flush=True)
guarded("vkconv run", command)
os.kill(os.getpid(), second)
print("went on")
"""


@pytest.mark.parametrize("where", ["within", "after"])
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process(
    tmp_path: Path, first: int, second: int, where: str
) -> None:
    child = begin(TWICE, str(int(first)), str(int(second)), where, folder=tmp_path)
    stdout, stderr = child.communicate(timeout=60)
    assert (child.returncode, stdout) == (-second, "")
    said = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[first]
    assert stderr == ("" if where == "within" else f"vkconv run: {said}\n")


@pytest.mark.parametrize("during", ["load", "run", "run_async"])
def test_ctrl_c_leaves_the_session_usable(tmp_path: Path, during: str) -> None:
    child = begin(LIBRARY, during, folder=tmp_path)
    time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    stdout, stderr = child.communicate(timeout=120)
    assert (child.returncode, stdout, stderr) == (0, "usable\n", ""), stderr
