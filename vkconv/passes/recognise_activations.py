"""Activations that exporters spell out become the one operator they mean.

    x * sigmoid(x)                                            -> Swish (SiLU)
    x * HardSigmoid(x; 1/6, 1/2)                              -> HardSwish
    x * clip(x + 3, 0, 6) / 6                                 -> HardSwish
    x * tanh(softplus(x))                                     -> Mish
    x * (1 + erf(x / sqrt(2))) / 2                            -> Gelu
    x * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2       -> Gelu, approximate

with factors in any order. The parts may have other readers: they stay for those, and are dropped
otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vkconv.ir import Graph, Node, Value
from vkconv.passes.patterns import close, produced_by, scalar, split_scalar

#: products are followed over this many nodes
_DEPTH = 4


@dataclass
class _Match:
    """The operator, applied to ``x``, that a node and its ``parts`` spell out."""

    x: Value
    op_type: str
    opset: int
    parts: list[Node]
    attributes: dict[str, Any] = field(default_factory=dict)


def recognise_activations(graph: Graph) -> None:
    for node in graph.nodes:
        if node.domain:
            continue
        match = next((found for rule in _RULES if (found := rule(node))), None)
        if match is None or not _same_type(match.x, node.outputs[0]):
            continue
        node.op_type, node.opset = match.op_type, match.opset
        node.inputs, node.attributes = [match.x], match.attributes
        node.fused += [name for part in match.parts for name in (part.name, *part.fused)]


def _same_type(x: Value, y: Value) -> bool:
    """False where a constant of one element adds dimensions: (1, 1) + (3) has shape (1, 3)."""
    return x.type is None or y.type is None or x.type == y.type or not y.type.is_static


def _gated(node: Node) -> _Match | None:
    """A factor x and a gate of x."""
    for x, gate in _pairs(node):
        part = gate.producer
        if part is None or part.domain:
            continue
        if part.op_type == "Sigmoid" and part.inputs[0] is x:
            return _Match(x, "Swish", 24, [part])
        if part.op_type == "HardSigmoid" and part.inputs[0] is x:
            slope, offset = part.attributes.get("alpha", 0.2), part.attributes.get("beta", 0.5)
            if close(slope, 1 / 6) and close(offset, 0.5):
                return _Match(x, "HardSwish", 14, [part])
        if part.op_type == "Tanh":
            inner = produced_by(part.inputs[0], "Softplus")
            if inner is not None and inner.inputs[0] is x:
                return _Match(x, "Mish", 18, [part, inner])
    return None


def _hard_swish(node: Node) -> _Match | None:
    """Two factors x and clip(x + 3, 0, 6), and the number 1/6."""
    for gate in _product(node.outputs[0]).factors:
        clip = produced_by(gate, "Clip")
        shifted = produced_by(clip.inputs[0], "Add") if clip is not None else None
        pair = split_scalar(shifted) if shifted is not None else None
        if clip is None or shifted is None or pair is None or pair[1] != 3.0:
            continue
        low = scalar(clip.inputs[1]) if len(clip.inputs) > 1 else clip.attributes.get("min")
        high = scalar(clip.inputs[2]) if len(clip.inputs) > 2 else clip.attributes.get("max")
        whole = _product(node.outputs[0], stop=pair[0])
        if low == 0.0 and high == 6.0 and whole.is_of(pair[0], gate, number=1 / 6):
            return _Match(pair[0], "HardSwish", 14, [*whole.nodes[1:], clip, shifted])
    return None


def _gelu(node: Node) -> _Match | None:
    """Two factors x and 1 + curve(x), and the number 1/2 (Hendrycks & Gimpel, 2016)."""
    for gate in _product(node.outputs[0]).factors:
        plus = produced_by(gate, "Add")
        pair = split_scalar(plus) if plus is not None else None
        if plus is None or pair is None or pair[1] != 1.0 or pair[0].producer is None:
            continue
        curve = pair[0].producer
        if erf := produced_by(pair[0], "Erf"):
            found, attributes = _divided(erf.inputs[0], 2.0**0.5), {}
        elif tanh := produced_by(pair[0], "Tanh"):
            found, attributes = _cubic(tanh.inputs[0]), {"approximate": "tanh"}
        else:
            continue
        if found is None:
            continue
        x, inner = found
        whole = _product(node.outputs[0], stop=x)
        if whole.is_of(x, gate, number=0.5):
            return _Match(x, "Gelu", 20, [*whole.nodes[1:], plus, curve, *inner], attributes)
    return None


def _cubic(value: Value | None) -> tuple[Value, list[Node]] | None:
    """The x of sqrt(2 / pi) (x + 0.044715 x^3)."""
    scaled = _divided(value, np.sqrt(np.pi / 2))
    total = produced_by(scaled[0], "Add") if scaled is not None else None
    if scaled is None or total is None:
        return None
    for x, cube in _pairs(total, "Add"):
        product = _product(cube, stop=x)
        factors, power = product.factors, None
        if len(factors) == 1 and (power := produced_by(factors[0], "Pow")):
            base, exponent = power.inputs[:2]
            factors = [base] * 3 if base is not None and scalar(exponent) == 3.0 else []
        if len(factors) == 3 and all(f is x for f in factors) and close(product.number, 0.044715):
            return x, [*scaled[1], total, *product.nodes, *([power] if power else [])]
    return None


def _divided(value: Value | None, number: float) -> tuple[Value, list[Node]] | None:
    """The x of x / number, however that is written; and the node."""
    node = None if value is None else value.producer
    if value is None or node is None or not _is_product(node):
        return None
    for x in node.present_inputs:
        if not x.is_constant and _product(value, stop=x).is_of(x, number=1 / number):
            return x, [node]
    return None


@dataclass
class _Product:
    """A number and tensors that are multiplied; and the nodes that do it."""

    number: float
    factors: list[Value]
    nodes: list[Node]

    def is_of(self, *factors: Value, number: float) -> bool:
        same = {id(f) for f in factors} == {id(f) for f in self.factors}
        return same and len(factors) == len(self.factors) and close(self.number, number)


def _product(value: Value, stop: Value | None = None, depth: int = _DEPTH) -> _Product:
    """``value`` taken apart, looking through Mul, and Div by a number, but not into ``stop``."""
    node = value.producer
    if value is stop or node is None or not depth or not _is_product(node):
        return _Product(1.0, [value], [])
    result = _Product(1.0, [], [node])
    for position, operand in enumerate(node.present_inputs):
        number = scalar(operand)
        if number is not None:
            divides = node.op_type == "Div" and position == 1
            result.number *= 1.0 / number if divides else number
            continue
        inner = _product(operand, stop, depth - 1)
        result.number *= inner.number
        result.factors += inner.factors
        result.nodes += inner.nodes
    return result


def _is_product(node: Node) -> bool:
    if node.domain or len(node.present_inputs) != 2:
        return False
    return node.op_type == "Mul" or (
        node.op_type == "Div" and scalar(node.inputs[1]) not in (None, 0.0)
    )


def _pairs(node: Node, op_type: str = "Mul") -> list[tuple[Value, Value]]:
    """The operands of a Mul (or Add), both ways round."""
    operands = node.present_inputs
    if node.op_type != op_type or node.domain or len(operands) != 2:
        return []
    return [(operands[0], operands[1]), (operands[1], operands[0])]


_RULES: tuple[Callable[[Node], _Match | None], ...] = (_gated, _hard_swish, _gelu)
