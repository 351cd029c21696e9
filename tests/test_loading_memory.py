"""What a load takes at its peak: a model's weights once, and on the device once as they go."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.small_models import model, node

CHILD = """
import sys
from vkconv import InferenceSession

def memory(key):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(x for x in lines if x.startswith(key)).split()[1]) << 10

InferenceSession(sys.argv[1]).close()  # the driver, the operators
before = memory("VmRSS")
with InferenceSession(sys.argv[2]) as session:
    weights = session.memory.weights
    assert session.memory.host_weights == 0
    print((memory("VmHWM") - before) / weights, (memory("VmRSS") - before) / weights)
"""
LAYERS, SIZE = 4, 2048


def chain(layers: int, size: int) -> onnx.ModelProto:
    """Matrix products, of size x size weights each."""
    nodes = []
    for i in range(layers):
        before, after = "x" if i == 0 else f"r{i - 1}", "y" if i == layers - 1 else f"r{i}"
        nodes += [node("Gemm", f"{before} w{i}", f"h{i}", transB=1), node("Relu", f"h{i}", after)]
    random = np.random.default_rng(0)
    constants = {f"w{i}": random.random((size, size), np.float32) for i in range(layers)}
    return model(nodes, {"x": [1, size]}, {"y": None}, constants)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["onnx", "kept", "vkplan"])
def test_weights_are_in_memory_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vkconv import InferenceSession, compile_model, plan_cache

    onnx.save(chain(1, 64), tmp_path / "small.onnx")
    onnx.save(chain(LAYERS, SIZE), tmp_path / "large.onnx")
    if kind == "vkplan":
        compile_model(str(tmp_path / "large.onnx"), str(tmp_path / "large.vkplan"))
    large = tmp_path / ("large.vkplan" if kind == "vkplan" else "large.onnx")
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path))
    if kind == "kept":
        monkeypatch.setattr(plan_cache, "WORTH_KEEPING", 0.0)
        InferenceSession(large).close()
        (entry,) = tmp_path.glob("plans/*.vkplan")
        assert entry.stat().st_size < 1 << 20 < large.stat().st_size
    else:
        monkeypatch.setenv("VKCONV_DISABLE", "plan_cache")
    arguments = [str(tmp_path / "small.onnx"), str(large)]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments], check=True, capture_output=True, text=True
    )
    peak, after = map(float, done.stdout.split())
    # the device's, and pieces on their way there; the file's bytes, protobuf's copy of them, and
    # packed arrays beside the device's made it 3.5
    assert 1 <= peak < 1.4
    assert after < 1.4
