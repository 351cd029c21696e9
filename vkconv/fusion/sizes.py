"""Random inputs for a model, at sizes that it takes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vkconv.errors import InvalidInputError
from vkconv.fusion.types import Shapes
from vkconv.ir import Array, Dim, Graph, Value

__all__ = ["checked_shapes", "possible_shapes", "random_feeds"]

#: sides of a picture that are tried, smallest first, where the model leaves them open; a model may
#: need a multiple of its stride, or no less than what its heads were made for
SIDES = (64, 128, 224, 320, 640)
#: along the axis of a sequence, a side has this many steps fewer
_STEPS = 8
_BATCH = 1
_CHANNELS = 3
#: a random input may not have more elements: sizes come from the model
_MOST_ELEMENTS = 1 << 28


def checked_shapes(graph: Graph, shapes: Mapping[str, Sequence[int]] | None) -> Shapes:
    """The caller's shapes. Raises InvalidInputError where an input is not there or does not fit."""
    given = {name: tuple(int(size) for size in shape) for name, shape in (shapes or {}).items()}
    inputs = {value.name: value for value in graph.inputs}
    for name, shape in given.items():
        if name not in inputs:
            listed = ", ".join(inputs) or "it has none"
            raise InvalidInputError(f"the model has no input '{name}'; its inputs: {listed}")
        declared = _declared(inputs[name])
        fits = declared is None or (
            len(declared) == len(shape)
            and all(d == s for d, s in zip(declared, shape, strict=True) if isinstance(d, int))
        )
        if not fits or min(shape, default=1) < 1:
            wanted = "x".join(str(dim) if dim is not None else "?" for dim in declared or ())
            size = "x".join(map(str, shape))
            raise InvalidInputError(f"input '{name}' of shape {size} does not fit {wanted}")
    return given


def possible_shapes(graph: Graph, given: Shapes) -> Iterator[Shapes]:
    """Concrete shapes of all inputs, those first that take the least time; ``given`` are kept."""
    seen: list[Shapes] = []
    for side in SIDES:
        symbols: dict[str, int] = {}
        for value in graph.inputs:
            for dim, size in zip(_declared(value) or (), given.get(value.name, ()), strict=False):
                if isinstance(dim, str):
                    symbols[dim] = size
        shapes = {
            value.name: given.get(value.name) or _shape(graph, value, side, symbols)
            for value in graph.inputs
        }
        if shapes not in seen:
            seen.append(shapes)
            yield shapes


def random_feeds(inputs: Sequence[Value], shapes: Shapes, seed: int) -> dict[str, Array]:
    """Normally distributed floats, whole numbers below 8 (bytes: below 256), and truth values."""
    random = np.random.default_rng(seed)
    return {value.name: _random(value, shapes[value.name], random) for value in inputs}


def _declared(value: Value) -> tuple[Dim, ...] | None:
    return None if value.type is None else value.type.shape


def _shape(graph: Graph, value: Value, side: int, symbols: dict[str, int]) -> tuple[int, ...]:
    declared = _declared(value)
    if declared is None:
        declared = (None,) * 4
    shape = []
    for axis, dim in enumerate(declared):
        size = dim if isinstance(dim, int) else _open_size(graph, value, axis, len(declared), side)
        shape.append(symbols.setdefault(dim, size) if isinstance(dim, str) else size)
    return tuple(shape)


def _open_size(graph: Graph, value: Value, axis: int, rank: int, side: int) -> int:
    """A size for an open dimension: (batch, channels, height, width) where there are four."""
    if axis == 0:
        return _BATCH
    if axis == 1 and rank >= 3:
        for node in graph.nodes:
            weight = node.inputs[1] if len(node.inputs) > 1 else None
            if node.op_type == "Conv" and node.inputs[0] is value and weight and weight.type:
                return int(weight.dims[1]) * int(node.attributes.get("group", 1))
        return _CHANNELS if rank >= 4 else side // _STEPS
    return side if rank == 4 else side // _STEPS


def _random(value: Value, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    dtype = "float32" if value.type is None else value.type.dtype
    if math.prod(shape) > _MOST_ELEMENTS:
        size = "x".join(map(str, shape))
        raise InvalidInputError(f"input '{value.name}' of shape {size} is too large for a proof")
    if dtype == "bool":
        return random.integers(0, 2, shape).astype(bool)
    if dtype == "string":
        return np.full(shape, "text", object)
    if dtype.startswith("float"):
        return np.asarray(random.standard_normal(shape, np.float32).astype(dtype))
    most = 256 if dtype == "uint8" else 8
    return np.asarray(random.integers(0, most, shape).astype(dtype))
