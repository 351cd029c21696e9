"""The Reduce family: one number from all elements along some axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch
from vkconv.ir import Array, Layout, TensorType, Value
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import ARITHMETIC, FLOATS, Operator
from vkconv.ops.pool_kernels import global_pool, pools_globally
from vkconv.ops.reduction_kernels import (
    KERNEL_DIMENSIONS,
    Combine,
    Post,
    Pre,
    Reduction,
    lower_reduction,
    merge_axes,
    too_long,
)
from vkconv.ops.registry import operator
from vkconv.ops.shapes import is_c4, known_ints, normalise_axis


@dataclass(eq=False)
class Reduce(Operator):
    """y = x reduced over ``axes``: an attribute first, an input since ``axes_input_since``.

    No axes means all, or with noop_with_empty_axes none: then only what happens to single elements
    does.
    """

    linear_inputs: ClassVar[frozenset[int]] = frozenset({1})
    constant_inputs: ClassVar[frozenset[int]] = frozenset({1})
    reduction: ClassVar[Reduction]
    compute: ClassVar[Callable[[Array, tuple[int, ...]], Array]]
    axes_input_since: ClassVar[int] = 18
    axes: tuple[int, ...] | None = None
    keepdims: int = 1
    noop_with_empty_axes: int = 0

    def reduced(self, rank: int, axes: Sequence[int] | None) -> tuple[int, ...]:
        """The axes in ascending order, non-negative."""
        given = self.axes if self.version < self.axes_input_since else axes
        if not given:
            return () if self.noop_with_empty_axes else tuple(range(rank))
        return tuple(sorted({normalise_axis(a, rank) for a in given}))

    def infer(self, x: Value, axes: Value | None = None) -> TensorType:
        reduced = self.reduced(len(x.dims), known_ints(axes, "the input axes"))
        return TensorType(x.dtype, self._shape(x.dims, reduced))

    def _shape(self, shape: Sequence[int], reduced: Sequence[int]) -> tuple[int, ...]:
        kept = [
            1 if d in reduced else size
            for d, size in enumerate(shape)
            if self.keepdims or d not in reduced
        ]
        return tuple(kept)

    def reference(self, x: Array, axes: Array | None = None) -> Array:
        given = None if axes is None else [int(a) for a in axes.reshape(-1)]
        reduced = self.reduced(x.ndim, given)
        wide = x.astype(np.float64) if x.dtype.kind == "f" else x
        with np.errstate(all="ignore"):
            y = np.asarray(type(self).compute(wide, reduced))
            return y.reshape(self._shape(x.shape, reduced)).astype(x.dtype)

    def _axes_of(self, inputs: Sequence[Value | None]) -> tuple[int, ...]:
        x, axes = (*inputs, None)[:2]
        assert x is not None
        return self.reduced(len(x.dims), known_ints(axes, "the input axes"))

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        x = inputs[0]
        assert x is not None
        how = self.reduction
        if x.dtype not in FLOATS and (how.pre == Pre.EXP or how.post != Post.NONE):
            return f"no kernel for {x.dtype}"
        if x.dtype not in ARITHMETIC and 0 in x.dims:
            return f"of nothing, the result is the end of {x.dtype}, which the kernel does not know"
        axes = merge_axes(x.dims, self._axes_of(inputs))
        if max(len(axes.kept), len(axes.reduced)) > KERNEL_DIMENSIONS:
            return f"axes alternate more than {KERNEL_DIMENSIONS} times between kept and reduced"
        if too_long(how, axes):
            return "the axes are too long for one invocation's loops"
        return None

    def layout(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> Layout:
        return "c4" if is_c4(inputs) and self._pools(inputs) else "linear"

    def _pools(self, inputs: Sequence[Value | None]) -> bool:
        """Whether this reduces whole maps, which has a C4 kernel."""
        x = inputs[0]
        assert x is not None
        rank = len(x.dims)
        whole = rank > 2 and self._axes_of(inputs) == tuple(range(2, rank))
        return whole and pools_globally(self.reduction, prod(x.dims[2:]))

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        x, y = inputs[0], outputs[0].on_device
        assert x is not None
        if y.layout == "c4":
            return global_pool(ctx, ctx.operand(x, "c4"), y, self.reduction)
        reduced = self._axes_of([None if t is None else t.value for t in inputs])
        return lower_reduction(ctx, self.reduction, ctx.operand(x, "linear"), y, reduced)


def _log_sum_exp(x: Array, axes: tuple[int, ...]) -> Array:
    if 0 in x.shape:
        return np.asarray(np.log(np.exp(x).sum(axes, keepdims=True)))
    largest = x.max(axes, keepdims=True)
    shift = np.where(np.isfinite(largest), largest, 0)
    return np.asarray(np.log(np.exp(x - shift).sum(axes, keepdims=True)) + shift)


def _extreme(
    function: Callable[..., Array], least: bool
) -> Callable[[Array, tuple[int, ...]], Array]:
    """Max or min, which start from the type's end so that an empty reduction has a value."""

    def compute(x: Array, axes: tuple[int, ...]) -> Array:
        if x.dtype == bool:
            start: float = least
        elif x.dtype.kind == "f":
            start = np.inf if least else -np.inf
        else:
            start = int(np.iinfo(x.dtype).max if least else np.iinfo(x.dtype).min)
        return function(x, axis=axes, initial=start)

    return compute


_INTEGERS_TOO = FLOATS | {"int32"}
#: comparisons are exact for whatever the device can hold
_ORDERED = _INTEGERS_TOO | {"int64", "int8", "uint8", "bool"}


def _define(
    op_type: str,
    since: tuple[int, ...],
    reduction: Reduction,
    compute: Callable[[Array, tuple[int, ...]], Array],
    formula: str,
    dtypes: frozenset[str] = _INTEGERS_TOO,
    axes_input_since: int = 18,
) -> None:
    members: dict[str, object] = {
        "reduction": reduction,
        "compute": staticmethod(compute),
        "device_dtypes": dtypes,
        "axes_input_since": axes_input_since,
        "__doc__": formula,
        "__module__": __name__,
        "__annotations__": {},
    }
    operator(op_type, since=since)(type(op_type, (Reduce,), members))


_define(
    "ReduceSum",
    (1, 11, 13),
    Reduction(Combine.SUM),
    lambda x, axes: x.sum(axes, dtype=x.dtype),
    "y = sum of x",
    axes_input_since=13,
)
_define(
    "ReduceMean",
    (1, 11, 13, 18),
    Reduction(Combine.SUM, post=Post.MEAN),
    lambda x, axes: x.mean(axes),
    "y = mean of x",
)
_define(
    "ReduceMax",
    (1, 11, 12, 13, 18, 20),
    Reduction(Combine.MAX),
    _extreme(np.max, least=False),
    "y = largest x",
    _ORDERED,
)
_define(
    "ReduceMin",
    (1, 11, 12, 13, 18, 20),
    Reduction(Combine.MIN),
    _extreme(np.min, least=True),
    "y = smallest x",
    _ORDERED,
)
_define(
    "ReduceProd",
    (1, 11, 13, 18),
    Reduction(Combine.PROD),
    lambda x, axes: x.prod(axes, dtype=x.dtype),
    "y = product of x",
)
_define(
    "ReduceL1",
    (1, 11, 13, 18),
    Reduction(Combine.SUM, Pre.ABS),
    lambda x, axes: np.abs(x).sum(axes, dtype=x.dtype),
    "y = sum of |x|",
)
_define(
    "ReduceL2",
    (1, 11, 13, 18),
    Reduction(Combine.SUM, Pre.SQUARE, Post.SQRT),
    lambda x, axes: np.sqrt((x.astype(np.float64) ** 2).sum(axes)),
    "y = sqrt(sum of x^2)",
)
_define(
    "ReduceSumSquare",
    (1, 11, 13, 18),
    Reduction(Combine.SUM, Pre.SQUARE),
    lambda x, axes: (x * x).sum(axes, dtype=x.dtype),
    "y = sum of x^2",
)
_define(
    "ReduceLogSum",
    (1, 11, 13, 18, 28),
    Reduction(Combine.SUM, post=Post.LOG),
    lambda x, axes: np.log(x.sum(axes)),
    "y = log(sum of x)",
)
_define(
    "ReduceLogSumExp",
    (1, 11, 13, 18, 28),
    Reduction(Combine.SUM, Pre.EXP, Post.LOG),
    _log_sum_exp,
    "y = log(sum of e^x)",
)
