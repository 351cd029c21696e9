"""Large weights are read past protobuf: the same graph, in less memory, whatever the file is."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.small_models import floats, model, node
from vkconv.errors import InvalidModelError
from vkconv.ir import Graph
from vkconv.onnx_reader import open_model, read_model, weights
from vkconv.onnx_reader.weights import without_weights

DTYPES = ("float32", "float16", "float64", "int8", "uint8", "int32", "int64", "bool")


@pytest.fixture(autouse=True)
def small_weights_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "LEAST_BYTES", 64)


def with_constants(*arrays: np.ndarray) -> onnx.ModelProto:
    """A model that returns its constants, as the file has them."""
    names = [f"c{i}" for i in range(len(arrays))]
    nodes = [node("Identity", name, f"y{i}") for i, name in enumerate(names)]
    outputs = {f"y{i}": (str(a.dtype), None) for i, a in enumerate(arrays)}
    return model([*nodes, node("Relu", "x", "z")], {"x": [1]}, {**outputs, "z": None},
                 dict(zip(names, arrays, strict=True)))  # fmt: skip


def constants(graph: Graph) -> dict[str, np.ndarray]:
    return {v.name: v.array for v in graph.values() if v.array is not None}


def split(data: bytes) -> tuple[bytes, weights.Weights] | None:
    return without_weights(io.BytesIO(data), len(data))


def test_the_same_arrays_either_way(tmp_path: Path) -> None:
    arrays = [(floats(n, 7) * 50).astype(dtype) for n in (1, 5, 40) for dtype in DTYPES]
    arrays += [np.zeros((0, 3), np.float32), np.array(1.5, np.float32)]
    proto, path = with_constants(*arrays), tmp_path / "net.onnx"
    onnx.save(proto, path)
    apart, whole = constants(read_model(path)), constants(read_model(path.read_bytes()))
    assert set(apart) == set(whole) == {f"c{i}" for i in range(len(arrays))}
    for i, array in enumerate(arrays):
        for found in (apart[f"c{i}"], whole[f"c{i}"]):
            assert found.dtype == array.dtype and found.shape == array.shape
            assert np.array_equal(found, array) and not found.flags.writeable
    assert any(a.base is not None and a.nbytes >= 64 for a in apart.values())


def test_protobuf_sees_no_large_weight(tmp_path: Path) -> None:
    array = floats(64, 64)
    data = with_constants(array, floats(2)).SerializeToString()
    found = split(data)
    assert found is not None
    rest, apart = found
    assert len(rest) < len(data) - array.nbytes + 64
    [(token, raw)] = apart.items()
    assert raw.tobytes() == array.tobytes()
    parsed = onnx.ModelProto.FromString(rest)
    assert [t.raw_data == token for t in parsed.graph.initializer] == [True, False]
    parsed.graph.initializer[0].raw_data = array.tobytes()
    assert parsed == onnx.ModelProto.FromString(data)


def test_tokens_cannot_be_foreseen() -> None:
    data = with_constants(floats(64)).SerializeToString()
    first, second = split(data), split(data)
    assert first is not None and second is not None and set(first[1]) != set(second[1])
    # bytes of a token's length that are none
    proto = with_constants(floats(8), floats(64))
    assert len(proto.graph.initializer[0].raw_data) == weights.TOKEN_BYTES


def test_a_weight_is_used_by_a_function_and_a_definition(tmp_path: Path) -> None:
    proto = with_constants(floats(64))
    proto.functions.append(
        helper.make_function("own", "Twice", ["a"], ["b"], [node("Add", "a a", "b")],
                             [helper.make_opsetid("", 17)])
    )  # fmt: skip
    proto.opset_import.append(helper.make_opsetid("own", 1))
    proto.graph.node.append(helper.make_node("Twice", ["c0"], ["t"], domain="own"))
    proto.graph.output.append(helper.make_tensor_value_info("t", TensorProto.FLOAT, None))
    onnx.save(proto, tmp_path / "net.onnx")
    graph = read_model(tmp_path / "net.onnx", lambda domain, name: domain == "")
    assert np.array_equal(constants(graph)["c0"], floats(64))
    assert "Add" in [n.op_type for n in graph.nodes]


def test_whoever_writes_models_gets_all_of_it(tmp_path: Path) -> None:
    proto, path = with_constants(floats(64)), tmp_path / "net.onnx"
    onnx.save(proto, path)
    assert open_model(path).model == proto


@pytest.mark.parametrize("dims", [[63], [65], [2**40], [-64], []])
def test_a_shape_that_does_not_fit(dims: list[int], tmp_path: Path) -> None:
    proto = with_constants(floats(64))
    proto.graph.initializer[0].dims[:] = dims
    onnx.save(proto, tmp_path / "net.onnx")
    with pytest.raises(InvalidModelError, match="'c0'"):
        read_model(tmp_path / "net.onnx")


def test_text_is_no_raw_data(tmp_path: Path) -> None:
    proto = with_constants(floats(64))
    proto.graph.initializer[0].data_type = TensorProto.STRING
    onnx.save(proto, tmp_path / "net.onnx")
    with pytest.raises(InvalidModelError, match="'c0'"):
        read_model(tmp_path / "net.onnx")


def test_a_file_that_protobuf_reads_differently_is_left_to_it() -> None:
    proto = with_constants(floats(64))
    data = proto.SerializeToString()
    for irregular in (b"", b"\x3b", data[:-1], data + b"\x3a\xff\xff\x7f", data + b"\x0b\x0c"):
        found = split(irregular)
        assert found is None or not irregular.startswith(data)
    assert split(with_constants(floats(2)).SerializeToString()) is None  # nothing large


def test_a_file_of_countless_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MOST_FIELDS", 50)
    data = with_constants(floats(64)).SerializeToString()
    assert split(data) is not None and split(data + b"\x28\x01" * 60) is None


def test_a_graph_in_two_parts_is_one(tmp_path: Path) -> None:
    """protobuf merges a field that comes twice."""
    data = with_constants(floats(64)).SerializeToString()
    more = onnx.ModelProto()
    more.graph.initializer.append(numpy_helper.from_array(floats(80), "more"))
    (tmp_path / "net.onnx").write_bytes(data + more.SerializeToString())
    graph = read_model(tmp_path / "net.onnx")
    assert np.array_equal(constants(graph)["c0"], floats(64))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_damaged_files_end_as_they_do_in_memory(seed: int, count: int) -> None:
    draw = random.Random(seed)
    data = bytearray(with_constants(floats(64), floats(3, 30)).SerializeToString())
    for _ in range(count):
        data[draw.randrange(len(data))] = draw.randrange(256)
    if draw.random() < 0.3:
        del data[draw.randrange(len(data)) :]
    found = split(bytes(data))
    if found is None:
        return
    rest, apart = found
    try:
        whole = onnx.ModelProto.FromString(bytes(data))
    except Exception:
        return  # refused either way: what is left is parsed, too
    parsed = onnx.ModelProto.FromString(rest)
    for tensor in parsed.graph.initializer:
        if tensor.raw_data in apart:
            tensor.raw_data = apart[tensor.raw_data].tobytes()
    assert parsed == whole
