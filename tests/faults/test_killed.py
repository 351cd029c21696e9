"""Killed while writing, again and again: what lies at the path is whole, the old or the new."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from vkconv.device.vulkan import pipeline_cache
from vkconv.plan_file import read_compiled
from vkconv.tuning.record import read_record

ROOT = Path(__file__).parents[2]
KILLS = 12

#: writes every kind of file over and over, each through the function that commands and sessions use
WRITER = """
import sys
import numpy as np, onnx
from pathlib import Path
from PIL import Image
import vkconv
from tests.small_models import floats, model, node
from vkconv.cli.output import encode_image
from vkconv.device.vulkan import pipeline_cache
from vkconv.files import write_bytes
from vkconv.tuning.record import Target, Timing, save_record

folder = Path(sys.argv[1])
nodes = [node("Conv", "x w", "a"), node("Conv", "a w", "y")]
proto = model(nodes, {"x": [1, 8, 8, 8]}, {"y": [1, 8, 4, 4]}, {"w": floats(8, 8, 3, 3)})
fused = vkconv.fuse(proto)
vkconv.compile_model(proto, str(folder / "model.vkplan"))
picture = Image.fromarray((np.random.default_rng(0).random((200, 200, 3)) * 255).astype("uint8"))
png = encode_image(picture, "picture.png")
layers = {f"conv {k}": Timing("a", 1.0, "b", 2.0) for k in range(300)}
print("ready", flush=True)
k = 0
while True:
    k += 1
    data = np.random.default_rng(k).bytes(1 << 18)
    assert pipeline_cache.write(folder / "driver.pipelines", data)
    save_record(folder / "tuning.json", Target(f"device {k % 5}", "d", "1", ""), layers)
    fused.save(folder / "fused.onnx", overwrite=True)
    write_bytes(str(folder / "picture.png"), png, "the picture")
    if k % 4 == 0:
        vkconv.compile_model(proto, str(folder / "model.vkplan"))
"""

#: each raises, or says False, where the file is not whole
CHECKS: dict[str, Callable[[Path], object]] = {
    "driver.pipelines": pipeline_cache.read,
    "tuning.json": lambda path: json.loads(path.read_text()) and read_record(path),
    "fused.onnx": lambda path: onnx.checker.check_model(str(path), full_check=True) is None,
    "picture.png": lambda path: np.asarray(Image.open(path)).shape == (200, 200, 3),
    "model.vkplan": read_compiled,
}


def test_a_process_killed_while_it_writes_leaves_whole_files(tmp_path: Path) -> None:
    turn = random.Random(0)
    seen: set[str] = set()
    for _ in range(3):
        writer = begin(tmp_path)
        for _ in range(KILLS // 3):  # it is stopped and looked at, and killed in the end
            time.sleep(turn.random() * 0.1)
            writer.send_signal(signal.SIGSTOP)
            check(tmp_path, seen)
            writer.send_signal(signal.SIGCONT)
        writer.send_signal(signal.SIGKILL)
        assert writer.wait(30) == -signal.SIGKILL
        check(tmp_path, seen)
    assert seen == set(CHECKS), "each was there to be looked at"


def begin(folder: Path) -> subprocess.Popen[str]:
    made = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "VKCONV_CACHE_DIR": str(folder / "cache")},
    )
    assert made.stdout is not None and made.stdout.readline() == "ready\n"
    return made


def check(folder: Path, seen: set[str]) -> None:
    for name, is_whole in CHECKS.items():
        if (folder / name).exists():
            assert is_whole(folder / name), name
            seen.add(name)


def test_the_check_notices_half_a_file(tmp_path: Path) -> None:
    for name, is_whole in CHECKS.items():
        (tmp_path / name).write_bytes(b"half")
        try:
            whole = is_whole(tmp_path / name)
        except Exception:
            continue
        assert not whole, name


@pytest.mark.parametrize("age", [0, 7200])
def test_what_a_killed_process_left_is_cleared_away_after_an_hour(tmp_path: Path, age: int) -> None:
    left = tmp_path / ".vkconv-abc.pipelines"
    other = tmp_path / "notes"
    for path in (left, other):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    assert pipeline_cache.write(tmp_path / "driver.pipelines", b"data")
    assert left.exists() == (age == 0), "a younger one may be another process's, at work"
    assert other.exists()
