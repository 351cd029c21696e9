"""Nodes and what joins them; two models in one."""

from __future__ import annotations

from random import Random

import onnx
from onnx import ModelProto

from tests.fuzz.mutators.parts import (
    INTEGERS,
    Mutators,
    integer,
    known_names,
    some_graph,
    some_node,
)
from tests.fuzz.seeds import all_seeds, seed_names
from vkconv.ops.registry import REGISTRY

MUTATORS = Mutators()


@MUTATORS.of_weight(6)
def change_operator(model: ModelProto, random: Random) -> None:
    node = some_node(model, random)
    node.domain, node.op_type = random.choice(sorted(REGISTRY))
    if random.random() < 0.5:
        del node.attribute[:]


@MUTATORS.of_weight(6)
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


@MUTATORS.of_weight(3)
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


@MUTATORS.of_weight(3)
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


@MUTATORS.of_weight(3)
def change_opset(model: ModelProto, random: Random) -> None:
    if random.random() < 0.8:
        model.opset_import[0].version = random.choice((1, 6, 7, 9, 10, 11, 13, 18, 24, 26, 27, 999))
    else:
        model.opset_import[0].version = random.choice(INTEGERS)
    if random.random() < 0.1:
        model.opset_import.add(domain=random.choice(("", "ai.onnx", "x")), version=integer(random))


@MUTATORS.of_weight(8)
def append_model(model: ModelProto, random: Random) -> None:
    """Another seed's graph behind this one, one of its inputs taken from here."""
    other = onnx.load_from_string(all_seeds()[random.choice(seed_names())])
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
