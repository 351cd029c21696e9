"""Identity, and Dropout as inference has it: the same tensor under another name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError, UnsupportedModelError
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.activation_codes import Activation
from vkconv.ops.cast import lower_cast
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import DEVICE_DTYPES, Operator
from vkconv.ops.registry import operator
from vkconv.ops.shapes import is_c4
from vkconv.ops.unary import lower_unary


class SameTensor(Operator):
    """y = x: a view, or a copy where y has a place of its own."""

    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4" if is_c4(inputs) else "linear"

    def view(self, x: View, outputs: Sequence[Value]) -> tuple[View, ...] | None:
        return (replace(x),)

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, y = inputs[0], outputs[0].on_device
        assert x is not None
        source = ctx.operand(x, y.layout)
        if y.is_integer:
            return lower_cast(ctx, source, y)
        return lower_unary(ctx, source, y, Activation.NONE)


@operator("Identity", since=(1, 13, 14, 16, 19, 21, 23, 24, 25))
class Identity(SameTensor):
    """y = x."""

    def infer(self, x: Value) -> TensorType:
        return x.known_type

    def reference(self, x: Array) -> Array:
        return np.array(x)


@operator("Dropout", since=(1, 6, 7, 10, 12, 13, 22))
class Dropout(SameTensor):
    """Inference: y = x, and a mask that is true everywhere (of x's type before version 10).

    So it is in training where the ratio is 0.
    """

    result_dtypes: ClassVar[frozenset[str]] = frozenset({"bool"})
    linear_inputs: ClassVar[frozenset[int]] = frozenset({1, 2})
    ratio: float = 0.5
    is_test: int = 0
    seed: int = 0

    def infer(
        self, x: Value, ratio: Value | None = None, training_mode: Value | None = None
    ) -> tuple[TensorType, ...]:
        if self.version < 7 and not self.is_test:
            raise UnsupportedModelError("Dropout in training mode (is_test is 0) is not supported")
        if training_mode is not None:
            if training_mode.known_type.size != 1:
                raise InvalidModelError(
                    f"training_mode has shape {training_mode.dims}, not a scalar"
                )
            if training_mode.array is not None and not _drops_nothing(ratio):
                _refuse_training(training_mode.array)
        mask = "bool" if self.version >= 10 else x.dtype
        return x.known_type, TensorType(mask, x.dims)

    def reference(
        self, x: Array, ratio: Array | None = None, training_mode: Array | None = None
    ) -> tuple[Array, ...]:
        if training_mode is not None and (ratio is None or ratio.any()):
            _refuse_training(training_mode)
        mask = np.ones(x.shape, bool if self.version >= 10 else x.dtype)
        return (np.array(x), mask)[: self.output_count]

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        if self.output_count > 1:
            return "the mask output has no kernel"
        if len(inputs) > 2 and inputs[2] is not None and not inputs[2].is_constant:
            return "training_mode is computed by the model"
        return None


def _drops_nothing(ratio: Value | None) -> bool:
    return ratio is not None and ratio.array is not None and not ratio.array.any()


def _refuse_training(training_mode: Array) -> None:
    if training_mode.reshape(-1)[0]:
        raise UnsupportedModelError(
            "Dropout in training mode is not supported; export the model for inference"
        )
