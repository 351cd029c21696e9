"""CumSum and CumProd: running totals along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import ARITHMETIC, Operator
from vkconv.ops.registry import operator
from vkconv.ops.rows import rows_along, too_long
from vkconv.ops.shapes import known_ints, normalise_axis


@dataclass(eq=False)
class _Cumulative(Operator):
    """What the two have in common: ``exclusive`` leaves an element's own number out, ``reverse``
    begins at the end."""

    exclusive: int = 0
    reverse: int = 0
    product: ClassVar[bool]
    device_dtypes: ClassVar[frozenset[str]] = ARITHMETIC

    def infer(self, x: Value, axis: Value) -> TensorType:
        # the shape is known without, but no kernel is chosen before the axis is
        given = known_ints(axis, "the input axis")
        if given is None or len(given) != 1:
            raise InvalidModelError(f"the axis has shape {axis.dims}, not one element")
        normalise_axis(given[0], len(x.dims))
        return x.known_type

    def reference(self, x: Array, axis: Array) -> Array:
        along = normalise_axis(int(axis.reshape(-1)[0]), x.ndim)
        wide = x.astype(np.float64) if x.dtype.kind == "f" else x
        wide = np.flip(wide, along) if self.reverse else wide
        with np.errstate(all="ignore"):
            total = (np.cumprod if self.product else np.cumsum)(wide, along, dtype=wide.dtype)
        if self.exclusive and x.shape[along]:
            total = np.roll(total, 1, along)
            total[(slice(None),) * along + (0,)] = int(self.product)
        with np.errstate(all="ignore"):
            return np.asarray(np.flip(total, along) if self.reverse else total).astype(x.dtype)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        x, axis = inputs
        assert x is not None and axis is not None and axis.array is not None
        return too_long(x.dims[normalise_axis(int(axis.array.reshape(-1)[0]), len(x.dims))])

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        (x, axis), y = inputs, outputs[0].on_device
        assert x is not None and axis is not None and axis.array is not None
        along = normalise_axis(int(axis.array.reshape(-1)[0]), len(x.shape))
        return cumulate(
            ctx,
            ctx.operand(x, "linear"),
            y,
            (prod(y.shape[:along]), y.shape[along], prod(y.shape[along + 1 :])),
            product=self.product,
            exclusive=bool(self.exclusive),
            reverse=bool(self.reverse),
        )


def cumulate(
    ctx: Lowering,
    x: View,
    y: View,
    split: tuple[int, int, int],
    *,
    product: bool = False,
    exclusive: bool = False,
    reverse: bool = False,
) -> list[Dispatch]:
    """Dispatches of y = running totals of x along the middle of (outer, axis, inner)."""
    if not prod(split):
        return []
    rows = rows_along(ctx.caps, *split)
    grid = rows.grid(ctx.caps)
    return [
        ctx.dispatch(
            "cumulate",
            {"x": x, "y": y},
            rows.push,
            {
                **grid.spec,
                "product": int(product),
                "exclusive": int(exclusive),
                "reverse": int(reverse),
            },
            grid.count,
            dtype="int" if y.is_integer else "float",
            lanes=rows.lanes,
        )
    ]


@operator("CumSum", since=(11, 14))
class CumSum(_Cumulative):
    """y_i = the sum of x_j over j <= i along the axis."""

    product: ClassVar[bool] = False


@operator("CumProd", since=(26,))
class CumProd(_Cumulative):
    """y_i = the product of x_j over j <= i along the axis."""

    product: ClassVar[bool] = True
