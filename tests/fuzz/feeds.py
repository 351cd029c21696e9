"""Inputs for a model nobody knows: mostly plausible numbers, some extreme ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vkconv.ir import Array

#: sizes that open dimensions get
OPEN_SIZES = (1, 2, 3, 4, 5, 7)
_DTYPES = {"float": "float32", "double": "float64", "string": "string"}
_SPECIAL = np.array(
    [np.nan, np.inf, -np.inf, 0.0, -0.0, 3.4e38, -3.4e38, 1e-45, 2.0**31, -(2.0**63), 1e9]
)
_EXTREME = (-(1 << 63), (1 << 63) - 1, 1 << 31, -(1 << 31), (1 << 31) - 1, 65536, -1, 255)


def feeds_for(
    inputs: Sequence[Any], random: np.random.Generator, largest: int
) -> Mapping[str, Array] | None:
    """An array for each input; None where they would be larger than ``largest`` bytes."""
    sizes: dict[str, int] = {}
    feeds: dict[str, Array] = {}
    for arg in inputs:
        dims = []
        for dim in arg.shape:
            known = isinstance(dim, int)
            dims.append(
                dim if known else sizes.setdefault(str(dim), int(random.choice(OPEN_SIZES)))
            )
        count = 1
        for dim in dims:
            count *= dim
        if count * 8 > largest or len(dims) > 32:
            return None
        name = arg.type.removeprefix("tensor(").removesuffix(")")
        feeds[arg.name] = _array(_DTYPES.get(name, name), tuple(dims), random)
    return feeds


def _array(dtype: str, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    if dtype == "string":
        return np.full(shape, str(random.choice(["", "a", "zwei", "ü"])), object)
    kind = np.dtype(dtype).kind
    if kind == "b":
        return np.asarray(random.integers(0, 2, shape).astype(bool))
    if kind == "f":
        scale = random.choice([1.0, 1.0, 10.0, 1e4])
        floats = np.asarray(random.standard_normal(shape) * scale)
        if random.random() < 0.3:
            chosen = random.random(shape) < 0.2
            floats = np.where(chosen, random.choice(_SPECIAL, shape), floats)
        with np.errstate(all="ignore"):
            return np.asarray(floats.astype(dtype))
    limits = np.iinfo(dtype)
    low, high = max(limits.min, int(random.choice([0, -2, -4]))), int(random.choice([2, 3, 8]))
    integers = np.asarray(random.integers(low, high, shape)).astype(dtype)
    if random.random() < 0.35:
        possible = [e for e in _EXTREME if limits.min <= e <= limits.max]
        chosen = random.random(shape) < 0.3
        integers = np.where(
            chosen, np.array(possible, dtype)[random.integers(0, len(possible), shape)], integers
        )
    return np.asarray(integers.astype(dtype))
