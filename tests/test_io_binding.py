"""Bound arrays: read at each run, written into, checked; and nothing allocated on the way."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from tests.small_models import assert_same, expected, floats, model, node
from tests.test_session import DEVICES, detector, feeds
from vkconv import InferenceSession
from vkconv.errors import InvalidInputError, VkconvError


@DEVICES
def test_outputs_are_written_into_the_bound_arrays(device: str) -> None:
    proto = detector()
    with InferenceSession(proto, device=device) as session:
        binding = session.io_binding()
        scaled, image = np.full((2, 24, 12, 8), 7, np.float32), feeds()["image"].copy()
        binding.bind_cpu_input("image", image)
        binding.bind_cpu_input("scale", feeds()["scale"])
        binding.bind_output("means")
        binding.bind_output("scaled", scaled)
        for seed in range(3):
            image[:] = feeds(seed=seed)["image"]  # what it holds at the time of the run
            session.run_with_iobinding(binding)
            wanted = expected(proto, feeds(seed=seed))
            means, same = binding.copy_outputs_to_cpu()
            assert same is scaled
            assert_same([scaled, means], wanted)


def test_views_and_other_dtypes() -> None:
    nodes = [node("Cast", "x", "h", to=10), node("ArgMax", "x", "i", axis=1)]
    nodes.append(node("IsNaN", "x", "b"))
    proto = model(nodes, {"x": [4, 6]},
                  {"h": ("float16", [4, 6]), "i": ("int64", [4, 1]), "b": ("bool", [4, 6])},
                  opset=20)  # fmt: skip
    x = floats(6, 8).T[::2]  # strided in both directions
    x[1, 2] = np.nan
    with InferenceSession(proto) as session:
        wanted = session.run(None, {"x": x})
        into = [np.zeros((8, 12), np.float16)[::2, ::2], np.zeros((4, 2), np.int64)[:, :1],
                np.zeros((4, 6), bool)]  # fmt: skip
        binding = session.io_binding()
        binding.bind_cpu_input("x", x)
        for name, array in zip("hib", into, strict=True):
            binding.bind_output(name, array)
        session.run_with_iobinding(binding)
        for a, w in zip(into, wanted, strict=True):
            assert np.array_equal(a, w, equal_nan=a.dtype.kind == "f")


def test_open_shapes_and_stages() -> None:
    """The second output's size depends on data."""
    proto = model([node("Relu", "x", "a"), node("NonZero", "a", "z"), node("Cast", "z", "y", to=1)],
                  {"x": ["n", 5]}, {"a": None, "y": None})  # fmt: skip
    x = np.ones((3, 5), np.float32)
    with InferenceSession(proto) as session:
        binding, y = session.io_binding(), np.zeros((2, 15), np.float32)
        binding.bind_cpu_input("x", x)
        binding.bind_output("y", y)
        session.run_with_iobinding(binding)
        assert_same([y], expected(proto, {"x": x})[1:])
        binding.bind_cpu_input("x", np.eye(3, 5, dtype=np.float32))
        with pytest.raises(InvalidInputError, match=r"'y' has shape \(2, 3\).* \(2, 15\)"):
            session.run_with_iobinding(binding)
        binding.bind_output("y")
        session.run_with_iobinding(binding)
        assert binding.get_outputs()[0].shape == (2, 3)


def test_a_run_allocates_no_tensor() -> None:
    proto = model([node("Neg", "x", "y")], {"x": [256, 1024]}, {"y": None})
    with InferenceSession(proto) as session:
        x, y = floats(256, 1024), np.zeros((256, 1024), np.float32)
        binding = session.io_binding()
        binding.bind_cpu_input("x", x)
        binding.bind_output("y", y)
        session.run_with_iobinding(binding)
        tracemalloc.start()
        try:
            for _ in range(5):
                session.run_with_iobinding(binding)
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert np.array_equal(y, -x)
    assert most < x.nbytes // 20


def test_unbound_outputs_are_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[int] = []
    with InferenceSession(detector()) as session:
        (stage,) = session._stages.values()
        engine = type(stage._executable._lanes[0])
        fetch = engine._fetch
        monkeypatch.setattr(
            engine, "_fetch", lambda self, i, *rest: fetched.append(i) or fetch(self, i, *rest)
        )
        binding = session.io_binding()
        for name, array in feeds().items():
            binding.bind_cpu_input(name, array)
        binding.bind_output("means")
        session.run_with_iobinding(binding)
        session.run(["means", "means"], feeds())
    assert fetched == [1, 1]


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("nothing", None, "no output 'nothing'; its outputs: scaled, means"),
        ("means", [1, 2], "takes a numpy array, not list"),
        ("means", np.zeros((2, 24, 1, 1)), "is float32, the array float64"),
        ("means", np.zeros((2, 24, 1, 1), ">f4"), "is float32, the array"),
        ("means", np.zeros((2, 24, 1, 2), np.float32), r"has shape \[2, 24, 1, 1\], the array \[2"),
        ("means", np.zeros((24, 1, 1), np.float32), "the array"),
        ("means", np.broadcast_to(np.float32(0), (2, 24, 1, 1)), "is read-only"),
    ],
)
def test_arrays_that_do_not_fit(name: str, array: Any, message: str) -> None:
    with InferenceSession(detector(), device="reference") as session:
        with pytest.raises(InvalidInputError, match=message) as caught:
            session.io_binding().bind_output(name, array)
        assert "\n" not in str(caught.value)


@DEVICES
def test_wrong_bindings_leave_the_session_working(device: str) -> None:
    with InferenceSession(detector(dynamic=True), device=device) as session:
        binding = session.io_binding()
        with pytest.raises(InvalidInputError, match="no input 'pixels'; its inputs: image, scale"):
            binding.bind_cpu_input("pixels", np.zeros(3))
        binding.bind_cpu_input("image", feeds()["image"])
        with pytest.raises(InvalidInputError, match="no output is bound"):
            session.run_with_iobinding(binding)
        binding.bind_output("scaled", np.zeros((1, 24, 12, 8), np.float32))
        with pytest.raises(InvalidInputError, match=r"'scale' .* is missing"):
            session.run_with_iobinding(binding)
        with pytest.raises(InvalidInputError, match="has not been run"):
            binding.copy_outputs_to_cpu()
        binding.bind_cpu_input("scale", feeds()["scale"])
        with pytest.raises(InvalidInputError, match=r"has shape \(2, 24, 12, 8\), the array bound"):
            session.run_with_iobinding(binding)
        binding.clear_binding_outputs()
        binding.bind_output("means")
        session.run_with_iobinding(binding)
        assert binding.copy_outputs_to_cpu()[0].shape == (2, 24, 1, 1)
        binding.clear_binding_inputs()
        with pytest.raises(InvalidInputError, match="is missing"):
            session.run_with_iobinding(binding)
    with pytest.raises(VkconvError):
        session.run_with_iobinding(binding)
