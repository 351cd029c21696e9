"""Small changes to a model that exporters never make, and people with bad intent may.

Each mutator takes a ModelProto and a random source, and changes the model in place. All are
seeded: ``mutant(n)`` is the same for the same n. A mutant is what two or three of them made of a
seed model; some are damaged as bytes afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import EncodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from tests.fuzz.seeds import all_seeds
from vkconv.ops.base import REGISTRY

INTEGERS = (
    0, 1, -1, 2, 3, 5, 7, -2, 16, 17, 255, 256, 1 << 15, 65536, 1 << 20, 1 << 24, (1 << 31) - 1,
    1 << 31, -(1 << 31), -(1 << 31) - 1, 1 << 32, 1 << 40, (1 << 62), (1 << 63) - 1, -(1 << 63),
)  # fmt: skip
REALS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-20, 3.4e38, -3.4e38, float("nan"), float("inf"),
         float("-inf"), 2.0**31, 2.0**63, 1e9)  # fmt: skip
WORDS = (
    *("", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", "linear", "nearest", "cubic", "bilinear"),
    *("zeros", "border", "reflection", "constant", "reflect", "edge", "wrap", "add", "mul", "max"),
    *("min", "none", "asymmetric", "align_corners", "tf_crop_and_resize", "floor", "ij,jk->ik"),
    *("...i->i...", "ii->", "DCR", "CRD", "none\nnone", "\x00", "a" * 5000),
)
LOCATIONS = ("data.bin", "../secret.bin", "/etc/passwd", "link.bin", "sub/../data.bin", "sub", "",
             "a" * 5000, "data.bin\x00.txt", "loop", "./data.bin", "//data.bin", "~/x", "fifo",
             "up/secret.bin")  # fmt: skip
ELEMENT_TYPES = tuple(range(0, 27))

Mutator = Callable[[ModelProto, Random], None]
MUTATORS: list[tuple[int, Mutator]] = []


def mutates(weight: int) -> Callable[[Mutator], Mutator]:
    def register(mutator: Mutator) -> Mutator:
        MUTATORS.append((weight, mutator))
        return mutator

    return register


def mutant(number: int) -> tuple[str, bytes]:
    """The mutant of that number: the seed it was made of, and the file."""
    random = Random(number)
    seeds = all_seeds()
    name = random.choice(_names())
    data = seeds[name]
    proto = onnx.load_from_string(data)
    for mutator in random.choices(_FUNCTIONS, _WEIGHTS, k=random.choice((0, 1, 1, 1, 2, 2, 3, 5))):
        try:
            mutator(proto, random)
        except Exception:
            continue  # there is nothing of the kind in this model, or an earlier change forbids it
    try:
        made = proto.SerializeToString()
    except (EncodeError, ValueError):
        made = data
    return name, damaged(made, random) if random.random() < 0.04 else made


def damaged(data: bytes, random: Random) -> bytes:
    """Bytes flipped, cut, doubled or put in."""
    found = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        position = random.randrange(len(found) or 1)
        kind = random.randrange(5)
        if kind == 0 and found:
            found[position] ^= 1 << random.randrange(8)
        elif kind == 1:
            del found[position:]
        elif kind == 2:
            found[position:position] = random.randbytes(random.choice((1, 4, 9)))
        elif kind == 3:
            found[position:position] = found[position : position + random.randrange(40)]
        elif found:
            found[position] = random.choice((0, 0x7F, 0x80, 0xFF))
    return bytes(found)


_SEED_NAMES: list[str] = []


def _names() -> list[str]:
    if not _SEED_NAMES:
        _SEED_NAMES.extend(all_seeds())
    return _SEED_NAMES


# --- parts of a model -----------------------------------------------------------------------------


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and those its nodes hold."""
    yield graph
    for node in graph.node:
        for item in node.attribute:
            if item.type == AttributeProto.GRAPH:
                yield from graphs(item.g)


def some_graph(model: ModelProto, random: Random) -> GraphProto:
    return random.choice(list(graphs(model.graph)))


def some_node(model: ModelProto, random: Random) -> NodeProto:
    return random.choice([n for g in graphs(model.graph) for n in g.node])


def some_attribute(model: ModelProto, random: Random, *kinds: int) -> AttributeProto:
    found = [a for g in graphs(model.graph) for n in g.node for a in n.attribute]
    return random.choice([a for a in found if not kinds or a.type in kinds])


def some_tensor(model: ModelProto, random: Random) -> TensorProto:
    found = [t for g in graphs(model.graph) for t in g.initializer]
    found += [a.t for g in graphs(model.graph) for n in g.node for a in n.attribute if a.type == 4]
    return random.choice(found)


def known_names(graph: GraphProto) -> list[str]:
    names = [v.name for v in graph.input] + [t.name for t in graph.initializer]
    return names + [o for n in graph.node for o in n.output if o]


def integer(random: Random, near: int = 0) -> int:
    """A number close to the one there was, or an extreme one."""
    if random.random() < 0.6:
        return max(-(1 << 63), min((1 << 63) - 1, near + random.choice((-3, -2, -1, 1, 2, 3, 8))))
    return random.choice(INTEGERS)


# --- attributes -----------------------------------------------------------------------------------


@mutates(14)
def change_integer(model: ModelProto, random: Random) -> None:
    item = some_attribute(model, random, AttributeProto.INT, AttributeProto.INTS)
    if item.type == AttributeProto.INT:
        item.i = integer(random, item.i)
    else:
        place = random.randrange(len(item.ints))
        item.ints[place] = integer(random, item.ints[place])


@mutates(4)
def change_length(model: ModelProto, random: Random) -> None:
    item = some_attribute(model, random, AttributeProto.INTS, AttributeProto.FLOATS)
    numbers: Any = item.ints if item.type == AttributeProto.INTS else item.floats
    if random.random() < 0.5:
        numbers.pop()
    else:
        numbers.extend([random.choice((0, 1, 2))] * random.choice((1, 1, 2, 40)))


@mutates(4)
def change_real(model: ModelProto, random: Random) -> None:
    item = some_attribute(model, random, AttributeProto.FLOAT, AttributeProto.FLOATS)
    if item.type == AttributeProto.FLOAT:
        item.f = random.choice(REALS)
    else:
        item.floats[random.randrange(len(item.floats))] = random.choice(REALS)


@mutates(5)
def change_word(model: ModelProto, random: Random) -> None:
    item = some_attribute(model, random, AttributeProto.STRING)
    item.s = random.choice(WORDS).encode() if random.random() < 0.95 else b"\xff\xfe"


@mutates(3)
def change_attribute_type(model: ModelProto, random: Random) -> None:
    some_attribute(model, random).type = random.randrange(15)


@mutates(3)
def drop_attribute(model: ModelProto, random: Random) -> None:
    node = some_node(model, random)
    del node.attribute[random.randrange(len(node.attribute))]


@mutates(4)
def add_attribute(model: ModelProto, random: Random) -> None:
    """One that the operator has, as often as not, with a value of a likely type."""
    node = some_node(model, random)
    name = random.choice(("axis", "axes", "to", "group", "pads", "keepdims", "unknown", "body"))
    operator = REGISTRY.get((node.domain, node.op_type))
    if operator is not None and random.random() < 0.8:
        fields = list(getattr(operator, "__dataclass_fields__", {})) or [name]
        name = random.choice(fields)
    values: list[Any] = [integer(random), [integer(random)] * random.choice((1, 2, 4)), 0.5, "SAME"]
    node.attribute.append(helper.make_attribute(name, random.choice(values)))


# --- tensors --------------------------------------------------------------------------------------


@mutates(6)
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


@mutates(10)
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


@mutates(12)
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


@mutates(3)
def cut_data(model: ModelProto, random: Random) -> None:
    tensor = some_tensor(model, random)
    if tensor.raw_data:
        size = len(tensor.raw_data)
        tensor.raw_data = tensor.raw_data[: random.randrange(size)] + b"\0" * random.choice((0, 99))
    else:
        tensor.raw_data = b"\1" * random.choice((1, 4, 8))


@mutates(4)
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


@mutates(4)
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


@mutates(3)
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


@mutates(9)
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


@mutates(5)
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


# --- inputs, outputs, declared types --------------------------------------------------------------


@mutates(12)
def change_input_shape(model: ModelProto, random: Random) -> None:
    infos = random.choice(list(graphs(model.graph))).input
    shape = random.choice(infos).type.tensor_type.shape
    kind = random.randrange(8)
    if kind == 0:
        shape.dim.add(dim_value=random.choice((1, 2, 0)))
    elif kind == 1:
        del shape.dim[random.randrange(len(shape.dim))]
    elif kind == 2:
        shape.dim[random.randrange(len(shape.dim))].dim_param = random.choice(("N", "M", ""))
    elif kind == 3:
        shape.dim[random.randrange(len(shape.dim))].Clear()
    else:
        dim = shape.dim[random.randrange(len(shape.dim))]
        small = random.random() < 0.8
        wanted = dim.dim_value + random.choice((-2, -1, 1, 2, 3, 8))
        dim.dim_value = wanted if small else random.choice(INTEGERS)


@mutates(3)
def change_declared_type(model: ModelProto, random: Random) -> None:
    graph = some_graph(model, random)
    found = random.choice([*graph.input, *graph.output, *graph.value_info])
    kind = random.randrange(4)
    if kind == 0:
        found.type.sequence_type.elem_type.tensor_type.elem_type = 1
    elif kind == 1:
        found.type.tensor_type.ClearField("shape")
    else:
        found.type.tensor_type.elem_type = random.choice(ELEMENT_TYPES)


@mutates(2)
def declare_wrongly(model: ModelProto, random: Random) -> None:
    """A type in value_info that a node does not give its output."""
    graph = some_graph(model, random)
    name = random.choice(known_names(graph))
    shape = [random.choice((1, 2, 3, 1 << 40))] * random.randrange(4)
    graph.value_info.append(
        helper.make_tensor_value_info(name, random.choice((1, 6, 7, 9, 10, 11)), shape)
    )


@mutates(3)
def change_outputs(model: ModelProto, random: Random) -> None:
    graph = some_graph(model, random)
    kind = random.randrange(3)
    if kind == 0:
        del graph.output[random.randrange(len(graph.output))]
    elif kind == 1:
        graph.output.append(helper.make_tensor_value_info("nowhere", 1, None))
    else:
        name = random.choice(known_names(graph))
        graph.output.append(helper.make_tensor_value_info(name, 1, None))


# --- nodes ----------------------------------------------------------------------------------------


@mutates(6)
def change_operator(model: ModelProto, random: Random) -> None:
    node = some_node(model, random)
    node.domain, node.op_type = random.choice(sorted(REGISTRY))
    if random.random() < 0.5:
        del node.attribute[:]


@mutates(6)
def change_node_input(model: ModelProto, random: Random) -> None:
    graph = some_graph(model, random)
    node = random.choice(graph.node)
    kind = random.randrange(6)
    place = random.randrange(len(node.input) or 1)
    if kind == 0:
        del node.input[place]
    elif kind == 1:
        node.input[place] = random.choice(("", "dangling", "\x00", "a" * 3000))
    elif kind == 2:
        node.input.append(random.choice([*known_names(graph), ""]))
    elif kind == 3:
        node.input[place] = random.choice(graph.node).output[0]  # a cycle, often
    else:
        node.input[place] = random.choice(known_names(graph))


@mutates(3)
def change_node_output(model: ModelProto, random: Random) -> None:
    graph = some_graph(model, random)
    node = random.choice(graph.node)
    kind = random.randrange(4)
    if kind == 0:
        node.output.append(random.choice(("new", "", node.output[0])))
    elif kind == 1:
        del node.output[random.randrange(len(node.output))]
    else:
        node.output[random.randrange(len(node.output))] = random.choice([*known_names(graph), ""])


@mutates(3)
def change_nodes(model: ModelProto, random: Random) -> None:
    graph = some_graph(model, random)
    kind = random.randrange(4)
    if kind == 0:
        del graph.node[random.randrange(len(graph.node))]
    elif kind == 1:
        graph.node.append(random.choice(graph.node))
    elif kind == 2:
        nodes = list(graph.node)
        random.shuffle(nodes)
        del graph.node[:]
        graph.node.extend(nodes)
    else:
        some_node(model, random).name = random.choice(("", "x", "\x1b[31m", "\n", "a" * 3000))


@mutates(3)
def change_opset(model: ModelProto, random: Random) -> None:
    if random.random() < 0.8:
        model.opset_import[0].version = random.choice((1, 6, 7, 9, 10, 11, 13, 18, 24, 26, 27, 999))
    else:
        model.opset_import[0].version = random.choice(INTEGERS)
    if random.random() < 0.1:
        model.opset_import.add(domain=random.choice(("", "ai.onnx", "x")), version=integer(random))


@mutates(8)
def append_model(model: ModelProto, random: Random) -> None:
    """Another seed's graph behind this one, one of its inputs taken from here."""
    other = onnx.load_from_string(all_seeds()[random.choice(_names())])
    prefix = f"p{random.randrange(1000)}/"
    joined = onnx.compose.add_prefix(other, prefix).graph
    outputs = [o for n in model.graph.node for o in n.output if o]
    taken = random.choice(joined.input)
    source = random.choice(outputs)
    for node in joined.node:
        for i, name in enumerate(node.input):
            if name == taken.name:
                node.input[i] = source
    model.graph.node.extend(joined.node)
    model.graph.initializer.extend(joined.initializer)
    model.graph.input.extend(v for v in joined.input if v.name != taken.name)
    model.graph.output.extend(joined.output)
    model.opset_import[0].version = max(
        model.opset_import[0].version, other.opset_import[0].version
    )


# --- graphs inside graphs -------------------------------------------------------------------------


@mutates(2)
def nest(model: ModelProto, random: Random) -> None:
    """The whole graph as a branch of an If, of an If, ..."""
    depth = random.choice((1, 1, 2, 3, 30, 99))
    graph = model.graph
    condition = onnx.numpy_helper.from_array(np.array(random.random() < 0.5), "nest/condition")
    inputs, outputs = list(graph.input), list(graph.output)
    inner = GraphProto()
    inner.CopyFrom(graph)
    del inner.input[:]
    for level in range(depth):
        names = [f"nest/{level}/{i}" for i in range(len(outputs))]
        node = helper.make_node("If", ["nest/condition"], names, f"nest/{level}")
        # a copy of both branches at every level would be a model of 2 ** depth nodes
        light = helper.make_graph(
            [helper.make_node("Identity", ["nest/condition"], [f"{n}/no"]) for n in names],
            "no", [], [helper.make_tensor_value_info(f"{n}/no", 9, []) for n in names],
        )  # fmt: skip
        node.attribute.append(helper.make_attribute("then_branch", inner))
        node.attribute.append(helper.make_attribute("else_branch", light))
        inner = helper.make_graph(
            [node], "nest", [], [helper.make_tensor_value_info(n, 1, None) for n in names]
        )
    inner.input.extend(inputs)
    if random.random() < 0.6:
        inner.initializer.append(condition)
    else:
        inner.input.append(helper.make_tensor_value_info("nest/condition", 9, []))
    model.graph.CopyFrom(inner)


@mutates(2)
def add_functions(model: ModelProto, random: Random) -> None:
    """Local functions that call themselves, each other in a ring, or each other many times."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ring", 1)]
    count = random.choice((1, 2, 5, 30, 120))
    calls = random.choice((1, 1, 2, 5))
    closed = random.random() < 0.5
    for i in range(count):
        last = i == count - 1
        target = "F0" if closed else "Relu"
        name, domain = (target, "ring" if closed else "") if last else (f"F{i + 1}", "ring")
        nodes = [
            helper.make_node(name, [f"t{j}"], [f"t{j + 1}"], domain=domain) for j in range(calls)
        ]
        model.functions.append(
            helper.make_function("ring", f"F{i}", ["t0"], [f"t{calls}"], nodes, imports)
        )
    model.opset_import.add(domain="ring", version=1)
    node = some_node(model, random)
    if random.random() < 0.9:
        node.domain, node.op_type = "ring", "F0"


@mutates(2)
def change_trips(model: ModelProto, random: Random) -> None:
    """A loop of many rounds."""
    for tensor in model.graph.initializer:
        if tensor.name in ("trips", "n"):
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(np.array(integer(random, 100)), tensor.name)
            )


@mutates(1)
def change_metadata(model: ModelProto, random: Random) -> None:
    key = random.choice(("vkconv.head", "vkconv.classes", "names", "stride", "task", "imgsz"))
    model.metadata_props.add(key=key, value=random.choice(("{0: 'a'}", "[" * 9000, "yolov7", "{")))


_WEIGHTS = [weight for weight, _ in MUTATORS]
_FUNCTIONS = [mutator for _, mutator in MUTATORS]

__all__ = ["MUTATORS", "damaged", "mutant"]
