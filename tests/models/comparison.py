"""A model on the Vulkan device against onnxruntime on the CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from vkconv import InferenceSession

Array = NDArray[np.float32]
Feeds = Mapping[str, Array]
ALLOWED_NMSE = 1e-6
ON_DEVICE = {"gpu", "folded", "fused"}


def images(*shape: int, seed: int = 0) -> Array:
    """Reproducible pixels in [0, 1)."""
    return np.random.default_rng([seed, *shape]).random(shape, np.float32)


def nmse(actual: Array, expected: Array) -> float:
    """Mean squared error over the mean square of what is expected."""
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    error = actual.astype(np.float64) - expected
    return float(np.sum(error * error) / np.sum(np.square(expected, dtype=np.float64)))


def onnxruntime_session(model: Path | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # threads that spin between runs would take the CPU driver's time
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = os.fspath(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def compare(model: Path | bytes, feeds: Sequence[Feeds]) -> float:
    """Run every feed through one session; returns the worst NMSE of all outputs.

    It has to be within ``ALLOWED_NMSE``, and no node may run on the host. Each feed is preceded by
    another of its shape: what a kernel fails to write then holds wrong numbers.
    """
    oracle = onnxruntime_session(model)
    worst = 0.0
    with InferenceSession(
        os.fspath(model) if isinstance(model, Path) else model, strict=True
    ) as session:
        assert [o.name for o in session.get_outputs()] == [o.name for o in oracle.get_outputs()]
        for feed in feeds:
            session.run(None, {name: 1 - array for name, array in feed.items()})
            actual = session.run(None, feed)
            elsewhere = [p for p in session.placement if p.where not in ON_DEVICE]
            assert not elsewhere, elsewhere
            for a, e in zip(actual, oracle.run(None, dict(feed)), strict=True):
                assert np.std(e) > 0 or e.size == 1, "an output that does not vary shows nothing"
                worst = max(worst, nmse(a, e))
    assert worst <= ALLOWED_NMSE
    return worst
