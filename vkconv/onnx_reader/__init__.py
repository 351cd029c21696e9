"""ONNX model -> Graph. The only room that imports onnx; it knows no operator.

Models are untrusted: sizes are checked before anything is allocated, names must resolve, the graph
must be acyclic, and external data stays inside the model's folder. What is valid ONNX but unknown
here is handed on as ``Opaque``, so that the caller can list all of it.

    __init__    a path, bytes or a ModelProto -> ModelProto
    functions   model-local functions are expanded, within bounds
    standard_functions  operators that only the standard's definition makes runnable become those
    graphs      GraphProto -> values and nodes in order
    tensors     TensorProto -> numpy arrays, external data among them
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from onnx import ModelProto

from vkconv.errors import InvalidModelError
from vkconv.ir import Graph
from vkconv.model_file import LARGEST_FILE, Outline, Weights, read_outline
from vkconv.onnx_reader.functions import inline_functions
from vkconv.onnx_reader.graphs import GraphReader
from vkconv.onnx_reader.standard_functions import IsKnown, expand_definitions

__all__ = ["Source", "open_model", "read_graph", "read_model", "without_functions"]


@dataclass(frozen=True)
class Source:
    """A model as it was given: parsed, where its external data may lie (None: nowhere), what
    messages call it, and whether the ModelProto is the caller's own, which must stay as it is.
    ``weights``: those that are not in it, with tokens in their place."""

    model: ModelProto
    folder: Path | None
    label: str
    is_callers: bool = False
    weights: Weights = field(default_factory=dict)


def read_model(source: Any, is_known: IsKnown | None = None) -> Graph:
    """Read a model from a path, bytes, an outline of these or an onnx.ModelProto. Raises
    InvalidModelError. Large weights stay where they are until somebody wants them.

    With ``is_known`` (domain, op_type) operators that are not, but that the standard defines by
    others, are expanded; and calls of a local function stay where an operator is known for them.
    """
    opened = without_functions(_open(source, apart=True), is_known)
    if is_known is not None:
        model = expand_definitions(opened.model, is_known, opened.label)
        opened = replace(opened, model=model)
    return read_graph(opened)


def open_model(source: Any) -> Source:
    """Parse a model from a path, bytes or an onnx.ModelProto. Raises InvalidModelError."""
    return _open(source, apart=False)


def _open(source: Any, apart: bool) -> Source:
    """As ``open_model``. ``apart``: large weights stay where they are."""
    opened = _parse(source, apart)
    model, label = opened.model, opened.label
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise InvalidModelError(f"{label} holds no graph; is it an ONNX model, and whole?")
    return opened


def without_functions(source: Source, is_known: IsKnown | None = None) -> Source:
    """The model with its local functions expanded; the one given is left as it is."""
    if not source.model.functions:
        return source
    model = inline_functions(source.model, source.label, is_known)
    return replace(source, model=model, is_callers=False)


def read_graph(source: Source) -> Graph:
    """The graph node by node; calls of local functions are nodes of unknown operators."""
    return GraphReader(source.model, source.folder, source.label, weights=source.weights).read()


def _parse(source: Any, apart: bool) -> Source:
    if isinstance(source, ModelProto):
        return Source(source, None, "the model", is_callers=True)
    outline = source if isinstance(source, Outline) else None
    if outline is None and apart:
        with suppress(OSError, ValueError, TypeError, RuntimeError):  # told below
            outline = read_outline(source)
    if outline is not None:
        model = _decode(outline.data, outline.label)
        folder = None if outline.path is None else outline.path.parent.resolve()
        return Source(model, folder, outline.label, weights=outline.weights)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return Source(_decode(bytes(source), "the model"), None, "the model")
    try:
        path = Path(source)
    except TypeError:
        raise InvalidModelError(
            f"a model is a path, bytes or an onnx.ModelProto, not {type(source).__name__}"
        ) from None
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise InvalidModelError(f"'{path}' is larger than 2 GiB; no ONNX file is")
        data = path.read_bytes()
        folder = path.parent.resolve()
    except FileNotFoundError:
        raise InvalidModelError(f"no model file '{path}'; check the path") from None
    except (OSError, ValueError, RuntimeError) as error:
        # ValueError: a null character in the path; RuntimeError: a loop of links
        why = getattr(error, "strerror", None) or error
        raise InvalidModelError(f"model file '{path}' cannot be read: {why}") from None
    return Source(_decode(data, f"'{path}'"), folder, f"'{path}'")


def _decode(data: bytes, label: str) -> ModelProto:
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RuntimeError, ValueError):
        raise InvalidModelError(
            f"{label} is not an ONNX model, or is cut short; export it again or copy it whole"
        ) from None
    return model
