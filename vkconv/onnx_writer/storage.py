"""A model as bytes, or as a file with the file of its external data beside it.

Protobuf ends at 2 GiB: a larger model keeps its tensors in MODEL.onnx.data, and so does one that
already kept some outside.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from vkconv.errors import InvalidModelError
from vkconv.files import replacing, write_bytes
from vkconv.onnx_reader.tensors import TensorReader, text

__all__ = ["StoredModel"]

#: of a protobuf message, less what is left to the parts that are no tensors
LARGEST_MESSAGE = (1 << 31) - (64 << 20)
#: smaller tensors stay in the model's file
_LEAST_EXTERNAL = 1024
#: offsets of external data, so that it can be mapped into memory
_ALIGNMENT = 4096


class StoredModel:
    """A model that is ready to be written: as bytes where it fits a file, else as it is in memory.

    folder: where the external data that it refers to lies.
    """

    def __init__(self, model: ModelProto, folder: Path | None) -> None:
        self._folder = folder
        self.is_one_file = _is_one_file(model)
        reader = TensorReader(folder)
        #: files in which it keeps tensors
        self.external_files = {
            reader.external(tensor)[0].resolve()
            for tensor in _tensors(model)
            if tensor.data_location == TensorProto.EXTERNAL
        }
        # bytes take half the memory: an edited message keeps what was deleted from it
        self._data = model.SerializeToString() if self.is_one_file else b""
        self._model = None if self.is_one_file else model

    def to_bytes(self) -> bytes:
        """The model's file. Raises InvalidModelError where one is not enough."""
        if not self.is_one_file:
            raise InvalidModelError(
                "the model keeps tensors in a file beside it, or is larger than 2 GiB; use its path"
            )
        return self._data

    def to_proto(self) -> ModelProto:
        """A message of the caller's own; it refers to external data where that was."""
        made = ModelProto()
        if self._model is not None:
            made.CopyFrom(self._model)
        else:
            made.ParseFromString(self._data)
        return made

    def save(self, path: str) -> None:
        """Writes the model to ``path``, and its tensors to ``path + ".data"`` where it needs that.

        Each file is whole or not there; the data's comes first. Raises InvalidInputError when one
        cannot be written, InvalidModelError when external data is missing.
        """
        if self._model is None:
            write_bytes(path, self._data, "the model")
            return
        data_path = f"{path}.data"
        saved = self.to_proto()
        with replacing(path, "the model") as temporary:
            with replacing(data_path, "the model's data") as data, open(data, "wb") as file:
                _move_out(saved, TensorReader(self._folder), os.path.basename(data_path), file)
            Path(temporary).write_bytes(saved.SerializeToString())


def _is_one_file(model: ModelProto) -> bool:
    """Whether the model fits a single file: no external data, and below 2 GiB."""
    total = 0
    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            return False
        total += len(tensor.raw_data) if tensor.HasField("raw_data") else tensor.ByteSize()
    return total <= LARGEST_MESSAGE


def _move_out(model: ModelProto, reader: TensorReader, location: str, file: IO[bytes]) -> None:
    """Puts the tensors' data into ``file``, which the model calls ``location``."""
    for tensor in _tensors(model):
        is_external = tensor.data_location == TensorProto.EXTERNAL
        if not is_external and len(tensor.raw_data) < _LEAST_EXTERNAL:
            continue
        file.write(bytes(-file.tell() % _ALIGNMENT))
        offset = file.tell()
        if is_external:
            _copy(tensor, reader, file)
        else:
            file.write(tensor.raw_data)
            tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        del tensor.external_data[:]
        for key, value in (
            ("location", location),
            ("offset", str(offset)),
            ("length", str(file.tell() - offset)),
        ):
            tensor.external_data.add(key=key, value=value)


def _copy(tensor: TensorProto, reader: TensorReader, target: IO[bytes]) -> None:
    """Appends a tensor's external data, piece by piece: it may not fit into memory."""
    path, location, offset, length = reader.external(tensor)
    before = target.tell()
    try:
        with open(path, "rb") as source:
            source.seek(offset)
            if length is None:
                shutil.copyfileobj(source, target)
            while length:
                piece = source.read(min(length, 1 << 24))
                if not piece:
                    break
                target.write(piece)
                length -= len(piece)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InvalidModelError(
            f"external data '{location}' of tensor '{text(tensor.name)}' cannot be read: {why}"
        ) from None
    if length:
        raise InvalidModelError(
            f"external data '{location}' of tensor '{text(tensor.name)}' is cut short: "
            f"{target.tell() - before} bytes are there, {length} more are needed"
        )


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor that may keep its data outside."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)
    for training in model.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)


def _graph_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: NodeProto) -> Iterator[TensorProto]:
    for item in node.attribute:
        if item.type == AttributeProto.TENSOR:
            yield item.t
        elif item.type == AttributeProto.TENSORS:
            yield from item.tensors
        elif item.type == AttributeProto.GRAPH:
            yield from _graph_tensors(item.g)
        elif item.type == AttributeProto.GRAPHS:
            for graph in item.graphs:
                yield from _graph_tensors(graph)
