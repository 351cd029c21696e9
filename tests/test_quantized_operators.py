"""onnxruntime's quantised operators against onnxruntime's: onnx_reader/quantized_operators.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from tests.small_models import floats, model, node
from vkconv import InferenceSession
from vkconv.errors import UnsupportedModelError, VkconvError
from vkconv.ir import Array

X = (2, 6, 5, 7)
#: scale and zero point of x, y and the result, by type of element
#: (scales whose ratios are no simple ones: halves, which may be rounded otherwise, are rare)
UNSIGNED = {"sx": 0.0213, "zx": 120, "sy": 0.0317, "zy": 131, "sz": 0.0409, "zz": 99}
SIGNED = UNSIGNED | {"zx": -8, "zy": 3, "zz": -29}
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("QLinearAdd", "x sx zx y sy zy sz zz", {}),
    ("QLinearAdd", "x sx zx c sy zy sz zz", {}),
    ("QLinearMul", "x sx zx y sy zy sz zz", {}),
    ("QLinearSigmoid", "x sx zx sz zz", {}),
    ("QLinearSigmoid", "x sx  sz ", {}),
    ("QLinearLeakyRelu", "x sx zx sz zz", {"alpha": 0.3}),
    ("QLinearAveragePool", "x sx zx sz zz", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("QLinearAveragePool", "x sx zx sz zz", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("QLinearGlobalAveragePool", "x sx zx sz zz", {"channels_last": 0}),
    ("QLinearSoftmax", "x sx zx sz zz", {"axis": 1, "opset": 17}),
    ("QLinearWhere", "which x sx zx y sy zy sz zz", {}),
    ("QLinearConcat", "sz zz x sx zx y sy zy x sx zx", {"axis": 1}),
]


def quantised(op_type: str, inputs: str, attributes: dict[str, Any], dtype: str, opset: int):
    """The node alone, its inputs and what onnxruntime makes of them."""
    numbers = SIGNED if dtype == "int8" else UNSIGNED
    random = np.random.default_rng(len(op_type))
    limits = np.iinfo(dtype)
    feeds: dict[str, Array] = {
        name: random.integers(limits.min, limits.max + 1, shape).astype(dtype)
        for name, shape in {"x": X, "y": X}.items()
        if name in inputs.split()
    }
    if "which" in inputs:
        feeds["which"] = random.random(X) < 0.5
    constants = {
        name: np.array(value, np.float32 if name[0] == "s" else dtype)
        for name, value in numbers.items()
    }
    constants["c"] = random.integers(limits.min, limits.max + 1, (6, 1, 1)).astype(dtype)
    # `node` splits at spaces: two of them mean an input that is left out
    names = inputs.split(" ")
    one = helper.make_node(op_type, names, ["z"], domain="com.microsoft", **attributes)
    kinds = {n: (helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in feeds.items()}
    graph = helper.make_graph(
        [one],
        "quantised",
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in kinds.items()],
        [
            helper.make_tensor_value_info(
                "z", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), None
            )
        ],
        [numpy_helper.from_array(a, n) for n, a in constants.items() if n in names],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    oracle = onnxruntime.InferenceSession(proto.SerializeToString())
    return proto, feeds, oracle.run(None, feeds)[0]


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "dtype"),
    # without a zero point it is uint8
    [(*c, d) for c in CASES for d in ("uint8", "int8") if d == "uint8" or "  " not in c[1]],
)
def test_operators(op_type: str, inputs: str, attributes, dtype: str, opset: int) -> None:
    proto, feeds, wanted = quantised(op_type, inputs, attributes, dtype, opset)
    with InferenceSession(proto) as session:
        actual = session.run(None, feeds)[0]
        assert {p.where for p in session.placement} <= {"gpu", "fused", "folded"}
    assert actual.dtype == wanted.dtype and actual.shape == wanted.shape
    # halves may be rounded otherwise; onnxruntime's softmax goes by a table, up to 0.8 below the
    # quotient, where vkconv's is the nearest
    often = 0.1 if op_type == "QLinearSoftmax" else 0.02
    difference = np.abs(actual.astype(int) - wanted.astype(int))
    assert difference.max() <= 1 and (difference > 0).mean() < often, np.unique(difference)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("per_column", [True, False])
@pytest.mark.parametrize("floating", [True, False])
def test_gemm(transposed: int, per_column: bool, floating: bool) -> None:
    random = np.random.default_rng(3)
    b = random.integers(-60, 60, (9, 12) if transposed else (12, 9)).astype(np.int8)
    scales = random.uniform(0.01, 0.03, 9 if per_column else ()).astype(np.float32)
    constants: dict[str, Array] = {
        "sa": np.array(0.02, np.float32),
        "za": np.array(120, np.uint8),
        "b": b,
        "sb": scales,
        "zb": np.zeros(scales.shape, np.int8),
        "c": random.integers(-500, 500, 9).astype(np.int32),
        "sy": np.array(0.1, np.float32),
        "zy": np.array(128, np.uint8),
    }
    names = "a sa za b sb zb c" + ("" if floating else " sy zy")
    one = node("QGemm", names, "y", transB=transposed)
    one.domain = "com.microsoft"
    proto = model([one], {"a": ("uint8", (5, 12))}, {"y": (None if floating else "uint8", None)},
                  {n: constants[n] for n in names.split() if n != "a"},
                  domains={"com.microsoft": 1})  # fmt: skip
    a = random.integers(0, 256, (5, 12)).astype(np.uint8)
    wanted = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"a": a})[0]
    with InferenceSession(proto) as session:
        actual = session.run(None, {"a": a})[0]
    assert actual.dtype == wanted.dtype
    if floating:
        np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-5)
    else:
        assert np.abs(actual.astype(int) - wanted.astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes"),
    [
        ("QLinearAveragePool", "x sx zx sz zz", {"kernel_shape": [2, 2], "channels_last": 1}),
        ("QLinearSoftmax", "x sx zx sz zz", {"axis": 1, "opset": 11}),
    ],
)
def test_what_has_no_definition_is_refused(op_type: str, inputs: str, attributes) -> None:
    proto, _, _ = quantised(op_type, inputs, attributes, "uint8", 17)
    with pytest.raises(UnsupportedModelError, match=f"com.microsoft.{op_type}"):
        InferenceSession(proto)


@pytest.mark.parametrize(
    ("op_type", "inputs"),
    [
        ("QLinearAdd", "x sx zx"),
        ("QLinearAdd", ""),
        ("QLinearConcat", "sz zz x"),
        ("QLinearSigmoid", "x"),
        ("QGemm", "x sx zx"),
        ("QLinearWhere", "x sx zx sz zz"),
    ],
)
@pytest.mark.parametrize("attribute", ["none", "of no type", "of another kind"])
def test_damaged_nodes_are_errors_of_the_model(op_type: str, inputs: str, attribute: str) -> None:
    one = helper.make_node(op_type, inputs.split(), ["z"], domain="com.microsoft")
    if attribute == "of no type":
        one.attribute.add().name = "axis"
    elif attribute == "of another kind":
        one.attribute.append(helper.make_attribute("axis", "one"))
    constants = {n: np.array(v, np.float32 if n[0] == "s" else np.uint8)
                 for n, v in UNSIGNED.items()}  # fmt: skip
    proto = model([one], {"x": ("uint8", X)}, {"z": ("uint8", None)}, constants,
                  domains={"com.microsoft": 1})  # fmt: skip
    with pytest.raises(VkconvError):
        InferenceSession(proto)


class Calibration(CalibrationDataReader):
    def __init__(self) -> None:
        self.left = [floats(1, 4, 16, 16, seed=seed) for seed in range(4)]

    def get_next(self) -> dict[str, Array] | None:
        return {"x": self.left.pop()} if self.left else None


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_net_that_onnxruntime_quantised(per_channel: bool, tmp_path: Path) -> None:
    """Residual, Concat, pooling, a gate and a fully connected layer, in the format QOperator."""
    weights = {f"w{i}": floats(8, 4 if i == 0 else 8, 3, 3, seed=i, scale=0.2) for i in range(3)}
    weights |= {"f": floats(16, 5, seed=7, scale=0.3), "g": floats(5, seed=8)}
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        node("Conv", "x w0", "a", **pads),
        node("LeakyRelu", "a", "b", alpha=0.1),
        node("Conv", "b w1", "c", **pads),
        node("Add", "b c", "d"),
        node("Conv", "d w2", "e", **pads),
        node("Sigmoid", "e", "s"),
        node("Mul", "s e", "m"),
        node("Concat", "m d", "j", axis=1),
        node("GlobalAveragePool", "j", "p"),
        node("Flatten", "p", "q"),
        node("Gemm", "q f g", "y"),
    ]
    proto = model(nodes, {"x": (1, 4, 16, 16)}, {"y": None}, weights, opset=17)
    onnx.save(proto, tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "int8.onnx",
        Calibration(),
        quant_format=QuantFormat.QOperator,
        per_channel=per_channel,
        reduce_range=True,  # seven bits: products of eight saturate on x86 without VNNI
        weight_type=QuantType.QInt8,
    )
    kinds = {n.op_type for n in onnx.load(tmp_path / "int8.onnx").graph.node}
    assert {"QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearLeakyRelu", "QGemm"} <= kinds
    x = floats(1, 4, 16, 16, seed=11)
    path = str(tmp_path / "int8.onnx")
    wanted = onnxruntime.InferenceSession(path).run(None, {"x": x})[0]
    with InferenceSession(path) as session:
        actual = session.run(None, {"x": x})[0]
    # levels of the output: ours are its own, or next to them where a half was rounded otherwise
    quantised = onnx.load(path).graph
    (last,) = [n for n in quantised.node if n.output[0] == "y"]
    (level,) = [numpy_helper.to_array(t) for t in quantised.initializer if t.name == last.input[1]]
    assert np.abs(actual - wanted).max() <= 1.001 * level
