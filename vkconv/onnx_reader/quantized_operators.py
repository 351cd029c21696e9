"""onnxruntime's quantised operators (domain com.microsoft), by what the standard has: dequantise,
compute in floats, quantise.

``onnxruntime.quantization.quantize_static`` writes them when it is asked for QuantFormat.QOperator,
beside the standard's QLinearConv and QLinearMatMul. Source: onnxruntime's ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from onnx import FunctionProto, NodeProto, helper

__all__ = ["is_quantized", "quantized_definition"]

_DOMAIN = "com.microsoft"
#: the name of a definition's result
_RESULT = "result"


@dataclass
class _Body:
    """The nodes of a definition; inputs are named by their position in the node."""

    node: NodeProto
    opset: int
    attributes: dict[str, Any]
    nodes: list[NodeProto] = field(default_factory=list)

    def given(self, position: int) -> str:
        """The name of an input, empty where it is left out."""
        inputs = self.node.input
        return f"x{position}" if position < len(inputs) and inputs[position] else ""

    def add(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        result = f"{op_type.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [result], **attributes))
        return result

    def floats(self, x: int, scale: int, zero: int, **attributes: Any) -> str:
        """The dequantised input x."""
        operands = [self.given(position) for position in (x, scale, zero)]
        return self.add("DequantizeLinear", *operands[: 3 if operands[2] else 2], **attributes)

    def quantize(self, x: str, scale: int, zero: int) -> None:
        operands = [x, self.given(scale), self.given(zero)]
        used = operands if operands[2] else operands[:2]
        self.nodes.append(helper.make_node("QuantizeLinear", used, [_RESULT]))


def is_quantized(domain: str, op_type: str) -> bool:
    """Whether it is an operator that is defined here."""
    return domain == _DOMAIN and op_type in _BUILDERS


def quantized_definition(node: NodeProto, opset: int) -> FunctionProto | None:
    """The function that computes the node at the standard's ``opset``; None for other nodes, and
    where an attribute asks for what has no definition here."""
    if not is_quantized(node.domain, node.op_type) or opset < _LEAST_OPSET:
        return None
    try:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    except ValueError:  # of no known type
        return None
    body = _Body(node, opset, attributes)
    if attributes.pop("channels_last", 0) or not _BUILDERS[node.op_type](body):
        return None
    inputs = [f"x{position}" for position in range(len(node.input))]
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_function(_DOMAIN, node.op_type, inputs, [_RESULT], body.nodes, opsets)


#: DequantizeLinear and QuantizeLinear are there from this on
_LEAST_OPSET = 10


def _unary(op_type: str) -> Callable[[_Body], bool]:
    """x, scale, zero point, and those of y; attributes as the operator in floats has them."""

    def build(body: _Body) -> bool:
        y = body.add(op_type, body.floats(0, 1, 2), **body.attributes)
        body.quantize(y, 3, 4)
        return True

    return build


def _binary(op_type: str) -> Callable[[_Body], bool]:
    def build(body: _Body) -> bool:
        body.quantize(body.add(op_type, body.floats(0, 1, 2), body.floats(3, 4, 5)), 6, 7)
        return True

    return build


def _where(body: _Body) -> bool:
    y = body.add("Where", body.given(0), body.floats(1, 2, 3), body.floats(4, 5, 6))
    body.quantize(y, 7, 8)
    return True


def _concat(body: _Body) -> bool:
    """The scale and zero point of y come first."""
    triples = range(2, len(body.node.input) - 2, 3)
    parts = [body.floats(first, first + 1, first + 2) for first in triples]
    body.quantize(body.add("Concat", *parts, **body.attributes), 0, 1)
    return bool(parts)


def _softmax(body: _Body) -> bool:
    """Its attribute ``opset`` says which Softmax is meant: until 13 it flattened."""
    if (body.attributes.pop("opset", body.opset) >= 13) != (body.opset >= 13):
        return False
    return _unary("Softmax")(body)


def _gemm(body: _Body) -> bool:
    """C is int32 in units of both scales; without a scale of y the result is of floats."""
    if body.attributes.pop("alpha", 1.0) != 1.0:
        return False
    a = body.floats(0, 1, 2)
    per_column = {} if body.opset < 13 else {"axis": 0 if body.attributes.get("transB") else 1}
    operands = [a, body.floats(3, 4, 5, **per_column)]
    if body.given(6):
        unit = body.add("Mul", body.given(1), body.given(4))
        along = {} if body.opset < 13 else {"axis": 0}
        operands.append(body.add("DequantizeLinear", body.given(6), unit, **along))
    y = body.add("Gemm", *operands, **body.attributes)
    if body.given(7):
        body.quantize(y, 7, 8)
    else:
        body.nodes.append(helper.make_node("Identity", [y], [_RESULT]))
    return True


_BUILDERS: dict[str, Callable[[_Body], bool]] = {
    "QLinearAdd": _binary("Add"),
    "QLinearMul": _binary("Mul"),
    "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearLeakyRelu": _unary("LeakyRelu"),
    "QLinearAveragePool": _unary("AveragePool"),
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    "QLinearSoftmax": _softmax,
    "QLinearWhere": _where,
    "QLinearConcat": _concat,
    "QGemm": _gemm,
}
