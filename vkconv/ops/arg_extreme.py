"""ArgMax and ArgMin: where along an axis the largest or smallest element is."""

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
from vkconv.ops.operator import DEVICE_DTYPES, Operator
from vkconv.ops.registry import operator
from vkconv.ops.rows import rows_along, too_long
from vkconv.ops.shapes import normalise_axis


@dataclass(eq=False)
class _ArgExtreme(Operator):
    """What the two have in common: of equal elements the first counts, or the last; a NaN comes
    before all others."""

    axis: int = 0
    keepdims: int = 1
    select_last_index: int = 0
    smallest: ClassVar[bool]
    device_dtypes: ClassVar[frozenset[str]] = DEVICE_DTYPES
    result_dtypes: ClassVar[frozenset[str]] = frozenset({"int64"})

    def infer(self, x: Value) -> TensorType:
        axis = normalise_axis(self.axis, len(x.dims))
        if x.dims[axis] == 0:
            raise InvalidModelError(f"axis {axis} is empty")
        kept = (1,) if self.keepdims else ()
        return TensorType("int64", (*x.dims[:axis], *kept, *x.dims[axis + 1 :]))

    def reference(self, x: Array) -> Array:
        axis = normalise_axis(self.axis, x.ndim)
        find = np.argmin if self.smallest else np.argmax
        if self.select_last_index:
            found = x.shape[axis] - 1 - find(np.flip(x, axis), axis=axis)
        else:
            found = find(x, axis=axis)
        found = np.asarray(found, np.int64)
        return np.expand_dims(found, axis) if self.keepdims else found

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        x = inputs[0]
        assert x is not None
        return too_long(x.dims[normalise_axis(self.axis, len(x.dims))])

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, y = inputs[0], outputs[0].on_device
        assert x is not None
        axis = normalise_axis(self.axis, len(x.shape))
        split = prod(x.shape[:axis]), x.shape[axis], prod(x.shape[axis + 1 :])
        last = bool(self.select_last_index)
        return arg_extreme(
            ctx,
            ctx.operand(x, "linear"),
            y,
            split,
            smallest=self.smallest,
            last=last,
            nan_first=True,
        )


def arg_extreme(
    ctx: Lowering,
    x: View,
    y: View,
    split: tuple[int, int, int],
    *,
    smallest: bool,
    last: bool = False,
    nan_first: bool,
) -> list[Dispatch]:
    """Dispatches of y[o, c] = where x[o, :, c] is extreme; ``split`` is (outer, axis, inner)."""
    outer, length, inner = split
    if not outer * inner:
        return []
    rows = rows_along(ctx.caps, outer, length, inner)
    grid = rows.grid(ctx.caps)
    return [
        ctx.dispatch(
            "arg_extreme",
            {"x": x, "y": y},
            rows.push,
            {
                **grid.spec,
                "is_float": int(not x.is_integer),
                "ascending": int(smallest),
                "select_last": int(last),
                "nan_first": int(nan_first),
            },
            grid.count,
            lanes=rows.lanes,
        )
    ]


@operator("ArgMax", since=(1, 11, 12, 13))
class ArgMax(_ArgExtreme):
    """y = the index of the largest element along the axis."""

    smallest: ClassVar[bool] = False


@operator("ArgMin", since=(1, 11, 12, 13))
class ArgMin(_ArgExtreme):
    """y = the index of the smallest element along the axis."""

    smallest: ClassVar[bool] = True
