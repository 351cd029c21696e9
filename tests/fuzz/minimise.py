"""A smaller model with the same finding: parts are taken away while it stays."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from tests.fuzz.mutators import graphs
from tests.fuzz.trials import Laboratory


def minimise_file(path: Path) -> str:
    """Writes ``NAME.min.onnx`` beside the file; returns what it found there, in words."""
    data = path.read_bytes()
    with tempfile.TemporaryDirectory() as folder, Laboratory(Path(folder)) as laboratory:

        def kind(candidate: bytes) -> str:
            return _kind(laboratory.model(candidate, fuse=True).finding)

        wanted = kind(data)
        if not wanted:
            return f"'{path}' is no finding (any more)"
        found = smaller(data, lambda candidate: kind(candidate) == wanted)
    target = path.with_suffix(".min.onnx")
    target.write_bytes(found)
    return f"'{target}': {len(data)} -> {len(found)} bytes, {wanted}"


def _kind(finding: str) -> str:
    """The error and its line, without the message."""
    return ": ".join(finding.split(": ")[:1])[:120]


def smaller(data: bytes, holds: object) -> bytes:
    """As few parts as ``holds`` of; a file that is no protobuf stays as it is."""
    assert callable(holds)
    try:
        onnx.load_from_string(data)
    except (DecodeError, RuntimeError):
        return data
    changed = True
    while changed:
        changed = False
        for candidate in _reductions(data):
            if len(candidate) < len(data) and holds(candidate):
                data, changed = candidate, True
                break
    return data


def _reductions(data: bytes) -> Iterator[bytes]:
    """The model without one of its parts."""
    model = onnx.load_from_string(data)
    count = sum(1 for _ in graphs(model.graph))
    for index in range(count):
        for part in ("node", "initializer", "input", "output", "value_info", "sparse_initializer"):
            graph = list(graphs(model.graph))[index]
            for place in range(len(getattr(graph, part))):
                copy = onnx.load_from_string(data)
                del getattr(list(graphs(copy.graph))[index], part)[place]
                yield copy.SerializeToString()
        for place, node in enumerate(list(graphs(model.graph))[index].node):
            for item in range(len(node.attribute)):
                copy = onnx.load_from_string(data)
                del list(graphs(copy.graph))[index].node[place].attribute[item]
                yield copy.SerializeToString()
    for part in ("functions", "metadata_props"):
        for place in range(len(getattr(model, part))):
            copy = onnx.load_from_string(data)
            del getattr(copy, part)[place]
            yield copy.SerializeToString()
