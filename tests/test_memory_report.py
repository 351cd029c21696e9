"""What a session says it takes, and what it really leaves in the process."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

from tests.small_models import assert_same, expected, floats, model, node
from tests.test_session import detector, feeds
from vkconv import InferenceSession
from vkconv.errors import VkconvError

#: 4 MiB of weights, and 8 of them when packed for a kernel that pads
WEIGHTS = {"w": floats(1024, 1024, scale=0.05), "v": floats(32, 32, 3, 3)}


def test_figures_are_those_of_the_plan() -> None:
    with InferenceSession(detector()) as session:
        plan = next(iter(session._stages.values())).plan
        memory = session.memory
        assert memory.weights == sum(s.size for s in plan.constants) > 0
        assert memory.arena_lower_bound == plan.arena_lower_bound
        assert plan.arena_size <= memory.arena <= plan.arena_size + 512
        assert memory.host_weights == 0 and memory.plans == 1
        assert memory.device == memory.weights + memory.arena + memory.staging
        assert str(memory).startswith("memory: weights 0.0") and "\n" not in str(memory)
    with pytest.raises(VkconvError, match="closed"):
        _ = session.memory


def test_staging_where_the_host_cannot_reach_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    with InferenceSession(detector()) as session:
        assert session.memory.staging == 0
    monkeypatch.setenv("VKCONV_DISABLE", "unified")
    with InferenceSession(detector()) as session:
        moved = sum(a.nbytes for a in (*feeds().values(), *session.run(None, feeds())))
        assert moved <= session.memory.staging <= moved + 2048


def test_plans_add_up_and_weights_do_not() -> None:
    with InferenceSession(detector(dynamic=True)) as session:
        assert session.memory.plans == session.memory.arena == session.memory.weights == 0
        session.run(None, feeds(1, 8, 8))
        one = session.memory
        session.run(None, feeds(2, 9, 9))
        two = session.memory
        assert (one.plans, two.plans) == (1, 2)
        assert two.arena > one.arena and two.weights == one.weights
        # the model's own weights, to plan from again; the packed ones are gone from the process
        assert 0 < two.host_weights == one.host_weights


def test_reference_device() -> None:
    with InferenceSession(detector(), device="reference") as session:
        assert session.memory.device == 0


def held(proto: bytes) -> tuple[InferenceSession, int]:
    """A session, and the bytes that loading it has left in Python's memory."""
    gc.collect()
    tracemalloc.start()
    try:
        session = InferenceSession(proto)
        gc.collect()
        return session, tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("staging", ["", "unified"])
@pytest.mark.parametrize("fixed", [True, False])
def test_no_copy_of_the_weights_is_left(
    fixed: bool, staging: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the thread that writes a plan to the cache holds the weights until it is done
    monkeypatch.setenv("VKCONV_DISABLE", f"{staging},plan_cache")
    nodes = [node("MatMul", "x w", "a"), node("Sin", "a", "b"), node("Reshape", "b shape", "c"),
             node("Conv", "c v", "y", pads=[1, 1, 1, 1])]  # fmt: skip
    batch = 4 if fixed else "n"
    proto = model(nodes, {"x": [batch, 1024]}, {"y": None},
                  WEIGHTS | {"shape": np.array([-1, 32, 4, 8])})  # fmt: skip
    size = sum(a.nbytes for a in WEIGHTS.values())
    x = {"x": floats(4, 1024)}
    with InferenceSession(proto) as session:  # kernels and modules that stay
        session.run(None, x)
    session, left = held(proto.SerializeToString())
    with session:
        session.run(None, x)
        gc.collect()
        if fixed:
            assert left < 0.1 * size and session.memory.host_weights == 0
        else:  # the model's own arrays, once, and nothing packed
            assert size <= session.memory.host_weights < 1.1 * size and left < 1.2 * size
        assert session.memory.weights >= size
        # a second lane, a second run: the weights are on the device
        assert_same(session.run_async(None, x).result(20), expected(proto, x))
        assert_same(session.run(None, x), expected(proto, x))
        assert session.placement and "MatMul" in session.describe_plan()


def test_plans_made_again_find_their_weights() -> None:
    """A plan that was dropped took the device's copy with it; the next is packed anew."""
    from vkconv.stage_cache import PLAN_CACHE_SIZE

    proto = model([node("MatMul", "x w", "y")], {"x": ["n", 1024]}, {"y": None}, WEIGHTS)
    with InferenceSession(proto) as session:
        gc.disable()  # plans that wait to be collected keep their constants alive
        try:
            for n in (*range(1, PLAN_CACHE_SIZE + 3), 1, 2):
                x = {"x": floats(n, 1024)}
                assert_same(session.run(None, x), expected(proto, x))
        finally:
            gc.enable()
