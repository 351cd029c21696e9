"""Shrink: soft or hard thresholding around zero."""

from __future__ import annotations

import numpy as np

from vkconv.ir import Array
from vkconv.ops.activation_codes import Activation
from vkconv.ops.registry import operator
from vkconv.ops.unary import Unary


@operator("Shrink", since=(9,))
class Shrink(Unary):
    """y = x + bias for x < -lambd, x - bias for x > lambd, else 0."""

    bias: float = 0.0
    lambd: float = 0.5

    def activation(self) -> tuple[Activation, float, float]:
        return Activation.SHRINK, self.lambd, self.bias

    def apply(self, x: Array) -> Array:
        # integers of any size are computed in float64, as the attributes are
        wide = x if x.dtype.kind == "f" else x.astype(np.float64)
        lambd, bias = wide.dtype.type(self.lambd), wide.dtype.type(self.bias)
        inner = np.where(wide > lambd, wide - bias, wide.dtype.type(0))
        return np.where(wide < -lambd, wide + bias, inner)
