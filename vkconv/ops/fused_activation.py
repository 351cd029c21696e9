"""The activation of a fused node by numpy: the same operator that fusion absorbed, applied to its
input."""

from __future__ import annotations

from typing import Any

import numpy as np

from vkconv.ir import Array
from vkconv.ops.activation_codes import Activation
from vkconv.ops.registry import REGISTRY

#: code -> (operator, names of the attributes that alpha and beta are)
_OPERATORS: dict[Activation, tuple[str, tuple[str, ...]]] = {
    Activation.RELU: ("Relu", ()),
    Activation.LEAKY_RELU: ("LeakyRelu", ("alpha",)),
    Activation.SIGMOID: ("Sigmoid", ()),
    Activation.TANH: ("Tanh", ()),
    Activation.SILU: ("Swish", ("alpha",)),
    Activation.HARD_SIGMOID: ("HardSigmoid", ("alpha", "beta")),
    Activation.HARD_SWISH: ("HardSwish", ()),
    Activation.ELU: ("Elu", ("alpha",)),
    Activation.MISH: ("Mish", ()),
    Activation.SOFTPLUS: ("Softplus", ()),
    Activation.GELU: ("Gelu", ()),
    Activation.ERF: ("Erf", ()),
    Activation.ABS: ("Abs", ()),
    Activation.NEG: ("Neg", ()),
    Activation.SQRT: ("Sqrt", ()),
    Activation.EXP: ("Exp", ()),
    Activation.LOG: ("Log", ()),
    Activation.RECIPROCAL: ("Reciprocal", ()),
    Activation.FLOOR: ("Floor", ()),
    Activation.CEIL: ("Ceil", ()),
    Activation.ROUND: ("Round", ()),
    Activation.SIGN: ("Sign", ()),
    Activation.SELU: ("Selu", ("alpha", "gamma")),
    Activation.CELU: ("Celu", ("alpha",)),
    Activation.THRESHOLDED_RELU: ("ThresholdedRelu", ("alpha",)),
    Activation.SOFTSIGN: ("Softsign", ()),
    Activation.SHRINK: ("Shrink", ("lambd", "bias")),
}


def apply_activation(kind: Activation, x: Array, alpha: float, beta: float) -> Array:
    """``activate`` of ``activations.glsl`` on an array."""
    if kind == Activation.NONE:
        return x
    if kind == Activation.CLIP:
        return np.asarray(np.clip(x, x.dtype.type(alpha), x.dtype.type(beta)))
    attributes: dict[str, Any]
    if kind == Activation.GELU_TANH:
        op_type, attributes = "Gelu", {"approximate": "tanh"}
    else:
        op_type, names = _OPERATORS[kind]
        attributes = dict(zip(names, (alpha, beta), strict=False))
    cls: Any = REGISTRY[("", op_type)]
    made = cls(**attributes)
    made.version = max(cls.since)
    return np.asarray(made.reference(x))
