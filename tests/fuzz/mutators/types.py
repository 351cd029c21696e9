"""Inputs and outputs of graphs, and the types that a file declares."""

from __future__ import annotations

from random import Random

from onnx import ModelProto, helper

from tests.fuzz.mutators.parts import (
    ELEMENT_TYPES,
    INTEGERS,
    Mutators,
    graphs,
    known_names,
    some_graph,
)

MUTATORS = Mutators()


@MUTATORS.of_weight(12)
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


@MUTATORS.of_weight(3)
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


@MUTATORS.of_weight(2)
def declare_wrongly(model: ModelProto, random: Random) -> None:
    """A type in value_info that a node does not give its output."""
    graph = some_graph(model, random)
    name = random.choice(known_names(graph))
    shape = [random.choice((1, 2, 3, 1 << 40))] * random.randrange(4)
    graph.value_info.append(
        helper.make_tensor_value_info(name, random.choice((1, 6, 7, 9, 10, 11)), shape)
    )


@MUTATORS.of_weight(3)
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
