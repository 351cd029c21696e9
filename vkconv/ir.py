"""The graph: plain dataclasses for values, nodes and graphs, and the edits passes make to them.

This room knows ONNX's words (op_type, domain, attribute, opset) but neither protobuf nor any
device. Values are compared by identity; a value with ``array`` set is a constant (an ONNX
initializer or the result of folding).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

import numpy as np

from vkconv.stored_arrays import Array as Array
from vkconv.stored_arrays import StoredArray

Dim: TypeAlias = "int | str | None"
Layout = Literal["linear", "c4"]

#: element types as ONNX has them, in numpy's spelling
DTYPES = (
    "float32",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "int32",
    "int64",
    "string",
    "bool",
    "float16",
    "float64",
    "uint32",
    "uint64",
)


@dataclass(frozen=True)
class TensorType:
    """Element type (numpy's name, or ``"string"``) and shape; str and None dims are dynamic."""

    dtype: str
    shape: tuple[Dim, ...] | None

    @property
    def is_static(self) -> bool:
        return self.shape is not None and all(isinstance(d, int) for d in self.shape)

    @property
    def dims(self) -> tuple[int, ...]:
        """The concrete shape. Raises ValueError where a dimension is dynamic."""
        if self.shape is None or not self.is_static:
            raise ValueError(f"shape {self.shape} is not concrete")
        return tuple(d for d in self.shape if isinstance(d, int))

    @property
    def rank(self) -> int:
        return len(self.dims)

    @property
    def size(self) -> int:
        """Number of elements."""
        count = 1
        for d in self.dims:
            count *= d
        return count

    def __str__(self) -> str:
        dims = (
            "?"
            if self.shape is None
            else ",".join("?" if d is None else str(d) for d in self.shape)
        )
        return f"{self.dtype}[{dims}]"


@dataclass(eq=False)
class Value:
    """One tensor of the graph. ``array`` is set for constants, ``layout`` by assign_layouts.

    ``bounds``: least and greatest element of integers, where bound_integers finds them.
    """

    name: str
    type: TensorType | None = None
    array: Array | None = None
    producer: Node | None = field(default=None, repr=False)
    layout: Layout = "linear"
    bounds: tuple[int, int] | None = None

    @property
    def is_constant(self) -> bool:
        return self.array is not None

    @property
    def known_type(self) -> TensorType:
        if self.type is None:
            raise ValueError(f"the type of value '{self.name}' is not known")
        return self.type

    @property
    def dims(self) -> tuple[int, ...]:
        return self.known_type.dims

    @property
    def dtype(self) -> str:
        return self.known_type.dtype


def type_of(array: Array) -> TensorType:
    return TensorType("string" if array.dtype.kind in "OSU" else array.dtype.name, array.shape)


def constant(name: str, array: Array | StoredArray) -> Value:
    """A constant value; its array is made read-only, since passes share it. One that is stored in
    the model's file stays there, and passes for an array."""
    if isinstance(array, StoredArray):
        return Value(name, type_of(cast(Array, array)), cast(Array, array))
    array = np.asarray(array)
    array.flags.writeable = False
    return Value(name, type_of(array), array)


@dataclass(frozen=True)
class Opaque:
    """What an attribute holds where this package has no form for it (a graph, a type): in words."""

    kind: str


@dataclass(eq=False)
class Node:
    """One operation. A missing optional input is None. ``opset``: what its domain is read at."""

    op_type: str
    inputs: list[Value | None]
    outputs: list[Value]
    attributes: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    domain: str = ""
    opset: int = 0
    #: names of the nodes that fusion merged into this one
    fused: list[str] = field(default_factory=list)
    #: why the node runs on the host; None: on the device (set when layouts are assigned)
    host_reason: str | None = None

    def __post_init__(self) -> None:
        for value in self.outputs:
            value.producer = self

    @property
    def present_inputs(self) -> list[Value]:
        return [v for v in self.inputs if v is not None]

    def __str__(self) -> str:
        return f"{self.op_type} '{self.name}'"


class Names:
    """Names in use, and new ones like them."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken
        self._counts: dict[str, int] = {}

    def add(self, names: Iterable[str]) -> None:
        self._taken.update(names)

    def free(self, wanted: str) -> str:
        """``wanted``, or with the first number behind it that makes it new."""
        name, count = wanted, self._counts.get(wanted, 0)
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._counts[wanted] = count
        self._taken.add(name)
        return name


@dataclass(frozen=True)
class Fusion:
    """Nodes that a pass made into one, with the algebra: what ``vkconv fuse`` reports."""

    #: what was fused, in a few words: "Conv + BatchNormalization", "parallel convolutions"
    kind: str
    #: names of the nodes that went, in their order
    nodes: tuple[str, ...]
    #: name of the node that stays
    into: str
    #: the identity used: "W' = W·γ/√(σ²+ε), b' = β + (b−μ)·γ/√(σ²+ε)"
    algebra: str


@dataclass(frozen=True)
class Unfused:
    """Nodes that look fusible and were left alone, with the reason."""

    kind: str
    nodes: tuple[str, ...]
    reason: str


@dataclass(eq=False)
class Graph:
    """Nodes in topological order, with the values that enter and leave."""

    name: str
    inputs: list[Value]
    outputs: list[Value]
    nodes: list[Node]
    opsets: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    producer: str = ""
    #: node name -> ("folded" | "fused", where it went); filled by passes, shown as the placement
    absorbed: dict[str, tuple[str, str]] = field(default_factory=dict)
    #: (name, op_type) of every node as the model had it, in its order
    source_nodes: list[tuple[str, str]] = field(default_factory=list)
    #: names and types of the outputs as the model had them (passes may substitute the values)
    output_names: list[str] = field(default_factory=list)
    #: what the fusions of linear branches did, and what they left alone for a reason
    fusions: list[Fusion] = field(default_factory=list)
    unfused: list[Unfused] = field(default_factory=list)

    def values(self) -> Iterator[Value]:
        """Every value once: graph inputs, node inputs, node outputs."""
        seen: set[int] = set()
        groups: list[Iterable[Value | None]] = [self.inputs]
        for node in self.nodes:
            groups += [node.inputs, node.outputs]
        for group in [*groups, self.outputs]:
            for value in group:
                if value is not None and id(value) not in seen:
                    seen.add(id(value))
                    yield value

    def constants(self) -> Iterator[Array | StoredArray]:
        """The arrays of its constants, and of those of the graphs inside its nodes."""
        yield from (v.array for v in self.values() if v.array is not None)
        for node in self.nodes:
            for attribute in node.attributes.values():
                if isinstance(attribute, Graph):
                    yield from attribute.constants()

    def arrays_in_memory(self) -> Iterator[Array]:
        """Of these, what is not in the model's file alone."""
        for array in self.constants():
            yield from array.held if isinstance(array, StoredArray) else [array]

    def uses(self) -> dict[Value, list[Node]]:
        """Consumers of each value, in order; a node that reads a value twice is listed twice."""
        result: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in node.present_inputs:
                result.setdefault(value, []).append(node)
        return result

    def is_output(self, value: Value) -> bool:
        return any(value is out for out in self.outputs)

    def replace_value(self, old: Value, new: Value) -> None:
        """Every reader of ``old``, the graph's outputs included, reads ``new`` instead."""
        for node in self.nodes:
            node.inputs = [new if v is old else v for v in node.inputs]
        self.outputs = [new if v is old else v for v in self.outputs]

    def remove(self, nodes: Iterable[Node]) -> None:
        gone = {id(n) for n in nodes}
        self.nodes = [n for n in self.nodes if id(n) not in gone]

    def keep_live(self) -> list[Node]:
        """Drop nodes whose results nothing reads; returns those dropped."""
        needed = {id(v) for v in self.outputs}
        kept: list[Node] = []
        dropped: list[Node] = []
        for node in reversed(self.nodes):
            if any(id(v) in needed for v in node.outputs):
                needed.update(id(v) for v in node.present_inputs)
                kept.append(node)
            else:
                dropped.append(node)
        self.nodes = kept[::-1]
        return dropped[::-1]

    def copy(self) -> Graph:
        """A graph of its own values and nodes; constants' arrays are shared (they're read-only)."""
        twin: dict[int, Value] = {}

        def clone(value: Value) -> Value:
            if id(value) not in twin:
                twin[id(value)] = Value(
                    value.name,
                    value.type,
                    value.array,
                    layout=value.layout,
                    bounds=value.bounds,
                )
            return twin[id(value)]

        nodes = [
            Node(
                n.op_type,
                [None if v is None else clone(v) for v in n.inputs],
                [clone(v) for v in n.outputs],
                dict(n.attributes),
                n.name,
                n.domain,
                n.opset,
                list(n.fused),
                n.host_reason,
            )
            for n in self.nodes
        ]
        return Graph(
            self.name,
            [clone(v) for v in self.inputs],
            [clone(v) for v in self.outputs],
            nodes,
            dict(self.opsets),
            dict(self.metadata),
            self.producer,
            dict(self.absorbed),
            list(self.source_nodes),
            list(self.output_names),
            list(self.fusions),
            list(self.unfused),
        )
