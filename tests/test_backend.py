"""ONNX's backend interface: what ONNX's own runner needs, and its names."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx.backend.base
import onnx.backend.test
import pytest
from onnx import helper

import vkconv.backend as backend
from tests.small_models import floats, model, node
from vkconv import InvalidInputError, UnsupportedModelError


def sum_model() -> onnx.ModelProto:
    nodes = [node("Add", "x y", "sum"), node("Relu", "sum", "z")]
    return model(nodes, {"x": [2, 3], "y": [2, 3]}, {"sum": [2, 3], "z": [2, 3]})


def test_it_is_a_backend() -> None:
    assert issubclass(backend.VulkanBackend, onnx.backend.base.Backend)
    assert issubclass(backend.VulkanBackendRep, onnx.backend.base.BackendRep)


def test_prepare_and_run() -> None:
    x, y = floats(2, 3), floats(2, 3, seed=1)
    with backend.prepare(sum_model()) as prepared:
        for inputs in ([x, y], (x, y), {"y": y, "x": x}):
            total, z = prepared.run(inputs)
            assert np.array_equal(total, x + y) and np.array_equal(z, np.maximum(x + y, 0))
        assert np.array_equal(prepared.run([x, y])["z"], z)
        with pytest.raises(InvalidInputError, match="3 inputs given"):
            prepared.run([x, y, x])
        with pytest.raises(InvalidInputError, match="'y'"):
            prepared.run([x])


def test_run_model_on_a_device_by_name() -> None:
    x, y = floats(2, 3), floats(2, 3, seed=1)
    for device in ("CPU", "auto", "reference"):
        assert np.array_equal(backend.run_model(sum_model(), [x, y], device)[0], x + y)


def test_run_node() -> None:
    x = floats(2, 3)
    (y,) = backend.run_node(helper.make_node("Relu", ["x"], ["y"]), x)
    assert np.array_equal(y, np.maximum(x, 0))
    clip = helper.make_node("Clip", ["x", "", "high"], ["y"])
    (y,) = backend.run_node(clip, [x, None, np.array(0.5, np.float32)], opset_version=13)
    assert np.array_equal(y, np.minimum(x, np.float32(0.5)))
    twice = helper.make_node("Mul", ["x", "x"], ["y"])
    assert np.array_equal(backend.run_node(twice, [x])[0], x * x)
    with pytest.raises(InvalidInputError, match="takes 2"):
        backend.run_node(clip, [x])
    with pytest.raises(UnsupportedModelError, match="Odd"):
        backend.run_node(helper.make_node("Odd", ["x"], ["y"], domain="com.example"), [x])


def test_devices() -> None:
    assert backend.supports_device("CPU") and backend.supports_device("reference")
    assert not backend.supports_device("CUDA") and not backend.supports_device("CUDA:1")
    assert not backend.supports_device("no such device")


def test_is_compatible() -> None:
    assert backend.is_compatible(sum_model())
    odd = model([node("Odd", "x", "y")], {"x": [1]}, {"y": [1]})
    assert not backend.is_compatible(odd)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_onnx_s_own_runner_drives_it() -> None:
    runner = onnx.backend.test.BackendTest(backend, __name__)
    runner.include("test_relu_cpu")
    runner.test_cases["OnnxBackendNodeModelTest"]("test_relu_cpu").debug()


def test_importing_the_package_does_not_load_it() -> None:
    code = "import sys, vkconv; print('onnx' in sys.modules, 'vkconv.backend' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
