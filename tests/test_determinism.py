"""The same bits every time: replay after replay, session after session, process after process.

Bits differ between drivers, and between plans for other devices; on one driver they do not.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

import vkconv
from tests.device.handmade import ROOT, SWIFTSHADER
from tests.models.export import export
from tests.models.yolov7_tiny import OUTPUTS, yolov7_tiny
from tests.small_models import floats, model, node
from vkconv import InferenceSession
from vkconv.ir import Array

REPLAYS = 100
DEMO = Path(vkconv.__file__).parent / "data" / "demo.onnx"

#: prints the digest of the outputs, after so many replays that have to agree
RUN = """
import hashlib, sys
import numpy as np
from vkconv import InferenceSession

def digest(arrays):
    found = hashlib.sha256()
    for array in arrays:
        found.update(repr((array.dtype.str, array.shape)).encode() + array.tobytes())
    return found.hexdigest()

path, shape, replays = sys.argv[1], eval(sys.argv[2]), int(sys.argv[3])
x = np.random.default_rng(11).random(shape, np.float32)
with InferenceSession(path) as session:
    name = session.get_inputs()[0].name
    digests = {digest(session.run(None, {name: x})) for _ in range(replays)}
assert len(digests) == 1, f"{len(digests)} different results"
print(digests.pop())
"""


def picture(shape: Sequence[int]) -> Array:
    return np.random.default_rng(11).random(tuple(shape), np.float32)


def digest(arrays: Sequence[Array]) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(repr((array.dtype.str, array.shape)).encode() + array.tobytes())
    return found.hexdigest()


def in_a_process(path: Path, shape: Sequence[int], replays: int = 2, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(path), repr(tuple(shape)), str(replays)],
        capture_output=True, text=True, cwd=ROOT, timeout=300, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VKCONV_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "yolov7_tiny.onnx"
    return export(yolov7_tiny(), (1, 3, 64, 64), path, outputs=OUTPUTS)


@pytest.fixture(params=["demo", "yolov7-tiny"])
def net(request: pytest.FixtureRequest) -> tuple[Path, tuple[int, ...]]:
    """A model, and the shape of its input."""
    path: Path = DEMO if request.param == "demo" else request.getfixturevalue("tiny")
    inputs = onnx.load(path, load_external_data=False).graph.input
    dims = [d.dim_value or {0: 1, 2: 96, 3: 96}[i] for i, d in enumerate(
        inputs[0].type.tensor_type.shape.dim)]  # fmt: skip
    return path, tuple(dims)


def test_replays_are_the_same_bits(net: tuple[Path, tuple[int, ...]]) -> None:
    """Also when other data has been in the arena, and with two runs under way at once."""
    path, shape = net
    x, other = picture(shape), picture(shape)[:, ::-1].copy()
    with InferenceSession(str(path)) as session:
        name = session.get_inputs()[0].name
        first = session.run(None, {name: x})
        assert all(np.ptp(y) > 0 for y in first)
        assert digest(session.run(None, {name: other})) != digest(first)
        found = {digest(session.run(None, {name: x})) for _ in range(REPLAYS - 10)}
        futures = [session.run_async(None, {name: x}) for _ in range(10)]
        found |= {digest(future.result()) for future in futures}
        times = session.profile({name: x})
    assert found == {digest(first)} and digest(times.outputs) == digest(first)


def test_sessions_and_processes_give_the_same_bits(
    net: tuple[Path, tuple[int, ...]], tmp_path: Path
) -> None:
    """With plans and pipelines made anew, and with those kept on disk."""
    path, shape = net
    x = picture(shape)
    found = []
    for _ in range(2):
        with InferenceSession(str(path)) as session:
            found.append(digest(session.run(None, {session.get_inputs()[0].name: x})))
    found.append(in_a_process(path, shape))
    found.append(in_a_process(path, shape, VKCONV_CACHE_DIR=str(tmp_path / "empty")))
    assert len(set(found)) == 1, found


def test_swiftshader_gives_the_same_bits(tmp_path: Path) -> None:
    """A small net of the kernels that sum: other processes, the same digest."""
    proto = model(
        [
            node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
            node("Relu", "a", "b"),
            node("Conv", "b v", "c"),
            node("MaxPool", "c", "d", kernel_shape=[2, 2], strides=[2, 2]),
            node("Softmax", "d", "s", axis=1),
            node("GlobalAveragePool", "s", "g"),
            node("MatMul", "d m", "e"),
            node("ReduceMean", "e", "f", axes=[2, 3], keepdims=1),
            node("Add", "f g", "y"),
        ],
        {"x": [1, 8, 24, 24]}, {"y": None, "e": None},
        {"w": floats(16, 8, 3, 3), "v": floats(16, 16, 1, 1), "m": floats(12, 9)},
    )  # fmt: skip
    onnx.save(proto, tmp_path / "net.onnx")
    driver = {"VK_ICD_FILENAMES": SWIFTSHADER, "VK_DRIVER_FILES": SWIFTSHADER}
    first, second = (
        in_a_process(tmp_path / "net.onnx", (1, 8, 24, 24), replays, **driver)
        for replays in (REPLAYS, 1)
    )
    assert first == second
