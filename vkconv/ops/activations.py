"""Activation functions with attributes; their kernel and layouts are those of ``unary.py``."""

from __future__ import annotations

import numpy as np

from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.activation_codes import Activation
from vkconv.ops.registry import operator
from vkconv.ops.unary import Unary, erf, sigmoid


@operator("LeakyRelu", since=(1, 6, 16))
class LeakyRelu(Unary):
    """y = x for x >= 0, alpha x below."""

    alpha: float = 0.01

    def activation(self) -> tuple[Activation, float, float]:
        return Activation.LEAKY_RELU, self.alpha, 0.0

    def apply(self, x: Array) -> Array:
        return np.where(x < 0, x * x.dtype.type(self.alpha), x)


@operator("Elu", since=(1, 6, 22))
class Elu(Unary):
    """y = x for x >= 0, alpha (e^x - 1) below."""

    alpha: float = 1.0

    def activation(self) -> tuple[Activation, float, float]:
        return Activation.ELU, self.alpha, 0.0

    def apply(self, x: Array) -> Array:
        return np.where(x < 0, self.alpha * np.expm1(x), x)


@operator("Selu", since=(1, 6, 22))
class Selu(Unary):
    """y = gamma x for x > 0, gamma alpha (e^x - 1) below."""

    alpha: float | None = None
    gamma: float | None = None

    def activation(self) -> tuple[Activation, float, float]:
        # version 1 had the constants rounded
        alpha = 1.6732 if self.version == 1 else 1.67326319217681884765625
        gamma = 1.0507 if self.version == 1 else 1.05070102214813232421875
        return (
            Activation.SELU,
            alpha if self.alpha is None else self.alpha,
            gamma if self.gamma is None else self.gamma,
        )

    def apply(self, x: Array) -> Array:
        _, alpha, gamma = self.activation()
        return np.asarray(gamma * np.where(x > 0, x, alpha * np.expm1(x)))


@operator("Celu", since=(12, 28))
class Celu(Unary):
    """y = max(0, x) + min(0, alpha (e^(x / alpha) - 1))."""

    alpha: float = 1.0

    def infer(self, x: Value) -> TensorType:
        if self.alpha == 0:
            raise InvalidModelError("alpha is 0, by which x is divided")
        return x.known_type

    def activation(self) -> tuple[Activation, float, float]:
        return Activation.CELU, self.alpha, 0.0

    def apply(self, x: Array) -> Array:
        return np.asarray(np.maximum(x, 0) + np.minimum(0, self.alpha * np.expm1(x / self.alpha)))


@operator("ThresholdedRelu", since=(10, 22))
class ThresholdedRelu(Unary):
    """y = x for x > alpha, else 0."""

    alpha: float = 1.0

    def activation(self) -> tuple[Activation, float, float]:
        return Activation.THRESHOLDED_RELU, self.alpha, 0.0

    def apply(self, x: Array) -> Array:
        return np.where(x > self.alpha, x, x.dtype.type(0))


@operator("HardSigmoid", since=(1, 6, 22))
class HardSigmoid(Unary):
    """y = max(0, min(1, alpha x + beta))."""

    alpha: float = 0.2
    beta: float = 0.5

    def activation(self) -> tuple[Activation, float, float]:
        return Activation.HARD_SIGMOID, self.alpha, self.beta

    def apply(self, x: Array) -> Array:
        return np.clip(self.alpha * x + self.beta, 0, 1)


@operator("Gelu", since=(20,))
class Gelu(Unary):
    """y = x/2 (1 + erf(x / sqrt(2))).

    With approximate="tanh": y = x/2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
    """

    approximate: str = "none"

    def infer(self, x: Value) -> TensorType:
        if self.approximate not in ("none", "tanh"):
            raise InvalidModelError(
                f"approximate '{self.approximate}' is neither 'none' nor 'tanh'"
            )
        return x.known_type

    def activation(self) -> tuple[Activation, float, float]:
        code = Activation.GELU if self.approximate == "none" else Activation.GELU_TANH
        return code, 0.0, 0.0

    def apply(self, x: Array) -> Array:
        wide = x.astype(np.float64)
        if self.approximate == "none":
            return np.asarray(0.5 * wide * (1 + erf(wide / np.sqrt(2))))
        inner = np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)
        return np.asarray(0.5 * wide * (1 + np.tanh(inner)))


@operator("Swish", since=(24,))
class Swish(Unary):
    """y = x sigmoid(alpha x)."""

    alpha: float = 1.0

    def activation(self) -> tuple[Activation, float, float]:
        return Activation.SILU, self.alpha, 0.0

    def apply(self, x: Array) -> Array:
        return np.asarray(x * sigmoid(self.alpha * x))
