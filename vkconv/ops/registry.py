"""All operators by domain and name, and a node's way to its own.

A node's operator is found, made with its attributes, and asked for its types: each step names the
node where the model is wrong.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

import numpy as np

from vkconv.entry_points import load_operators
from vkconv.errors import InvalidModelError, VkconvError
from vkconv.ir import Graph, Node, TensorType
from vkconv.ops.activation_codes import Activation
from vkconv.ops.operator import Operator
from vkconv.ops.parts import Part

#: newest ai.onnx opset whose operators are known here (tests hold it against the onnx package)
NEWEST_OPSET = 28

REGISTRY: dict[tuple[str, str], type[Operator]] = {}
#: domains whose operators are all in this package: the standard's, and what passes make of them
OWN_DOMAINS = ("", "vkconv")
#: of a tensor, its dimensions of no length left out: numpy and drivers count bytes in 63 bits
MOST_ELEMENTS = 1 << 59

T = TypeVar("T", bound=type)


def operator(op_type: str, *, since: tuple[int, ...], domain: str = "") -> Callable[[T], T]:
    """Class decorator: makes a dataclass of the operator and registers it for (domain, op_type)."""

    def register(cls: T) -> T:
        key = (domain, op_type)
        if key in REGISTRY:
            raise ValueError(f"operator {op_type} of domain '{domain}' is registered twice")
        made: Any = dataclass(eq=False, repr=False)(cls)
        made.op_type, made.domain, made.since = op_type, domain, since
        REGISTRY[key] = made
        return cls

    return register


def is_registered(domain: str, op_type: str) -> bool:
    return _registered(domain, op_type) is not None


def find_operator(node: Node) -> type[Operator] | None:
    return _registered("" if node.domain == "ai.onnx" else node.domain, node.op_type)


def _registered(domain: str, op_type: str) -> type[Operator] | None:
    """The operator; those of other packages are looked for when one is unknown."""
    if (domain, op_type) not in REGISTRY and domain not in OWN_DOMAINS:
        load_operators()
    return REGISTRY.get((domain, op_type))


def create(node: Node) -> Operator:
    """The operator of a node with its attributes set. Raises InvalidModelError on attributes that
    don't fit."""
    cls = find_operator(node)
    if cls is None:
        raise InvalidModelError(f"{node}: there is no such operator in domain '{node.domain}'")
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in node.attributes.items():
        if name not in known:
            if name in cls.former_attributes and node.opset < cls.former_attributes[name]:
                continue
            raise InvalidModelError(
                f"{node}: attribute '{name}' is not one of {node.op_type} "
                f"({', '.join(sorted(known)) or 'it has none'})"
            )
        values[name] = _checked(node, name, value, str(known[name].type))
    for name, f in known.items():
        missing = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if missing and name not in values:
            raise InvalidModelError(f"{node}: attribute '{name}' is missing")
    code = values.get("activation", 0)
    if node.domain == "vkconv" and code not in set(Activation):
        raise InvalidModelError(f"{node}: {code} is no code of an activation")
    try:
        made = cls(**values)
    except VkconvError:
        raise
    except Exception as error:  # a custom operator's __post_init__
        raise InvalidModelError(f"{node}: its attributes do not fit: {error}") from error
    versions = [v for v in cls.since if v <= node.opset]
    made.version = max(versions) if versions else min(cls.since)
    made.output_count = len(node.outputs)
    return made


_ACCEPTED: dict[str, Callable[[Any], bool]] = {
    "int": lambda v: isinstance(v, int),
    "float": lambda v: isinstance(v, (int, float)),
    "str": lambda v: isinstance(v, str),
    "tuple[int, ...]": lambda v: isinstance(v, tuple) and all(isinstance(i, int) for i in v),
    "tuple[float, ...]": lambda v: (
        isinstance(v, tuple) and all(isinstance(i, (int, float)) for i in v)
    ),
    "tuple[str, ...]": lambda v: isinstance(v, tuple) and all(isinstance(i, str) for i in v),
    "Array": lambda v: isinstance(v, np.ndarray),
    "Graph": lambda v: isinstance(v, Graph),
    # no model's attribute: only a pass makes them
    "tuple[Part, ...]": lambda v: isinstance(v, tuple) and all(isinstance(i, Part) for i in v),
}


def _checked(node: Node, name: str, value: Any, annotation: str) -> Any:
    kinds = [k.strip() for k in annotation.split("|") if k.strip() != "None"]
    if not any(_ACCEPTED[k](value) for k in kinds):
        raise InvalidModelError(
            f"{node}: attribute '{name}' should be {' or '.join(kinds)}, "
            f"not {type(value).__name__} {value!r:.60}"
        )
    return value


_SIGNATURES: dict[type[Operator], inspect.Signature] = {}


def check_inputs(op: Operator, node: Node) -> None:
    """Raises InvalidModelError when the node has too few or many inputs, or omits a needed one."""
    cls = type(op)
    if cls not in _SIGNATURES:  # a third of the time that folding shape code takes, otherwise
        _SIGNATURES[cls] = inspect.signature(op.infer)
    signature = _SIGNATURES[cls]
    try:
        bound = signature.bind(*node.inputs)
    except TypeError:
        raise InvalidModelError(
            f"{node} has {len(node.inputs)} inputs, which {node.op_type} does not take"
        ) from None
    for name, value in bound.arguments.items():
        parameter = signature.parameters[name]
        needed = parameter.kind is not parameter.VAR_POSITIONAL
        if value is None and needed and parameter.default is parameter.empty:
            raise InvalidModelError(f"{node} omits its input '{name}', which {node.op_type} needs")


def infer_types(op: Operator, node: Node) -> tuple[TensorType, ...]:
    """The node's output types. Every InvalidModelError names the node; its inputs are checked."""
    check_inputs(op, node)
    try:
        types = op.infer(*node.inputs)
    except InvalidModelError as error:
        message = str(error)
        raise InvalidModelError(message if str(node) in message else f"{node}: {message}") from None
    found = types if isinstance(types, tuple) else (types,)
    for type_ in found:
        _check_countable(type_, node)
    return found


def _check_countable(type_: TensorType, node: Node) -> None:
    """A tensor without elements may be long in all other dimensions: not longer than numpy has
    strides for."""
    lengths = [d for d in type_.shape or () if isinstance(d, int) and d > 0]
    if prod(lengths) > MOST_ELEMENTS:
        raise InvalidModelError(
            f"{node}: its output of type {type_} is beyond {MOST_ELEMENTS} elements"
        )
