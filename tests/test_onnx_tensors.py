"""Tensors of a model: data that does not fit, sparse ones, external data that stays inside."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from tests.small_models import floats, model, node
from vkconv.errors import InvalidModelError
from vkconv.ir import Array
from vkconv.onnx_reader import read_model


def with_tensor(tensor: onnx.TensorProto) -> onnx.ModelProto:
    proto = model([node("Identity", "c", "y")], {}, {"y": None})
    proto.graph.initializer.append(tensor)
    return proto


def read(tensor: onnx.TensorProto) -> Array:
    (value,) = read_model(with_tensor(tensor)).nodes[0].inputs
    assert value is not None and value.array is not None
    return value.array


def refused(source: object) -> str:
    with pytest.raises(InvalidModelError) as caught:
        read_model(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "dtype",
    ["float32", "float16", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32",
     "int64", "uint64", "bool"],
)  # fmt: skip
@pytest.mark.parametrize("raw", [True, False])
def test_every_dtype_raw_and_in_fields(dtype: str, raw: bool) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    data = array.tobytes() if raw else array.ravel().tolist()
    found = read(helper.make_tensor("c", kind, [2, 3], data, raw=raw))
    assert found.dtype == array.dtype and np.array_equal(found, array)
    assert not found.flags.writeable


def test_text() -> None:
    found = read(helper.make_tensor("c", TensorProto.STRING, [2], [b"a", "ü".encode()]))
    assert list(found) == ["a", "ü"]


def test_scalars_and_empty_tensors() -> None:
    assert read(numpy_helper.from_array(np.float32(3), "c")).shape == ()
    assert read(helper.make_tensor("c", TensorProto.FLOAT, [0, 5], [])).shape == (0, 5)


@pytest.mark.parametrize("dims", [[7], [2, 2], [], [1 << 40], [1 << 62, 1 << 62], [0]])
@pytest.mark.parametrize("raw", [True, False])
def test_data_that_does_not_fit_the_dims(dims: list[int], raw: bool) -> None:
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT)
    if raw:
        tensor.raw_data = floats(6).tobytes()
    else:
        tensor.float_data.extend([1.0] * 6)
    tensor.dims.extend(dims)
    tracemalloc.start()
    assert "'c'" in refused(with_tensor(tensor))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_negative_dims_and_half_an_element() -> None:
    tensor = numpy_helper.from_array(floats(6), "c")
    tensor.dims[0] = -6
    assert "negative dimension" in refused(with_tensor(tensor))
    tensor = numpy_helper.from_array(floats(6), "c")
    tensor.raw_data = tensor.raw_data[:-1]
    assert "does not fit its data" in refused(with_tensor(tensor))


# --- sparse -------------------------------------------------------------------------------------


def sparse_model(values: Array, indices: Array, dims: list[int]) -> onnx.ModelProto:
    proto = model([node("Identity", "c", "y")], {}, {"y": None})
    sparse = onnx.SparseTensorProto(dims=dims)
    sparse.values.CopyFrom(numpy_helper.from_array(values, "c"))
    sparse.indices.CopyFrom(numpy_helper.from_array(indices, "i"))
    proto.graph.sparse_initializer.append(sparse)
    return proto


@pytest.mark.parametrize("indices", [np.array([1, 3]), np.array([[0, 1], [1, 0]])])
def test_sparse_initializers(indices: Array) -> None:
    graph = read_model(sparse_model(np.array([5, 7], np.float32), indices, [2, 3]))
    (value,) = graph.nodes[0].inputs
    assert value is not None and np.array_equal(value.array, [[0, 5, 0], [7, 0, 0]])


@pytest.mark.parametrize(
    ("values", "indices", "dims"),
    [
        ([5.0, 7.0], [1, 6], [2, 3]),
        ([5.0, 7.0], [-1, 2], [2, 3]),
        ([5.0, 7.0, 8.0], [1, 2], [2, 3]),
        ([5.0, 7.0], [[0, 1], [2, 0]], [2, 3]),
        ([5.0, 7.0], [[0, 1, 2], [1, 0, 0]], [2, 3]),
        ([5.0, 7.0], [1, 2], [1 << 40]),
        ([5.0, 7.0], [1, 2], [-6]),
    ],
)
def test_wrong_sparse_initializers(values: list[float], indices: object, dims: list[int]) -> None:
    wrong = sparse_model(np.array(values, np.float32), np.array(indices, np.int64), dims)
    assert "'c'" in refused(wrong)


# --- external data ------------------------------------------------------------------------------


def external(folder: Path, location: str = "data.bin", **entries: object) -> Path:
    """A model in ``folder`` whose tensor of six floats lies in the file ``location``."""
    tensor = numpy_helper.from_array(floats(2, 3), "c")
    external_data_helper.set_external_data(tensor, location, **entries)
    tensor.ClearField("raw_data")
    path = folder / "model.onnx"
    path.write_bytes(with_tensor(tensor).SerializeToString())
    return path


def found_in(path: Path) -> Array:
    (value,) = read_model(path).nodes[0].inputs
    assert value is not None and value.array is not None
    return value.array


def test_external_data(tmp_path: Path) -> None:
    data = floats(2, 3).tobytes()
    (tmp_path / "data.bin").write_bytes(data)
    assert np.array_equal(found_in(external(tmp_path)), floats(2, 3))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "d").write_bytes(b"x" * 64 + data + b"rest")
    path = external(tmp_path, "sub/d", offset=64, length=24)
    assert np.array_equal(found_in(path), floats(2, 3))


def test_external_data_from_another_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data.bin").write_bytes(floats(2, 3).tobytes())
    external(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(found_in(Path("model.onnx")), floats(2, 3))


def test_external_data_missing_short_or_wrong(tmp_path: Path) -> None:
    assert "'data.bin' of tensor 'c' is missing" in refused(external(tmp_path))
    (tmp_path / "data.bin").write_bytes(floats(5).tobytes())
    assert "cut short" in refused(external(tmp_path))
    (tmp_path / "data.bin").write_bytes(floats(100).tobytes())
    for entries in ({"offset": 390}, {"length": 20}, {"length": 1 << 60}, {"offset": -4}):
        assert "needs 24 bytes" in refused(external(tmp_path, **entries))
    path = external(tmp_path, offset=12345)
    path.write_bytes(path.read_bytes().replace(b"12345", b"1many"))
    assert "no number" in refused(path)


def test_huge_external_tensor_allocates_nothing(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"1234")
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[1 << 50])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="data.bin")
    path = tmp_path / "model.onnx"
    path.write_bytes(with_tensor(tensor).SerializeToString())
    tracemalloc.start()
    assert "cut short" in refused(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    tensor.data_type = TensorProto.STRING
    path.write_bytes(with_tensor(tensor).SerializeToString())
    assert "text cannot be external" in refused(path)


@pytest.mark.parametrize(
    "location", ["../data.bin", "sub/../../data.bin", "", ".", "\0", "a" * 999]
)
def test_external_data_leaves_the_folder_by_name(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "data.bin").write_bytes(floats(2, 3).tobytes())
    message = refused(external(folder, location))
    assert "not in the model's folder" in message or "is missing" in message


def test_external_data_leaves_the_folder_by_absolute_path(tmp_path: Path) -> None:
    inside = tmp_path / "data.bin"
    inside.write_bytes(floats(2, 3).tobytes())
    assert "not in the model's folder" in refused(external(tmp_path, str(inside)))


def test_external_data_leaves_the_folder_by_link(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "data.bin").write_bytes(floats(2, 3).tobytes())
    os.symlink(tmp_path / "data.bin", folder / "data.bin")
    assert "not in the model's folder" in refused(external(folder))
    os.symlink(tmp_path, folder / "sub")
    assert "not in the model's folder" in refused(external(folder, "sub/data.bin"))
    os.symlink("loop", folder / "loop")
    assert "loop" in refused(external(folder, "loop"))
    os.symlink(folder / "inside.bin", folder / "within.bin")
    (folder / "inside.bin").write_bytes(floats(2, 3).tobytes())
    assert np.array_equal(found_in(external(folder, "within.bin")), floats(2, 3))


def test_external_data_without_a_folder(tmp_path: Path) -> None:
    path = external(tmp_path)
    assert "load the model by its path" in refused(path.read_bytes())
    assert "load the model by its path" in refused(onnx.load(path, load_external_data=False))
