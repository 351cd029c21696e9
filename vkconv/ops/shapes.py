"""Axes, shapes and layouts: the small arithmetic that operators share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vkconv.errors import InvalidModelError
from vkconv.ir import Layout, Value
from vkconv.ops.operator import UnknownShapeError
from vkconv.weight_packing import ceil_div as ceil_div


def normalise_axis(axis: int, rank: int) -> int:
    """ONNX axes count from the end when negative. Raises InvalidModelError outside [-rank,
    rank)."""
    if not -rank <= axis < rank:
        raise InvalidModelError(
            f"axis {axis} is outside [{-rank}, {rank - 1}] for a tensor of rank {rank}"
        )
    return axis + rank if axis < 0 else axis


def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...]:
    """Numpy's broadcasting rule, which ONNX has too (multidirectional). Raises
    InvalidModelError."""
    try:
        return tuple(np.broadcast_shapes(*[tuple(s) for s in shapes]))
    except ValueError:
        raise InvalidModelError(
            f"shapes {' and '.join(str(tuple(s)) for s in shapes)} do not broadcast"
        ) from None


def known_ints(value: Value | None, what: str) -> tuple[int, ...] | None:
    """The integers of a shape-like input; None when omitted. Raises UnknownShapeError when no
    constant."""
    if value is None:
        return None
    if value.array is None:
        raise UnknownShapeError(f"{what} '{value.name}' is computed by the model", value)
    return tuple(int(v) for v in value.array.reshape(-1))


def elementwise_layout(inputs: Sequence[Value | None], output: Value) -> Layout:
    """C4 when a full-sized input has it already and the others broadcast against it in C4; else
    linear."""
    rank = len(output.dims)
    tensors = [v for v in inputs if v is not None and not v.is_constant]
    full = any(v.layout == "c4" and v.dims == output.dims for v in tensors)
    if not full or not 3 <= rank <= 5 or not output.dtype.startswith("float"):
        return "linear"
    fits = all(len(v.dims) == rank or v.known_type.size == 1 or v.is_constant for v in tensors)
    return "c4" if fits else "linear"


def is_c4(inputs: Sequence[Value | None]) -> bool:
    first = inputs[0]
    return first is not None and first.layout == "c4"
