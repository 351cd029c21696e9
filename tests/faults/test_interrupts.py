"""Ctrl-C anywhere in a load, a run or a close: what threads still use is not freed under them, and
the process goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tests.device.handmade import chain, load
from vkconv.device.vulkan.device import VulkanDevice
from vkconv.device.vulkan.pipelines import Pipelines

ROOT = Path(__file__).parents[2]

#: raises KeyboardInterrupt at one line, call or return of this package after another, drawn from
#: those of a session's life; the modules with threads get half of them
LIFE = """
import faulthandler, gc, linecache, random, sys
import numpy as np
import vkconv
from tests.small_models import floats, model, node

faulthandler.enable()
# one that comes in a finalizer or a generator's end can only be passed over
complain = sys.unraisablehook
sys.unraisablehook = lambda e: None if e.exc_type is KeyboardInterrupt else complain(e)
nodes = [
    node("Conv", "x w", "a"),
    node("Conv", "a v", "b", pads=[1] * 4),
    node("MaxPool", "b", "c", kernel_shape=[2, 2], strides=[2, 2]),
    node("Conv", "c u", "d", group=8, pads=[1] * 4),
    node("Softmax", "d", "y", axis=1),
]
weights = {"w": floats(8, 8, 1, 1), "v": floats(8, 8, 3, 3), "u": floats(8, 1, 3, 3)}
proto = model(nodes, {"x": [1, 8, 16, 16]}, {"y": None}, weights).SerializeToString()
x = floats(1, 8, 16, 16)
MODULES = ("vkconv/device/", "vkconv/session", "vkconv/stage", "vkconv/loading", "vkconv/async")
THREADED = ("pipelines.py", "loading.py", "async_runs.py", "constants.py", "first_dispatch.py")


class Tracer:
    def __init__(self, when):
        self.when, self.places = when, []

    def __call__(self, frame, event, argument):
        name = frame.f_code.co_filename
        if event == "call" and not any(m in name for m in MODULES):
            return None
        if event == "line" and linecache.getline(name, frame.f_lineno).lstrip().startswith("with "):
            return self  # the line is met again to leave the block, where no signal is handled
        self.places.append(name)
        if len(self.places) == self.when:
            sys.settrace(None)
            raise KeyboardInterrupt
        return self


def live(when):
    tracer = Tracer(when)
    sys.settrace(tracer)
    try:
        session = vkconv.InferenceSession(proto)
        futures = [session.run_async(None, {"x": x}) for _ in range(2)]
        session.run(None, {"x": x})
        [future.result() for future in futures]
        session.close()
    finally:
        sys.settrace(None)
    return tracer.places


with vkconv.InferenceSession(proto) as session:
    (expected,) = session.run(None, {"x": x})
places = live(0)
threaded = [k for k, name in enumerate(places, 1) if name.endswith(THREADED)]
choose = random.Random(int(sys.argv[1]))
interrupts = 0
for k in range(int(sys.argv[2])):
    when = choose.choice(threaded) if k % 2 else choose.randrange(1, len(places))
    try:
        live(when)
    except KeyboardInterrupt:
        interrupts += 1
    if k % 10 == 0:
        gc.collect()
        with vkconv.InferenceSession(proto) as session:
            assert np.array_equal(session.run(None, {"x": x})[0], expected)
print(interrupts)
"""


@pytest.mark.parametrize("seed", [0, 1])
def test_ctrl_c_anywhere_in_a_sessions_life(seed: int, tmp_path: Path) -> None:
    count = 60
    done = subprocess.run(
        [sys.executable, "-c", LIFE, str(seed), str(count)],
        cwd=ROOT,
        env={
            **os.environ,
            "VKCONV_CACHE_DIR": str(tmp_path),
            "MESA_SHADER_CACHE_DISABLE": "true",  # each load compiles
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (done.returncode, done.stderr) == (0, "")
    # the number of lines varies a little with what threads do
    assert int(done.stdout) > 0.8 * count


def test_a_device_outlives_the_threads_that_compile_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the wait for a pipeline, and whoever waited closes the device."""
    compile_one, ended = Pipelines._create_pipeline, []

    def slowly(self: Pipelines, *arguments: Any) -> None:
        time.sleep(0.3)
        compile_one(self, *arguments)
        ended.append(time.monotonic())

    def interrupted(self: Future[None]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipelines, "_create_pipeline", slowly)
    device = VulkanDevice("auto", load)
    with monkeypatch.context() as patch:
        patch.setattr(Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            device.prepare(chain(2))
    device.close()
    closed = time.monotonic()
    assert ended and max(ended) < closed
    time.sleep(0.5)
    assert max(ended) < closed, "compiled on a device that is gone"
