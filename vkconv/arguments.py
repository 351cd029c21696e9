"""A model's inputs and outputs as callers see them, and what a call gives checked against them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vkconv.errors import InvalidInputError
from vkconv.ir import Array, TensorType, type_of

_ONNX_TYPES = {"float32": "float", "float64": "double", "float16": "float16"}


@dataclass(frozen=True)
class NodeArg:
    """An input or output as onnxruntime describes it.

    ``shape`` holds ints, names of dynamic dimensions, or None where they have no name.
    """

    name: str
    shape: list[int | str | None]
    type: str


@dataclass(frozen=True)
class ModelMetadata:
    """What the exporter wrote beside the graph."""

    custom_metadata_map: dict[str, str]
    producer_name: str
    graph_name: str
    opset: int


def node_arg(name: str, type_: TensorType | None) -> NodeArg:
    if type_ is None:
        return NodeArg(name, [], "")
    shape = [] if type_.shape is None else list(type_.shape)
    return NodeArg(name, shape, f"tensor({_ONNX_TYPES.get(type_.dtype, type_.dtype)})")


def completed(declared: TensorType | None, inferred: TensorType | None) -> TensorType | None:
    """The declared type, with what inference knows where it leaves something open."""
    if declared is None or (declared.shape is None and inferred is not None):
        return inferred
    if inferred is None or inferred.shape is None or declared.shape is None:
        return declared
    if len(inferred.shape) != len(declared.shape):
        return inferred
    pairs = zip(declared.shape, inferred.shape, strict=True)
    return TensorType(declared.dtype, tuple(i if isinstance(i, int) else d for d, i in pairs))


def positions(names: Sequence[str] | None, outputs: Sequence[NodeArg]) -> list[int]:
    """Where the outputs called ``names`` stand; all of them for None or none."""
    known = [o.name for o in outputs]
    if not names:
        return list(range(len(known)))
    if isinstance(names, str):
        raise InvalidInputError(f"output names are a list, as in ['{names}']; None is all")
    for name in names:
        if name not in known:
            listed = ", ".join(known)
            raise InvalidInputError(f"the model has no output '{name}'; its outputs: {listed}")
    return [known.index(name) for name in names]


def arranged(wanted: Sequence[int], results: Sequence[Array]) -> list[Array]:
    """The results, one for each different position in ``wanted``, in its order; what is wanted
    twice is copied."""
    found = dict(zip(dict.fromkeys(wanted), results, strict=True))
    return [found[i].copy() if i in wanted[:k] else found[i] for k, i in enumerate(wanted)]


def checked_feeds(
    feeds: Mapping[str, Any], inputs: Sequence[NodeArg], types: Sequence[TensorType]
) -> dict[str, Array]:
    """The feeds as arrays, in the order of the inputs. Raises InvalidInputError where one is
    missing, surplus, or unlike its input."""
    if not isinstance(feeds, Mapping):
        raise InvalidInputError(f"feeds are a dict of arrays by name, not {type(feeds).__name__}")
    surplus = [name for name in feeds if name not in {i.name for i in inputs}]
    if surplus:
        names = ", ".join(i.name for i in inputs)
        raise InvalidInputError(f"the model has no input '{surplus[0]}'; its inputs: {names}")
    symbols: dict[str, int] = {}
    arrays: dict[str, Array] = {}
    for arg, type_ in zip(inputs, types, strict=True):
        if arg.name not in feeds:
            raise InvalidInputError(
                f"input '{arg.name}' ({arg.type}, shape {arg.shape}) is missing"
            )
        arrays[arg.name] = _checked(arg, type_, np.asarray(feeds[arg.name]), symbols)
    return arrays


def zeros(arg: NodeArg, type_: TensorType) -> Array:
    """A feed of zeros, or of empty strings. Raises InvalidInputError where the shape is open."""
    if not type_.is_static:
        raise InvalidInputError(
            f"input '{arg.name}' has the open shape {arg.shape}; feed an array of the size meant"
        )
    if type_.dtype == "string":
        return np.full(type_.dims, "", object)
    return np.zeros(type_.dims, type_.dtype)


def _checked(arg: NodeArg, type_: TensorType, array: Array, symbols: dict[str, int]) -> Array:
    """The array when it fits the input; ``symbols`` holds the dynamic dimensions met so far."""
    if type_of(array).dtype != type_.dtype:
        raise InvalidInputError(
            f"input '{arg.name}' is {array.dtype.name}, the model takes {type_.dtype}; "
            f"convert it with .astype('{type_.dtype}')"
        )
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if type_.shape is None:
        return array
    if array.ndim != len(type_.shape):
        raise InvalidInputError(
            f"input '{arg.name}' has rank {array.ndim} (shape {array.shape}), the model takes rank "
            f"{len(type_.shape)} (shape {arg.shape})"
        )
    for axis, (size, dim) in enumerate(zip(array.shape, type_.shape, strict=True)):
        known = symbols.setdefault(dim, size) if isinstance(dim, str) else dim
        if known is not None and size != known:
            raise InvalidInputError(
                f"input '{arg.name}' has size {size} along axis {axis}, the model takes {known} "
                f"(shape {arg.shape})"
            )
    return array
