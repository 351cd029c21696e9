"""Graphs, nodes and attributes in a plan file: what is planned in the run, and what nodes were.

An attribute is kept with its kind, as ["int", 3] or ["ints", [1, 2]]; arrays are numbers of the
file's arrays. A graph is read in order: a value is a constant, an input, or the output of a node
before, as the onnx reader makes sure of too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vkconv.errors import UnsupportedModelError, VkconvError
from vkconv.ir import DTYPES, Array, Dim, Graph, Node, TensorType, Value
from vkconv.plan_file.container import Reader, Writer
from vkconv.plan_file.fields import LARGEST, Fields

#: graphs inside nodes inside graphs: models have two or three
DEEPEST = 32
_SEQUENCES: dict[str, type] = {"ints": int, "floats": float, "texts": str}


def write_type(type_: TensorType | None) -> Any:
    if type_ is None:
        return None
    shape = None if type_.shape is None else [_plain(d) for d in type_.shape]
    return {"dtype": type_.dtype, "shape": shape}


def read_type(fields: Fields | None) -> TensorType | None:
    """A type whose dimensions may be names or open."""
    if fields is None:
        return None
    dtype = fields.text("dtype")
    if dtype not in DTYPES:
        raise fields.wrong("dtype", "a type of elements")
    if fields.raw("shape") is None:
        return TensorType(dtype, None)
    shape: list[Dim] = []
    for dim in fields.items("shape"):
        if not (dim is None or isinstance(dim, str) or (type(dim) is int and 0 <= dim <= LARGEST)):
            raise fields.wrong("shape", "a shape")
        shape.append(dim)
    return TensorType(dtype, tuple(shape))


def write_array(array: Array, writer: Writer) -> Any:
    """An array's number; strings lie in the tables."""
    array = np.asarray(array)  # of one that is stored in the model's file: what it holds
    if array.dtype.kind in "OSU":
        texts = [t if isinstance(t, str) else _text(t) for t in array.reshape(-1).tolist()]
        return {"texts": texts, "shape": list(array.shape)}
    return writer.add(array)


def read_array(value: Any, reader: Reader) -> Array:
    if not isinstance(value, dict):
        return reader.array(value)
    fields = Fields(value, "an array of strings", reader.invalid)
    texts, shape = fields.texts("texts"), fields.integers("shape")
    array = np.empty(len(texts), object)
    array[:] = texts
    try:
        return array.reshape(shape)
    except ValueError:
        raise fields.wrong("shape", "the shape of its texts") from None


def write_attribute(value: Any, writer: Writer) -> Any:
    """The attribute with its kind. Raises TypeError on what has no form in a file."""
    if value is None:
        return ["none", None]
    if isinstance(value, (bool, int, np.integer)):
        return ["int", int(value)]
    if isinstance(value, (float, np.floating)):
        return ["float", float(value)]
    if isinstance(value, str):
        return ["text", value]
    if isinstance(value, np.ndarray):
        return ["array", write_array(value, writer)]
    if isinstance(value, Graph):
        return ["graph", write_graph(value, writer)]
    if isinstance(value, tuple):
        for kind, type_ in _SEQUENCES.items():
            if all(isinstance(v, type_) for v in value):
                return [kind, [type_(v) for v in value]]
        if all(isinstance(v, (int, float)) for v in value):
            return ["floats", [float(v) for v in value]]
    raise TypeError(f"an attribute that is {type(value).__name__}")


def read_attribute(given: Any, reader: Reader, depth: int) -> Any:
    kind: Any = None
    value: Any = None
    if isinstance(given, list) and len(given) == 2:
        kind, value = given
    if kind == "none":
        return None
    if kind == "int" and type(value) is int:
        return value
    if kind == "float" and type(value) in (int, float):
        return float(value)
    if kind == "text" and isinstance(value, str):
        return value
    if kind == "array":
        return read_array(value, reader)
    if kind == "graph" and depth < DEEPEST:
        return read_graph(Fields(value, "a graph in a node", reader.invalid), reader, depth + 1)
    if isinstance(kind, str) and kind in _SEQUENCES and isinstance(value, list):
        made = tuple(float(v) if kind == "floats" and type(v) is int else v for v in value)
        if all(type(v) is _SEQUENCES[kind] for v in made):
            return made
    raise reader.invalid(f"{given!s:.60} is no attribute")


def write_graph(graph: Graph, writer: Writer) -> dict[str, Any]:
    """The whole graph, constants included."""
    numbers = {value: i for i, value in enumerate(graph.values())}
    return {
        **write_names(graph),
        "values": [
            {
                "name": v.name,
                "type": write_type(v.type),
                "array": None if v.array is None else write_array(v.array, writer),
            }
            for v in numbers
        ],
        "nodes": [
            {
                **_node(node),
                "inputs": [-1 if v is None else numbers[v] for v in node.inputs],
                "outputs": [numbers[v] for v in node.outputs],
                "attributes": _attributes(node, writer),
            }
            for node in graph.nodes
        ],
        "inputs": [numbers[v] for v in graph.inputs],
        "outputs": [numbers[v] for v in graph.outputs],
    }


def read_graph(fields: Fields, reader: Reader, depth: int = 0) -> Graph:
    values = [_value(row, reader) for row in fields.rows("values")]
    graph = read_names(fields)
    defined = {id(v) for v in values if v.is_constant}

    def chosen(where: Fields, key: str) -> list[Value | None]:
        return [None if i < 0 else values[i] for i in where.integers(key, -1, len(values) - 1)]

    def present(where: Fields, key: str, new: bool) -> list[Value]:
        found = [v for v in chosen(where, key) if v is not None]
        for value in found:
            if (id(value) in defined) is new:
                raise where.fail(f"value '{value.name}' of {where.where} is out of order")
            defined.add(id(value))
        return found

    # constants may be inputs (those of a loop's body)
    graph.inputs = [v for v in chosen(fields, "inputs") if v is not None]
    defined.update(id(v) for v in graph.inputs)
    for row in fields.rows("nodes"):
        inputs = chosen(row, "inputs")
        present(row, "inputs", new=False)
        node = read_node(row)
        node.inputs = inputs
        node.outputs = present(row, "outputs", new=True)
        for value in node.outputs:
            value.producer = node
        node.attributes = {
            name: read_attribute(value, reader, depth)
            for name, value in row.table("attributes").items()
        }
        _check_node(node, row)
        graph.nodes.append(node)
    graph.outputs = present(fields, "outputs", new=False)
    if graph.output_names and len(graph.output_names) != len(graph.outputs):
        raise fields.wrong("output_names", "one name an output")
    return graph


def _check_node(node: Node, row: Fields) -> None:
    """Its operator takes its attributes and inputs: passes take that for granted."""
    from vkconv.ops.registry import check_inputs, create

    try:
        check_inputs(create(node), node)
    except VkconvError as error:
        raise row.fail(str(error)) from None


def write_names(graph: Graph) -> dict[str, Any]:
    """What a graph is called and was made of, its nodes apart."""
    return {
        "name": graph.name,
        "opsets": graph.opsets,
        "output_names": graph.output_names,
        "source_nodes": graph.source_nodes,
        "absorbed": {name: list(where) for name, where in graph.absorbed.items()},
    }


def read_names(fields: Fields) -> Graph:
    graph = Graph(fields.text("name"), [], [], [])
    opsets = fields.fields("opsets")
    graph.opsets = {d: opsets.integer(d, 0, 10**6) for d in fields.table("opsets")}
    graph.output_names = fields.texts("output_names")
    graph.source_nodes = fields.pairs("source_nodes")
    absorbed = fields.fields("absorbed")
    for name in fields.table("absorbed"):
        where = absorbed.texts(name)
        if len(where) != 2:
            raise absorbed.wrong(name, "a pair of texts")
        graph.absorbed[name] = (where[0], where[1])
    return graph


def write_node(node: Node) -> dict[str, Any]:
    """A node as its name and fate, without values."""
    return _node(node)


def read_node(fields: Fields) -> Node:
    return Node(
        fields.text("op_type"),
        [],
        [],
        {},
        fields.text("name"),
        fields.text("domain"),
        fields.integer("opset", 0, 10**6),
        fields.texts("fused"),
        fields.optional_text("host_reason"),
    )


def _node(node: Node) -> dict[str, Any]:
    return {
        "op_type": node.op_type,
        "name": node.name,
        "domain": node.domain,
        "opset": node.opset,
        "fused": node.fused,
        "host_reason": node.host_reason,
    }


def _attributes(node: Node, writer: Writer) -> dict[str, Any]:
    try:
        return {name: write_attribute(v, writer) for name, v in node.attributes.items()}
    except TypeError as error:
        raise UnsupportedModelError(f"{node} cannot be kept in a plan file: {error}") from None


def _value(fields: Fields, reader: Reader) -> Value:
    value = Value(fields.text("name"), read_type(fields.optional_fields("type")))
    given = fields.raw("array")
    if given is not None:
        value.array = read_array(given, reader)
        found = TensorType(
            "string" if value.array.dtype.kind == "O" else value.array.dtype.name,
            value.array.shape,
        )
        if value.type != found:
            raise fields.fail(f"constant '{value.name}' is {found}, not {value.type}")
    return value


def _plain(dim: Dim) -> Dim:
    return dim if dim is None or isinstance(dim, str) else int(dim)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
