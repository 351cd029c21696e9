"""How far a device's numbers may lie from exact arithmetic: one function of precision and reduction
length.

The tests of operators and ``vkconv verify`` judge by the same one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from vkconv.ir import Node, Value
from vkconv.ops.registry import create

__all__ = ["Tolerance", "reduction_length", "tolerance"]

#: operators that sum over rows and give as many elements as they take
_NORMALISING = frozenset(
    {
        "Attention",
        "CumSum",
        "FusedAttention",
        "GroupNormalization",
        "InstanceNormalization",
        "LRN",
        "LayerNormalization",
        "LogSoftmax",
        "LpNormalization",
        "MeanVarianceNormalization",
        "RMSNormalization",
        "Softmax",
    }
)


@dataclass(frozen=True)
class Tolerance:
    """Largest normalised mean squared error; single error: ``relative * |x| + scaled * rms``."""

    nmse: float
    relative: float
    scaled: float


def tolerance(dtype: str, reduction_length: int = 1) -> Tolerance:
    """What a result may differ by. Rounding errors of a sum grow with the root of its length.

    Anything but floats is exact.
    """
    growth = math.sqrt(max(reduction_length, 1))
    if dtype == "float16":
        return Tolerance(1e-4, 2e-3, 2e-3 * growth)
    if dtype in ("float32", "float64"):
        return Tolerance(1e-6, 1e-4, 1e-5 * growth)
    return Tolerance(0.0, 0.0, 0.0)


def reduction_length(node: Node) -> int:
    """About how many terms are summed into one element of the node's output; types are concrete.

    Products of matrices and convolutions count a multiplication and an addition for each term
    (``Operator.flops``); what shrinks a tensor sums what is gone; normalisations sum over as much
    as a row of their largest input holds.
    """
    outputs = max((_size(v) for v in node.outputs), default=1) or 1
    inputs = [v for v in node.present_inputs if _size(v)]
    terms = create(node).flops(node.inputs, node.outputs) // (2 * outputs)
    shrunk = max((_size(v) // outputs for v in inputs if not v.is_constant), default=1)
    rows = 1
    if node.op_type in _NORMALISING and inputs:
        rows = _size(inputs[0]) // max(inputs[0].dims[0] if inputs[0].dims else 1, 1)
    return max(terms, shrunk, rows, 1)


def _size(value: Value) -> int:
    return value.known_type.size
