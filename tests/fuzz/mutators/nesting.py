"""Graphs inside graphs, local functions, loops; metadata."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, helper

from tests.fuzz.mutators.parts import Mutators, integer, some_node

MUTATORS = Mutators()


@MUTATORS.of_weight(2)
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


@MUTATORS.of_weight(2)
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


@MUTATORS.of_weight(2)
def change_trips(model: ModelProto, random: Random) -> None:
    """A loop of many rounds."""
    for tensor in model.graph.initializer:
        if tensor.name in ("trips", "n"):
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(np.array(integer(random, 100)), tensor.name)
            )


@MUTATORS.of_weight(1)
def change_metadata(model: ModelProto, random: Random) -> None:
    key = random.choice(("vkconv.head", "vkconv.classes", "names", "stride", "task", "imgsz"))
    model.metadata_props.add(key=key, value=random.choice(("{0: 'a'}", "[" * 9000, "yolov7", "{")))
