"""What happens to a convolution's sum before it is stored: ``FINISH`` in ``convolution.glsl``."""

from __future__ import annotations

from dataclasses import dataclass

from vkconv.dispatch import View
from vkconv.ops.activation_codes import Activation
from vkconv.ops.base import Lowering, Tensor

RESIDUAL_CODES = {"": 0, "first": 1, "last": 2}


@dataclass(frozen=True)
class Epilogue:
    """activation(sum [+ residual]) [+ residual]; ``residual`` says "first" or "last"."""

    activation: int = int(Activation.NONE)
    alpha: float = 0.0
    beta: float = 0.0
    residual: str = ""
    residual_tensor: Tensor | None = None

    def push(self, channels: int) -> dict[str, int | float]:
        return {"channels": channels, "alpha": self.alpha, "beta": self.beta}

    def spec(self, channels: int) -> dict[str, int | float]:
        return {
            "ACTIVATION": self.activation,
            "RESIDUAL": RESIDUAL_CODES[self.residual if self.residual_tensor else ""],
            "MASKED": int(channels % 4 != 0),
        }

    def view(self, ctx: Lowering) -> View | None:
        """The residual's view in C4."""
        return None if self.residual_tensor is None else ctx.operand(self.residual_tensor, "c4")
