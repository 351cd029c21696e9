"""ONNX's own tests as data: node tests, and the models that the onnx package ships with data.

Nothing here knows vkconv. ``scope`` says which tests count.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
from onnx import ModelProto, TypeProto, numpy_helper

DATA = Path(onnx.backend.test.__file__).parent / "data"
#: folders of models beside the node tests ("real" only names models to be downloaded)
MODEL_KINDS = ("light", "pytorch-converted", "pytorch-operator", "simple")

#: inputs in the model's order, and what the outputs should be; None is an omitted optional
DataSet = tuple[list[Any], list[Any]]


@dataclass(frozen=True, eq=False)
class ConformanceTest:
    """A model, data for it, and how close its outputs have to be."""

    kind: str
    name: str
    rtol: float
    atol: float
    load_model: Callable[[], ModelProto] = field(repr=False)
    load_data: Callable[[ModelProto], list[DataSet]] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@cache
def all_tests() -> tuple[ConformanceTest, ...]:
    """Every test, by kind and name."""
    found = [*_node_tests(), *(t for kind in MODEL_KINDS for t in _model_tests(kind))]
    return tuple(sorted(found, key=str))


def _node_tests() -> Iterator[ConformanceTest]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        cases = collect_testcases()
    for case in cases:
        yield ConformanceTest(
            "node",
            case.name,
            case.rtol,
            case.atol,
            lambda case=case: case.model,
            lambda _, case=case: [_arrays(data) for data in case.data_sets],
        )


def _model_tests(kind: str) -> Iterator[ConformanceTest]:
    for path in sorted((DATA / kind).iterdir()):
        if path.is_dir():
            settings = path / "data.json"
            given = json.loads(settings.read_text()) if settings.exists() else {}
            file, load_data = path / "model.onnx", _stored_data
        elif path.suffix == ".onnx":
            given, file, load_data = {}, path, _light_data
        else:
            continue
        yield ConformanceTest(
            kind,
            path.stem,
            given.get("rtol", 1e-3),
            given.get("atol", 1e-7),
            lambda file=file: onnx.load(file),
            lambda model, file=file, load_data=load_data: load_data(file, model),
        )


def _stored_data(file: Path, model: ModelProto) -> list[DataSet]:
    sets: list[DataSet] = []
    for folder in sorted(file.parent.glob("test_data_set*")):
        inputs = [
            _load(folder / f"input_{i}.pb", info.type)
            for i, info in enumerate(model.graph.input)
            if (folder / f"input_{i}.pb").exists()
        ]
        outputs = [
            _load(folder / f"output_{i}.pb", info.type) for i, info in enumerate(model.graph.output)
        ]
        sets.append((inputs, outputs))
    return sets


def _light_data(file: Path, model: ModelProto) -> list[DataSet]:
    """Data as ONNX's runner makes it: the numbers from 0 up to 1, in order."""
    known = {tensor.name for tensor in model.graph.initializer}
    inputs = []
    for info in model.graph.input:
        if info.name not in known:
            shape = [d.dim_value or 1 for d in info.type.tensor_type.shape.dim]
            count = int(np.prod(shape))
            inputs.append((np.arange(count).reshape(shape) / count).astype(np.float32))
    outputs = [
        _load(file.with_name(f"{file.stem}_output_{i}.pb"), info.type)
        for i, info in enumerate(model.graph.output)
    ]
    return [(inputs, outputs)]


def _load(file: Path, type_: TypeProto) -> Any:
    data = file.read_bytes()
    if type_.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if type_.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))


def _arrays(data: tuple[Sequence[Any], Sequence[Any]]) -> DataSet:
    """TensorProtos among them as arrays."""
    inputs, outputs = (
        [numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else x for x in side]
        for side in data
    )
    return inputs, outputs
