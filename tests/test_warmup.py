"""``session.warmup()``: afterwards a run finds everything planned, compiled and allocated."""

from __future__ import annotations

import numpy as np
import pytest

from tests.small_models import floats, model, node
from vkconv import InferenceSession
from vkconv.device.vulkan.device import VulkanDevice
from vkconv.errors import InvalidInputError, VkconvError


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows by one whenever a device makes a plan ready."""
    found: list[object] = []
    original = VulkanDevice.prepare

    def counted(self, plan):
        found.append(plan)
        return original(self, plan)

    monkeypatch.setattr(VulkanDevice, "prepare", counted)
    return found


def open_model():
    return model(
        [node("Relu", "x", "r"), node("Add", "r b", "y")], {"x": ["n", 3], "b": [3]}, {"y": None}
    )


def test_fixed_sizes_need_nothing(prepared: list[object]) -> None:
    proto = model([node("Relu", "x", "y")], {"x": [2, 3]}, {"y": None})
    with InferenceSession(proto) as session:
        session.warmup()
        count = len(prepared)
        (y,) = session.run(None, {"x": floats(2, 3)})
        np.testing.assert_array_equal(y, np.maximum(floats(2, 3), 0))
        assert len(prepared) == count


def test_open_sizes_are_told_by_a_feed(prepared: list[object]) -> None:
    with InferenceSession(open_model()) as session:
        with pytest.raises(InvalidInputError, match=r"input 'x' has the open shape"):
            session.warmup()
        session.warmup({"x": np.empty((5, 3), np.float32)})
        count = len(prepared)
        session.run(None, {"x": floats(5, 3), "b": floats(3)})
        assert len(prepared) == count
        with pytest.raises(InvalidInputError, match="no input 'z'"):
            session.warmup({"x": floats(5, 3), "z": floats(1)})


def test_stages_that_zeros_lead_to(prepared: list[object]) -> None:
    nodes = [node("Relu", "x", "r"), node("Reshape", "r s", "y")]
    proto = model(nodes, {"x": [6], "s": ("int64", [2])}, {"y": None})
    with InferenceSession(proto) as session:
        session.warmup({"s": np.array([2, 3])})
        count = len(prepared)
        session.run(None, {"x": floats(6), "s": np.array([2, 3])})
        assert len(prepared) == count


def test_every_type_has_a_zero() -> None:
    inputs = {d: (d, [2]) for d in ("float16", "int64", "uint8", "bool", "float64", "string")}
    nodes = [node("Identity", d, f"{d}_out") for d in inputs]
    outputs = {f"{d}_out": t for d, t in inputs.items()}
    with InferenceSession(model(nodes, inputs, outputs)) as session:
        session.warmup()


def test_not_after_the_end() -> None:
    session = InferenceSession(model([node("Relu", "x", "y")], {"x": [2]}, {"y": None}))
    session.close()
    with pytest.raises(VkconvError, match="closed"):
        session.warmup()
