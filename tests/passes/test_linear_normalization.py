"""BatchNormalization behind a convolution: folded exactly, or left."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.passes.rewriting import check, operators, rewritten
from tests.small_models import floats, model, node
from vkconv.ir import Array
from vkconv.passes.fuse_linear_branches import fuse_linear_branches

PASS = fuse_linear_branches
X = {"x": [2, 4, 6, 5]}
Y = {"y": None}


def statistics(channels: int, seed: int = 0) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    variance = random.uniform(0.2, 3, channels).astype(np.float32)
    names = ("gamma", "beta", "mean")
    return {n: floats(channels, seed=i) for i, n in enumerate(names)} | {"variance": variance}


def norm(x: str = "c", y: str = "y", **attributes: object) -> onnx.NodeProto:
    return node("BatchNormalization", f"{x} gamma beta mean variance", y, **attributes)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("group", [1, 2, 4])
def test_conv(bias: bool, group: int) -> None:
    constants = statistics(8) | {"w": floats(8, 4 // group, 3, 3), "b": floats(8)}
    conv = node("Conv", "x w" + " b" * bias, "c", group=group, pads=[1, 1, 1, 1], strides=[2, 1])
    graph = check(model([conv, norm(epsilon=1e-3)], X, Y, constants), ["Conv"], PASS)
    assert graph.nodes[0].fused == ["BatchNormalization:y"]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("group", [1, 2])
def test_conv_transpose(bias: bool, group: int) -> None:
    constants = statistics(6) | {"w": floats(4, 6 // group, 3, 2), "b": floats(6)}
    conv = node("ConvTranspose", "x w" + " b" * bias, "c", group=group, strides=[2, 2])
    check(model([conv, norm()], X, Y, constants), ["ConvTranspose"], PASS)


def test_one_and_three_spatial_axes() -> None:
    for dims in ([7], [3, 4, 2]):
        constants = statistics(5) | {"w": floats(5, 4, *[2] * len(dims))}
        proto = model([node("Conv", "x w", "c"), norm()], {"x": [1, 4, *dims]}, Y, constants)
        check(proto, ["Conv"], PASS)


def test_two_in_a_row() -> None:
    constants = statistics(8) | {"w": floats(8, 4, 1, 1)}
    nodes = [node("Conv", "x w", "c"), norm("c", "d"), norm("d", "y")]
    check(model(nodes, X, Y, constants), ["Conv"], PASS)


def test_weights_shared_by_two_convolutions() -> None:
    constants = statistics(8) | {"w": floats(8, 4, 1, 1)}
    nodes = [node("Conv", "x w", "c"), norm("c", "y"), node("Conv", "x w", "z")]
    check(model(nodes, X, {"y": None, "z": None}, constants), ["Conv", "Conv"], PASS)


def test_float16() -> None:
    constants = {n: a.astype(np.float16) for n, a in statistics(8).items()}
    constants["w"] = (floats(8, 4, 1, 1) * 0.2).astype(np.float16)
    proto = model([node("Conv", "x w", "c"), norm()], {"x": ("float16", [1, 4, 3, 3])},
                  {"y": ("float16", None)}, constants)  # fmt: skip
    graph = check(proto, ["Conv"], PASS)
    assert all(v.dtype == "float16" for v in graph.nodes[0].inputs if v)


def test_convolution_that_is_read_elsewhere_or_an_output() -> None:
    constants = statistics(8) | {"w": floats(8, 4, 1, 1)}
    conv = node("Conv", "x w", "c")
    elsewhere = [conv, norm(), node("Relu", "c", "z")]
    proto = model(elsewhere, X, {"y": None, "z": None}, constants)
    check(proto, ["Conv", "BatchNormalization", "Relu"], PASS)
    proto = model([conv, norm()], X, {"y": None, "c": None}, constants)
    check(proto, ["Conv", "BatchNormalization"], PASS)


def test_normalisation_before_a_padded_convolution_stays() -> None:
    constants = statistics(4) | {"w": floats(8, 4, 3, 3)}
    nodes = [norm("x", "n"), node("Conv", "n w", "y", pads=[1, 1, 1, 1])]
    check(model(nodes, X, Y, constants), ["BatchNormalization", "Conv"], PASS)


def test_normalisation_behind_a_pad_of_a_biased_layer_stays() -> None:
    constants = statistics(8) | {"w": floats(8, 4, 1, 1), "p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    constants["b"] = floats(8, seed=9)
    nodes = [node("Conv", "x w b", "c"), node("Pad", "c p", "d"), norm("d", "y")]
    check(model(nodes, X, Y, constants), ["Conv", "Pad", "BatchNormalization"], PASS)


def test_training_form_stays() -> None:
    constants = statistics(8) | {"w": floats(8, 4, 1, 1)}
    conv = node("Conv", "x w", "c")
    trains = node("BatchNormalization", "c gamma beta mean variance", "y m v", training_mode=1)
    graph = rewritten(model([conv, trains], X, {"y": None, "m": None, "v": None}, constants), PASS)
    assert operators(graph) == ["Conv", "BatchNormalization"]
    alone = node("BatchNormalization", "c gamma beta mean variance", "y", training_mode=1)
    assert len(rewritten(model([conv, alone], X, Y, constants), PASS).nodes) == 2


def test_computed_parameters_and_weights_stay() -> None:
    constants = statistics(8) | {"w": floats(8, 4, 1, 1)}
    for name in ("gamma", "variance", "w"):
        rest = {n: a for n, a in constants.items() if n != name}
        inputs = X | {name: list(constants[name].shape)}
        proto = model([node("Conv", "x w", "c"), norm()], inputs, Y, rest)
        assert operators(rewritten(proto, PASS)) == ["Conv", "BatchNormalization"]


def test_what_float32_cannot_hold_is_not_folded() -> None:
    constants = statistics(8) | {"w": floats(8, 4, 1, 1)}
    constants["variance"] = np.zeros(8, np.float32)
    conv = node("Conv", "x w", "c")
    proto = model([conv, norm(epsilon=0.0)], X, Y, constants)
    assert len(rewritten(proto, PASS).nodes) == 2
    constants["gamma"] = np.full(8, 3e38, np.float32)
    proto = model([conv, norm(epsilon=1e-5)], X, Y, constants)
    assert len(rewritten(proto, PASS).nodes) == 2


def test_an_activation_between_them() -> None:
    constants = statistics(8) | {"w": floats(8, 4, 1, 1)}
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "r"), norm("r", "y")]
    check(model(nodes, X, Y, constants), ["Conv", "Relu", "BatchNormalization"], PASS)
