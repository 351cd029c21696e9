"""ONNX file -> Graph. The only module that imports onnx.

Models are untrusted: sizes are checked before anything is allocated, names must resolve, the graph must be acyclic,
and external data stays inside the model's folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    numpy_helper,
)

from vkconv.errors import InvalidModelError
from vkconv.ir import Array, Dim, Graph, Node, TensorType, Value, constant

ModelSource = "str | os.PathLike[str] | bytes | ModelProto"

_DTYPES = {
    TensorProto.FLOAT: "float32",
    TensorProto.UINT8: "uint8",
    TensorProto.INT8: "int8",
    TensorProto.UINT16: "uint16",
    TensorProto.INT16: "int16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.STRING: "string",
    TensorProto.BOOL: "bool",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
    TensorProto.UINT32: "uint32",
    TensorProto.UINT64: "uint64",
}


def read_model(source: Any) -> Graph:
    """Read a model from a path, bytes or a ModelProto. Raises InvalidModelError."""
    model, folder, label = _parse(source)
    if not model.HasField("graph") or (not model.graph.node and not model.graph.output):
        raise InvalidModelError(f"{label} holds no graph; is it an ONNX model, and whole?")
    if model.functions:
        model = _inline_functions(model, label)
    return _GraphReader(model, folder, label).read()


def _parse(source: Any) -> tuple[ModelProto, Path | None, str]:
    if isinstance(source, ModelProto):
        return source, None, "the model"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(bytes(source), "the model's bytes"), None, "the model"
    try:
        path = Path(source)
    except TypeError:
        raise InvalidModelError(
            f"a model is a path, bytes or an onnx.ModelProto, not {type(source).__name__}"
        ) from None
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InvalidModelError(f"no model file '{path}'; check the path") from None
    except OSError as error:
        raise InvalidModelError(f"model file '{path}' cannot be read: {error.strerror}") from None
    return _decode(data, f"'{path}'"), path.resolve().parent, f"'{path}'"


def _decode(data: bytes, label: str) -> ModelProto:
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RuntimeError, ValueError):
        raise InvalidModelError(
            f"{label} is not an ONNX model, or is cut short; export it again or copy it whole"
        ) from None
    return model


def _inline_functions(model: ModelProto, label: str) -> ModelProto:
    """Model-local functions (the dynamo exporter writes them) are expanded into the graph."""
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:  # the C++ inliner raises several kinds
        raise InvalidModelError(
            f"{label}: its local functions cannot be inlined: {_first_line(error)}"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class _GraphReader:
    """One pass over a GraphProto; ``_values`` maps the names defined so far."""

    def __init__(self, model: ModelProto, folder: Path | None, label: str) -> None:
        self._model, self._folder, self._label = model, folder, label
        self._values: dict[str, Value] = {}
        self._opsets = {
            "" if entry.domain == "ai.onnx" else entry.domain: entry.version
            for entry in model.opset_import
        }
        # IR version 3 and older may omit the import: opset 1 is meant (IR spec, "Operator Sets")
        self._opsets.setdefault("", 1)

    def read(self) -> Graph:
        proto = self._model.graph
        self._read_initializers(proto)
        inputs = [
            self._define(_value_of(info)) for info in proto.input if info.name not in self._values
        ]
        nodes = self._read_nodes(proto)
        outputs = [self._find(info.name, f"graph output '{info.name}'") for info in proto.output]
        for info, value in zip(proto.output, outputs, strict=True):
            if value.type is None:
                value.type = _value_of(info).type
        if not outputs:
            raise InvalidModelError(f"{self._label} has no outputs")
        return Graph(
            name=proto.name,
            inputs=inputs,
            outputs=outputs,
            nodes=nodes,
            opsets=self._opsets,
            metadata={entry.key: entry.value for entry in self._model.metadata_props},
            producer=self._model.producer_name,
            source_nodes=[(n.name, n.op_type) for n in nodes],
            output_names=[info.name for info in proto.output],
        )

    # --- values -----------------------------------------------------------------------------------------------

    def _define(self, value: Value) -> Value:
        if value.name in self._values:
            raise InvalidModelError(f"{self._label}: the name '{value.name}' is defined twice")
        self._values[value.name] = value
        return value

    def _find(self, name: str, what: str) -> Value:
        if name not in self._values:
            raise InvalidModelError(f"{self._label}: {what} is not computed by any node")
        return self._values[name]

    def _read_initializers(self, proto: GraphProto) -> None:
        for tensor in proto.initializer:
            self._define(constant(tensor.name, self._tensor(tensor)))
        for sparse in proto.sparse_initializer:
            self._define(constant(sparse.values.name, self._sparse(sparse)))

    def _sparse(self, sparse: onnx.SparseTensorProto) -> Array:
        values, indices = self._tensor(sparse.values), self._tensor(sparse.indices)
        dims = _checked_dims(sparse.dims, sparse.values.name)
        dense = np.zeros(dims, values.dtype)
        flat = (
            indices
            if indices.ndim == 1
            else np.ravel_multi_index(tuple(indices.T), dims, mode="raise")
        )
        dense.reshape(-1)[flat] = values
        return dense

    def _tensor(self, tensor: TensorProto) -> Array:
        dims = _checked_dims(tensor.dims, tensor.name)
        dtype = _DTYPES.get(tensor.data_type)
        if dtype is None:
            kind = (
                TensorProto.DataType.Name(tensor.data_type)
                if tensor.data_type in TensorProto.DataType.values()
                else tensor.data_type
            )
            raise InvalidModelError(
                f"{self._label}: tensor '{tensor.name}' has element type {kind}, which is not supported"
            )
        if tensor.data_location == TensorProto.EXTERNAL:
            return self._external(tensor, dims, np.dtype(dtype))
        try:
            return numpy_helper.to_array(tensor).reshape(dims)
        except (
            Exception
        ) as error:  # truncated raw_data raises ValueError, others differ by onnx version
            raise InvalidModelError(
                f"{self._label}: tensor '{tensor.name}' of shape {dims} does not fit its data: {_first_line(error)}"
            ) from None

    def _external(self, tensor: TensorProto, dims: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        path = self._external_path(tensor.name, location)
        count = int(np.prod(dims, dtype=object)) if dims else 1
        try:
            offset = int(entries.get("offset") or 0)
            length = int(entries.get("length") or count * dtype.itemsize)
        except ValueError:
            raise InvalidModelError(
                f"tensor '{tensor.name}': its external data's offset or length is no number"
            ) from None
        if length != count * dtype.itemsize or offset < 0 or offset + length > path.stat().st_size:
            raise InvalidModelError(
                f"tensor '{tensor.name}' needs {count * dtype.itemsize} bytes at {offset} of '{location}', "
                f"which has {path.stat().st_size}; the file is cut short or belongs to another model"
            )
        if not count:
            return np.zeros(dims, dtype)
        data = np.fromfile(path, dtype.newbyteorder("<"), count, offset=offset)
        return data.astype(dtype, copy=False).reshape(dims)

    def _external_path(self, name: str, location: str) -> Path:
        """The data file, which must lie in the model's folder: no '..', absolute path or link leads out of it."""
        if self._folder is None:
            raise InvalidModelError(
                f"tensor '{name}' keeps its data in the file '{location}'; load the model by its path"
            )
        path = self._folder / location
        inside = bool(location) and path.resolve().is_relative_to(self._folder)
        if not inside or os.path.isabs(location):
            raise InvalidModelError(
                f"tensor '{name}': external data '{location}' leaves the model's folder"
            )
        if not path.is_file():
            raise InvalidModelError(
                f"external data file '{location}' of tensor '{name}' is missing; put it beside the model"
            )
        return path

    # --- nodes ------------------------------------------------------------------------------------------------

    def _read_nodes(self, proto: GraphProto) -> list[Node]:
        taken: set[str] = {n.name for n in proto.node if n.name}
        nodes: list[Node] = []
        infos = {info.name: _value_of(info).type for info in proto.value_info}
        for index, item in enumerate(_in_order(proto, set(self._values), self._label)):
            name = item.name or _free_name(f"{item.op_type}_{index}", taken)
            inputs = [
                self._find(i, f"input '{i}' of node '{name}' ({item.op_type})") if i else None
                for i in item.input
            ]
            while inputs and inputs[-1] is None:
                inputs.pop()
            outputs = [
                self._define(Value(o or _free_name(f"{name}/unused", taken), infos.get(o)))
                for o in item.output
            ]
            domain = "" if item.domain == "ai.onnx" else item.domain
            attributes = {a.name: self._attribute(a, name) for a in item.attribute}
            nodes.append(
                Node(
                    item.op_type,
                    inputs,
                    outputs,
                    attributes,
                    name,
                    domain,
                    self._opsets.get(domain, 1),
                )
            )
        return nodes

    def _attribute(self, item: AttributeProto, node: str) -> Any:
        kind = item.type
        if kind == AttributeProto.INT:
            return item.i
        if kind == AttributeProto.FLOAT:
            return item.f
        if kind == AttributeProto.STRING:
            return item.s.decode("utf-8", "replace")
        if kind == AttributeProto.TENSOR:
            return self._tensor(item.t)
        if kind == AttributeProto.INTS:
            return tuple(item.ints)
        if kind == AttributeProto.FLOATS:
            return tuple(item.floats)
        if kind == AttributeProto.STRINGS:
            return tuple(s.decode("utf-8", "replace") for s in item.strings)
        if kind == AttributeProto.SPARSE_TENSOR:
            return self._sparse(item.sparse_tensor)
        if kind in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
            return item  # reported with its node: control flow is not run by this version
        raise InvalidModelError(f"node '{node}': attribute '{item.name}' has no readable type")


def _in_order(proto: GraphProto, known: set[str], label: str) -> Iterable[NodeProto]:
    """Nodes in topological order. The standard demands that order; a file that breaks it is sorted when possible."""
    known = known | {info.name for info in proto.input} | {""}
    waiting = list(proto.node)
    produced = {o for n in waiting for o in n.output}
    ordered: list[NodeProto] = []
    while waiting:
        later = []
        for node in waiting:
            ready = all(i in known or i not in produced for i in node.input)
            if ready:
                known.update(node.output)
                ordered.append(node)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise InvalidModelError(
                f"{label}: nodes form a cycle through '{later[0].name or later[0].op_type}'"
            )
        waiting = later
    return ordered


def _free_name(wanted: str, taken: set[str]) -> str:
    name, count = wanted, 1
    while name in taken:
        name, count = f"{wanted}_{count}", count + 1
    taken.add(name)
    return name


def _checked_dims(dims: Iterable[int], name: str) -> tuple[int, ...]:
    result = tuple(dims)
    if any(d < 0 for d in result):
        raise InvalidModelError(f"tensor '{name}' has a negative dimension: {result}")
    return result


def _value_of(info: ValueInfoProto) -> Value:
    if not info.type.HasField("tensor_type"):
        return Value(info.name)
    tensor = info.type.tensor_type
    dtype = _DTYPES.get(tensor.elem_type, f"type {tensor.elem_type}")
    if not tensor.HasField("shape"):
        return Value(info.name, TensorType(dtype, None))
    dims: list[Dim] = []
    for dim in tensor.shape.dim:
        kind = dim.WhichOneof("value")
        dims.append(dim.dim_value if kind == "dim_value" else dim.dim_param or None)
    return Value(info.name, TensorType(dtype, tuple(dims)))
