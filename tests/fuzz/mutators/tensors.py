"""Tensors that a file holds: shapes, numbers, element types, where the data lie."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper

from tests.fuzz.mutators.parts import (
    ELEMENT_TYPES,
    INTEGERS,
    LOCATIONS,
    REALS,
    Mutators,
    integer,
    some_graph,
    some_tensor,
)

MUTATORS = Mutators()


@MUTATORS.of_weight(6)
def change_dims(model: ModelProto, random: Random) -> None:
    """A shape that no longer fits the data."""
    tensor = some_tensor(model, random)
    kind = random.randrange(4)
    if kind == 0 or not tensor.dims:
        tensor.dims.append(random.choice((1, 1, 0, 2, -1, 1 << 40)))
    elif kind == 1:
        del tensor.dims[random.randrange(len(tensor.dims))]
    else:
        place = random.randrange(len(tensor.dims))
        tensor.dims[place] = integer(random, tensor.dims[place])


@MUTATORS.of_weight(10)
def resize_tensor(model: ModelProto, random: Random) -> None:
    """Another shape with data that fit it."""
    tensor = some_tensor(model, random)
    array = onnx.numpy_helper.to_array(tensor)
    shape = list(array.shape)
    if shape and random.random() < 0.8:
        place = random.randrange(len(shape))
        shape[place] = random.choice((0, 1, 2, 3, 5, shape[place] + 1, shape[place] * 2))
    else:
        shape.insert(random.randrange(len(shape) + 1), random.choice((1, 1, 2, 0)))
    made = onnx.numpy_helper.from_array(np.resize(array, shape), tensor.name)
    tensor.CopyFrom(made)


@MUTATORS.of_weight(12)
def change_numbers(model: ModelProto, random: Random) -> None:
    """Extreme elements, the shape as it was."""
    tensor = some_tensor(model, random)
    array = onnx.numpy_helper.to_array(tensor).copy()
    flat = array.reshape(-1)
    for _ in range(random.choice((1, 1, 3))):
        place = random.randrange(flat.size)
        if array.dtype.kind in "iu":
            low, high = np.iinfo(array.dtype).min, np.iinfo(array.dtype).max
            flat[place] = min(max(integer(random, int(flat[place])), low), high)
        elif array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                flat[place] = random.choice(REALS)
        elif array.dtype.kind == "b":
            flat[place] = not flat[place]
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


@MUTATORS.of_weight(3)
def cut_data(model: ModelProto, random: Random) -> None:
    tensor = some_tensor(model, random)
    if tensor.raw_data:
        size = len(tensor.raw_data)
        tensor.raw_data = tensor.raw_data[: random.randrange(size)] + b"\0" * random.choice((0, 99))
    else:
        tensor.raw_data = b"\1" * random.choice((1, 4, 8))


@MUTATORS.of_weight(4)
def change_element_type(model: ModelProto, random: Random) -> None:
    """Of a tensor: with its data converted, or in name alone."""
    tensor = some_tensor(model, random)
    if random.random() < 0.6:
        array = onnx.numpy_helper.to_array(tensor)
        wanted = random.choice(("int64", "int32", "float16", "float64", "uint8", "bool", "int8"))
        with np.errstate(all="ignore"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(wanted), tensor.name))
    else:
        tensor.data_type = random.choice(ELEMENT_TYPES)


@MUTATORS.of_weight(4)
def make_external(model: ModelProto, random: Random) -> None:
    tensor = some_tensor(model, random)
    tensor.data_location = TensorProto.EXTERNAL
    if random.random() < 0.8:
        del tensor.external_data[:]
        tensor.external_data.add(key="location", value=random.choice(LOCATIONS))
    for key in ("offset", "length"):
        if random.random() < 0.4:
            value = str(random.choice((*INTEGERS, "x", "1e3", "0x10", "٣")))
            tensor.external_data.add(key=key, value=value)


@MUTATORS.of_weight(3)
def make_sparse(model: ModelProto, random: Random) -> None:
    graph = some_graph(model, random)
    place = random.randrange(len(graph.initializer))
    tensor = graph.initializer[place]
    count = random.choice((0, 1, 2, 3))
    sparse = graph.sparse_initializer.add(dims=tensor.dims)
    sparse.values.CopyFrom(helper.make_tensor(tensor.name, tensor.data_type, [count], [1] * count))
    wide = random.random() < 0.4
    numbers = [integer(random) for _ in range(count * (len(tensor.dims) if wide else 1))]
    shape = [count, len(tensor.dims)] if wide else [count]
    sparse.indices.CopyFrom(helper.make_tensor("", TensorProto.INT64, shape, numbers))
    if random.random() < 0.2:
        sparse.dims.append(integer(random))
    del graph.initializer[place]


@MUTATORS.of_weight(9)
def make_constant_an_input(model: ModelProto, random: Random) -> None:
    """What the model knew, such as indices and sizes, the run decides."""
    graph = model.graph
    place = random.randrange(len(graph.initializer))
    tensor = graph.initializer[place]
    if tensor.name not in [v.name for v in graph.input]:
        graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    del graph.initializer[place]


@MUTATORS.of_weight(5)
def make_input_a_constant(model: ModelProto, random: Random) -> None:
    graph = model.graph
    place = random.randrange(len(graph.input))
    given = graph.input[place].type.tensor_type
    shape = [d.dim_value for d in given.shape.dim]
    dtype = helper.tensor_dtype_to_np_dtype(given.elem_type)
    if any(not 0 <= d <= 64 for d in shape) or np.prod(shape) > 4096 or dtype.kind not in "iufb":
        return
    numbers = np.random.default_rng(random.getrandbits(32)).uniform(-3, 3, shape)
    with np.errstate(all="ignore"):
        array = np.asarray(numbers).astype(dtype)
    graph.initializer.append(onnx.numpy_helper.from_array(array, graph.input[place].name))
    del graph.input[place]
