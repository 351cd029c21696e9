"""Activations that exporters spell out become the one operator they mean.

    x * sigmoid(x)                          -> Swish (SiLU)
    x * HardSigmoid(x; 1/6, 1/2)            -> HardSwish
    x * clip(x + 3, 0, 6) / 6               -> HardSwish, with the division on either factor
    x * tanh(softplus(x))                   -> Mish
    x * (erf(x / sqrt(2)) + 1) / 2          -> Gelu, in any order of the factors

The parts may have other readers: they stay for those, and are dropped otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vkconv.ir import Graph, Node, Value
from vkconv.passes.patterns import close, produced_by, scalar, split_scalar

Match = tuple[Value, str, int, dict[str, Any], list[Node]]


def recognise_activations(graph: Graph) -> None:
    for node in graph.nodes:
        if node.domain:
            continue
        match = next((found for rule in _RULES if (found := rule(node))), None)
        if match is None:
            continue
        source, op_type, opset, attributes, parts = match
        node.op_type, node.opset, node.inputs, node.attributes = (
            op_type,
            opset,
            [source],
            attributes,
        )
        node.fused += [name for part in parts for name in (part.name, *part.fused)]


def _gated(node: Node) -> Match | None:
    """X * gate(x)"""
    if node.op_type != "Mul" or len(node.inputs) != 2:
        return None
    for x, gate in (node.inputs, node.inputs[::-1]):
        part = None if gate is None else gate.producer
        if x is None or part is None or part.domain or not part.inputs:
            continue
        if part.inputs[0] is x and part.op_type == "Sigmoid":
            return x, "Swish", 24, {}, [part]
        if part.inputs[0] is x and part.op_type == "HardSigmoid":
            slope, offset = part.attributes.get("alpha", 0.2), part.attributes.get("beta", 0.5)
            if close(slope, 1 / 6) and close(offset, 0.5):
                return x, "HardSwish", 14, {}, [part]
        if part.op_type == "Tanh" and (inner := produced_by(part.inputs[0], "Softplus")):
            if inner.inputs[0] is x:
                return x, "Mish", 18, {}, [part, inner]
    return None


def _hard_swish(node: Node) -> Match | None:
    """(x * clip(x + 3, 0, 6)) / 6, or x * (clip(x + 3, 0, 6) / 6); a Mul by 1/6 counts as the division."""
    scaled = _divided_by(node, 6.0)
    if scaled is not None:
        product = produced_by(scaled, "Mul")
        if product is not None:
            for x, gate in (product.inputs, product.inputs[::-1]):
                if parts := _relu6_of_shifted(x, gate):
                    return x, "HardSwish", 14, {}, [product, *parts]  # type: ignore[return-value]
    if node.op_type == "Mul" and len(node.inputs) == 2:
        for x, gate in (node.inputs, node.inputs[::-1]):
            divided = None if gate is None else gate.producer
            inner = _divided_by(divided, 6.0) if divided is not None else None
            if divided is not None and (parts := _relu6_of_shifted(x, inner)):
                return x, "HardSwish", 14, {}, [divided, *parts]  # type: ignore[return-value]
    return None


def _relu6_of_shifted(x: Value | None, gate: Value | None) -> list[Node] | None:
    clip = produced_by(gate, "Clip")
    if clip is None or x is None:
        return None
    low = scalar(clip.inputs[1]) if len(clip.inputs) > 1 else clip.attributes.get("min")
    high = scalar(clip.inputs[2]) if len(clip.inputs) > 2 else clip.attributes.get("max")
    shifted = produced_by(clip.inputs[0], "Add")
    if low != 0.0 or high != 6.0 or shifted is None:
        return None
    pair = split_scalar(shifted)
    return [clip, shifted] if pair is not None and pair[0] is x and pair[1] == 3.0 else None


def _divided_by(node: Node, number: float) -> Value | None:
    if node.op_type == "Div" and len(node.inputs) == 2 and scalar(node.inputs[1]) == number:
        return node.inputs[0]
    if node.op_type == "Mul" and (pair := split_scalar(node)) and close(pair[1], 1 / number):
        return pair[0]
    return None


def _gelu(node: Node) -> Match | None:
    """Three factors x, (1 + erf(x / sqrt 2)) and 1/2, multiplied in any order (Hendrycks & Gimpel, 2016)."""
    if node.op_type not in ("Mul", "Div"):
        return None
    parts: list[Node] = []
    number, tensors = _factors(node, parts, depth=2)
    if len(tensors) != 2 or not close(number, 0.5):
        return None
    for x, gate in (tensors, tensors[::-1]):
        plus = produced_by(gate, "Add")
        pair = split_scalar(plus) if plus is not None else None
        erf = produced_by(pair[0], "Erf") if pair is not None and pair[1] == 1.0 else None
        inner = erf.inputs[0].producer if erf is not None and erf.inputs[0] is not None else None
        if plus is None or erf is None or inner is None:
            continue
        scaled = _divided_by(inner, 2.0**0.5)
        if scaled is None and inner.op_type == "Div" and close(scalar(inner.inputs[1]), 2.0**0.5):
            scaled = inner.inputs[0]
        if scaled is x:
            return x, "Gelu", 20, {}, [*parts, plus, erf, inner]
    return None


def _factors(node: Node, parts: list[Node], depth: int) -> tuple[float, list[Value]]:
    """A product as (number, tensors), looking through ``depth`` more Mul or Div nodes with a scalar."""
    if node.op_type == "Div" and (number := scalar(node.inputs[1])):
        operands: list[Value | None] = [node.inputs[0]]
        total = 1.0 / number
    else:
        operands, total = list(node.inputs), 1.0
    tensors: list[Value] = []
    for value in operands:
        number = scalar(value)
        inner = None if value is None else value.producer
        if number is not None:
            total *= number
        elif depth and inner is not None and not inner.domain and _is_product(inner):
            parts.append(inner)
            more, found = _factors(inner, parts, depth - 1)
            total, tensors = total * more, tensors + found
        elif value is not None:
            tensors.append(value)
    return total, tensors


def _is_product(node: Node) -> bool:
    return node.op_type == "Mul" or (node.op_type == "Div" and scalar(node.inputs[1]) is not None)


_RULES: tuple[Callable[[Node], Match | None], ...] = (_gated, _hard_swish, _gelu)
