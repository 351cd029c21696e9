"""What happens to a convolution's sum before and when it is stored: ``FINISH`` and ``FINISH_AT`` in
``convolution.glsl``."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.activation_codes import Activation
from vkconv.ops.binary import lower_binary
from vkconv.ops.binary_codes import Binary
from vkconv.ops.fused_activation import apply_activation
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.unary import lower_unary

RESIDUAL_CODES = {"": 0, "first": 1, "last": 2}
#: storage buffers of a kernel that has four without a residual; Vulkan guarantees four
RESIDUAL_BUFFERS = 5


def check_residual(place: str, residual: Value | None, y: TensorType) -> None:
    """Raises InvalidModelError where a fused convolution's attribute or input is none."""
    if place not in RESIDUAL_CODES:
        raise InvalidModelError(f"'{place}' is no place for a residual; 'first' and 'last' are")
    if residual is not None and residual.dims != y.shape:
        raise InvalidModelError(f"residual has shape {residual.dims}, expected {y.shape}")


@dataclass(frozen=True)
class Epilogue:
    """activation(sum [+ residual]) [+ residual]; ``residual`` says "first" or "last".

    ``result`` is how y lies in memory; kernels with an axis of that name know both ways.
    """

    activation: int = int(Activation.NONE)
    alpha: float = 0.0
    beta: float = 0.0
    residual: str = ""
    residual_tensor: Tensor | None = None
    result: Layout = "c4"

    def push(self, channels: int, pixels: int = 0) -> dict[str, int | float]:
        """``channels`` and ``pixels`` of y; of the latter only a linear result has to know."""
        numbers = {"channels": channels, "alpha": self.alpha, "beta": self.beta}
        return numbers | ({} if self.result == "c4" else {"y_batch": channels * pixels})

    def spec(self, channels: int) -> dict[str, int | float]:
        return {
            "ACTIVATION": self.activation,
            "RESIDUAL": RESIDUAL_CODES[self.residual if self.residual_tensor else ""],
            "MASKED": int(channels % 4 != 0),
        }

    def apply(self, y: Array, residual: Array | None = None) -> Array:
        """The same by numpy."""
        if residual is not None and self.residual == "first":
            y = y + residual
        y = apply_activation(Activation(self.activation), y, self.alpha, self.beta)
        return y + residual if residual is not None and self.residual == "last" else y

    def view(self, ctx: Lowering) -> View | None:
        """The residual's view in C4."""
        return None if self.residual_tensor is None else ctx.operand(self.residual_tensor, "c4")

    # --- without a residual's place in the kernel ------------------------------------------------

    def before_residual(self) -> Epilogue:
        """What a kernel computes that does not take the residual."""
        kept = Epilogue() if self.residual == "first" else self
        return replace(kept, residual="", residual_tensor=None)

    def lower_residual(self, ctx: Lowering, x: View, y: View) -> list[Dispatch]:
        """What is left to do with the result ``x`` of ``before_residual``, by dispatches of its
        own."""
        residual = self.view(ctx)
        assert residual is not None
        steps = lower_binary(ctx, Binary.ADD, x, residual, y)
        if self.residual == "first" and self.activation != Activation.NONE:
            kind = Activation(self.activation)
            steps += lower_unary(ctx, y, y, kind, self.alpha, self.beta)
        return steps
