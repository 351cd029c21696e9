"""Large weights stay in the model's file: the same graph, in less memory, whatever the file is."""

from __future__ import annotations

import gc
import random
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.small_models import floats, model, node
from vkconv import InferenceSession, model_file, plan_cache
from vkconv.errors import InvalidModelError
from vkconv.ir import Graph
from vkconv.model_file import Weights, read_outline
from vkconv.onnx_reader import open_model, read_model
from vkconv.stored_arrays import StoredArray

DTYPES = ("float32", "float16", "float64", "int8", "uint8", "int32", "int64", "bool")


@pytest.fixture(autouse=True)
def small_weights_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "LEAST_BYTES", 64)


def with_constants(*arrays: np.ndarray) -> onnx.ModelProto:
    """A model that returns its constants, as the file has them."""
    names = [f"c{i}" for i in range(len(arrays))]
    nodes = [node("Identity", name, f"y{i}") for i, name in enumerate(names)]
    outputs = {f"y{i}": (str(a.dtype), None) for i, a in enumerate(arrays)}
    return model([*nodes, node("Relu", "x", "z")], {"x": [1]}, {**outputs, "z": None},
                 dict(zip(names, arrays, strict=True)))  # fmt: skip


def constants(graph: Graph) -> dict[str, np.ndarray]:
    return {v.name: v.array for v in graph.values() if v.array is not None}


def split(data: bytes) -> tuple[bytes, Weights] | None:
    found = read_outline(data)
    return None if found is None else (found.data, found.weights)


def test_the_same_arrays_either_way(tmp_path: Path) -> None:
    arrays = [(floats(n, 7) * 50).astype(dtype) for n in (1, 5, 40) for dtype in DTYPES]
    arrays += [np.zeros((0, 3), np.float32), np.array(1.5, np.float32)]
    proto, path = with_constants(*arrays), tmp_path / "net.onnx"
    onnx.save(proto, path)
    found = [constants(read_model(m)) for m in (path, path.read_bytes(), proto)]
    assert all(set(f) == {f"c{i}" for i in range(len(arrays))} for f in found)
    for i, array in enumerate(arrays):
        stored = [isinstance(f[f"c{i}"], StoredArray) for f in found]
        assert stored == [array.nbytes >= 64, array.nbytes >= 64, False]
        for one in (f[f"c{i}"] for f in found):
            assert one.dtype == array.dtype and one.shape == array.shape
            assert np.array_equal(one, array) and not one.flags.writeable


def test_protobuf_sees_no_large_weight(tmp_path: Path) -> None:
    array = floats(64, 64)
    data = with_constants(array, floats(2)).SerializeToString()
    found = split(data)
    assert found is not None
    rest, apart = found
    assert len(rest) < len(data) - array.nbytes + 64
    [(token, raw)] = apart.items()
    assert raw.hold().tobytes() == array.tobytes()
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
    assert len(proto.graph.initializer[0].raw_data) == model_file.TOKEN_BYTES


def test_an_outline_is_named_by_all_but_what_its_weights_hold(tmp_path: Path) -> None:
    def named(*arrays: np.ndarray) -> bytes:
        found = read_outline(with_constants(*arrays).SerializeToString())
        assert found is not None
        return found.digest()

    ours = named(floats(64), floats(3))
    assert ours == named(floats(64), floats(3)), "tokens are drawn"
    assert ours == named(floats(64, seed=1), floats(3))
    others = [
        named(floats(64), floats(3, seed=1)),
        named(floats(65), floats(3)),
        named(floats(8, 8), floats(3)),
        named(floats(64).view(np.int32), floats(3)),
        named(floats(64), floats(3), floats(64)),
        named(floats(3), floats(64)),
    ]
    assert len({ours, *others}) == 7
    path = tmp_path / "net.onnx"
    onnx.save(with_constants(floats(64), floats(3)), path)
    found = read_outline(path)
    assert found is not None and found.digest() == ours


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(with_constants(floats(64), floats(3000)), path)
    graph = read_model(path)
    with open(path, "r+b") as file:
        file.truncate(5000)
    stored = constants(graph)
    assert np.array_equal(stored["c0"], floats(64))
    with pytest.raises(InvalidModelError, match="cut short while it was read"):
        np.asarray(stored["c1"])


def test_a_file_that_is_replaced_is_read_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(with_constants(floats(64)), path)
    graph = read_model(path)
    onnx.save(with_constants(floats(64, seed=1)), tmp_path / "other.onnx")
    (tmp_path / "other.onnx").replace(path)
    assert np.array_equal(constants(graph)["c0"], floats(64))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kept", [False, True])
def test_the_file_is_closed_when_its_weights_are_on_the_device(
    kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VKCONV_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(plan_cache, "SMALLEST_MODEL", 1)
    monkeypatch.setattr(plan_cache, "WORTH_KEEPING", 0.0 if kept else 1e9)
    path = tmp_path / "net.onnx"
    nodes = [node("MatMul", "x a", "h"), node("Relu", "h", "r"), node("MatMul", "r b", "y")]
    constants = {"a": floats(8, 8), "b": floats(8, 8, seed=1)}
    onnx.save(model(nodes, {"x": [1, 8]}, {"y": None}, constants), path)

    def is_open() -> bool:
        return any(f.exists() and f.samefile(path) for f in Path("/proc/self/fd").iterdir())

    gc.disable()  # it would be closed later then, too
    try:
        for _ in range(2):
            with InferenceSession(path):
                assert not is_open()
    finally:
        gc.enable()
    assert bool(list(tmp_path.glob("plans/*"))) == kept
    graph = read_model(path)
    assert is_open()
    del graph


def test_what_is_no_file_has_no_outline(tmp_path: Path) -> None:
    assert read_outline(tmp_path) is None and read_outline(b"") is None
    assert read_outline(tmp_path / "none") is None
    with pytest.raises(TypeError):
        read_outline(3)


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
    monkeypatch.setattr(model_file, "MOST_FIELDS", 50)
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
            tensor.raw_data = apart[tensor.raw_data].hold().tobytes()
    assert parsed == whole
