"""Tensors of a model as numpy arrays: in the file, sparse, or in files beside it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import SparseTensorProto, TensorProto, numpy_helper

from vkconv.errors import InvalidModelError
from vkconv.ir import Array
from vkconv.model_file import TOKEN_BYTES, Weights
from vkconv.stored_arrays import StoredArray

#: a sparse tensor may not be larger than this: a short model can ask for any size
SPARSE_LIMIT_BYTES = 256 << 20

_DTYPES: dict[int, str] = {
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


def text(value: str | bytes) -> str:
    """A protobuf string: where the file holds no valid UTF-8, protobuf hands out bytes."""
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")


def dtype_name(element_type: int) -> str:
    """Numpy's name where there is one; else ONNX's, which is in no list of supported types."""
    if element_type in _DTYPES:
        return _DTYPES[element_type]
    if element_type in TensorProto.DataType.values():
        return str(TensorProto.DataType.Name(element_type)).lower()
    return f"type {element_type}"


def is_known(element_type: int) -> bool:
    return element_type in _DTYPES


def checked_dims(dims: Iterable[int], name: str) -> tuple[int, ...]:
    result = tuple(dims)
    if any(d < 0 for d in result):
        raise InvalidModelError(f"tensor '{name}' has a negative dimension: {result}")
    return result


class TensorReader:
    """``folder`` is where external data may lie; None for a model that came without a path.
    ``weights``: raw data that is not in the model, by the tokens in its place."""

    def __init__(self, folder: Path | None, weights: Weights | None = None) -> None:
        self._folder = folder
        self._weights = weights or {}

    def dense(self, tensor: TensorProto) -> Array | StoredArray:
        """The array of a tensor whose element type ``is_known``. Raises InvalidModelError."""
        name, dims = text(tensor.name), checked_dims(tensor.dims, text(tensor.name))
        if tensor.data_location == TensorProto.EXTERNAL:
            return self._external(tensor, dims)
        if len(tensor.raw_data) == TOKEN_BYTES and tensor.raw_data in self._weights:
            return self._apart(tensor, name, dims)
        try:
            # no allocation beyond the data: a shape that does not fit raises before
            return np.asarray(numpy_helper.to_array(tensor).reshape(dims))
        except Exception as error:  # ValueError mostly, others differ by onnx version
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise InvalidModelError(
                f"tensor '{name}' of shape {dims} does not fit its data: {why}"
            ) from None

    def _apart(self, tensor: TensorProto, name: str, dims: tuple[int, ...]) -> StoredArray:
        """A weight that is where it was."""
        raw = self._weights[tensor.raw_data]
        kind = _DTYPES[tensor.data_type]
        width = 0 if kind == "string" else np.dtype(kind).itemsize
        if math.prod(dims) * width != raw.nbytes:
            raise InvalidModelError(
                f"tensor '{name}' of shape {dims} does not fit its data: {raw.nbytes} bytes"
            )
        return StoredArray(kind, dims, [(raw, 0, raw.nbytes)])

    def sparse(self, sparse: SparseTensorProto) -> Array:
        """The dense form: ``values`` at ``indices``: flat ones, or a row of coordinates each."""
        name = text(sparse.values.name)
        values, indices = (np.asarray(self.dense(t)) for t in (sparse.values, sparse.indices))
        dims = checked_dims(sparse.dims, name)
        if math.prod(dims) * values.dtype.itemsize > SPARSE_LIMIT_BYTES:
            raise InvalidModelError(
                f"sparse tensor '{name}' of shape {dims} is larger than "
                f"{SPARSE_LIMIT_BYTES >> 20} MiB; store it dense"
            )
        try:
            columns = (indices,) if indices.ndim == 1 else tuple(indices.T)
            shape = (math.prod(dims),) if indices.ndim == 1 else dims
            flat = np.ravel_multi_index(columns, shape, mode="raise")
            dense = np.zeros(math.prod(dims), values.dtype)
            dense[flat] = values
            return dense.reshape(dims)
        except (ValueError, TypeError, IndexError):
            raise InvalidModelError(
                f"sparse tensor '{name}': its indices do not fit its values or its shape {dims}"
            ) from None

    def _external(self, tensor: TensorProto, dims: tuple[int, ...]) -> Array:
        name = text(tensor.name)
        if tensor.data_type == TensorProto.STRING:
            raise InvalidModelError(f"tensor '{name}': text cannot be external data")
        dtype = np.dtype(_DTYPES[tensor.data_type])
        path, location, offset, given = self.external(tensor)
        count = math.prod(dims)
        wanted = count * dtype.itemsize
        length = wanted if given is None else given
        try:
            size = path.stat().st_size
            if length != wanted or offset < 0 or offset + wanted > size:
                raise InvalidModelError(
                    f"tensor '{name}' needs {wanted} bytes at {offset} of '{location}' (it says "
                    f"{length}), which has {size}; the file is cut short or belongs to another "
                    "model"
                )
            if not count:
                return np.zeros(dims, dtype)
            data: Array = np.fromfile(path, dtype.newbyteorder("<"), count, offset=offset)
        except OSError as error:
            raise InvalidModelError(
                f"external data '{location}' of tensor '{name}' cannot be read: {error.strerror}"
            ) from None
        return _reshaped(data, dtype, dims, name, location)

    def external(self, tensor: TensorProto) -> tuple[Path, str, int, int | None]:
        """Where external data lies: its file, what the model calls that, the first byte, and how
        many (None: not said). Raises InvalidModelError."""
        name = text(tensor.name)
        entries = {text(entry.key): text(entry.value) for entry in tensor.external_data}
        location = entries.get("location", "")
        path = self._external_path(name, location)
        try:
            length = int(entries["length"]) if entries.get("length") else None
            return path, location, int(entries.get("offset") or 0), length
        except ValueError:
            raise InvalidModelError(
                f"tensor '{name}': offset or length of its external data is no number"
            ) from None

    def _external_path(self, name: str, location: str) -> Path:
        """The data file: in the model's folder, and no '..', absolute path or link leads out."""
        if self._folder is None:
            raise InvalidModelError(
                f"tensor '{name}' keeps its data in the file '{location}'; "
                "load the model by its path"
            )
        path = self._folder / location
        try:
            inside = bool(location) and path.resolve().is_relative_to(self._folder)
            there = path.is_file()
        except (OSError, ValueError, RuntimeError):  # a null character, a name too long, a loop
            inside = there = False
        if not inside or os.path.isabs(location):
            raise InvalidModelError(
                f"tensor '{name}': its external data '{location}' is not in the model's folder"
            )
        if not there:
            raise InvalidModelError(
                f"external data file '{location}' of tensor '{name}' is missing; "
                "put it beside the model"
            )
        return path


def _reshaped(
    data: Array, dtype: np.dtype[Any], dims: tuple[int, ...], name: str, location: str
) -> Array:
    if data.size != math.prod(dims):  # the file shrank after its size was taken
        raise InvalidModelError(f"external data '{location}' of tensor '{name}' is cut short")
    return np.asarray(data.astype(dtype, copy=False).reshape(dims))
