"""Random models on the device against onnxruntime: aliasing, barriers, layouts, fusions."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from tests.random_graphs import random_model
from vkconv import InferenceSession
from vkconv.ir import Array

SEEDS = range(60)


def feeds_for(session: InferenceSession, seed: int) -> dict[str, Array]:
    random = np.random.default_rng([seed, 1])
    shapes = {i.name: [int(d) for d in i.shape if d is not None] for i in session.get_inputs()}
    return {n: random.standard_normal(s).astype(np.float32) for n, s in shapes.items()}


@pytest.mark.filterwarnings("ignore:nodes that run on the host:RuntimeWarning")
@pytest.mark.parametrize("seed", SEEDS)
def test_device_agrees_with_onnxruntime(seed: int) -> None:
    model = random_model(seed)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    oracle = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    with InferenceSession(model) as session:
        feeds = feeds_for(session, seed)
        # other data first: whatever a run fails to write then holds wrong values
        session.run(None, {name: 3 - x for name, x in feeds.items()})
        actual = session.run(None, feeds)
        names = [o.name for o in session.get_outputs()]
    for name, a, e in zip(names, actual, oracle.run(None, feeds), strict=True):
        assert a.shape == e.shape and a.dtype == e.dtype, name
        error = float(np.mean((a - e) ** 2))
        assert error <= 1e-6 * max(float(np.mean(e * e)), 1e-6), name
