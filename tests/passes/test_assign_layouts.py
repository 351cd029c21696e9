"""Layouts and places: few conversions, each made once, and a reason for what runs on the host."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from tests.passes.rewriting import operators, rewritten
from tests.small_models import floats, model, node
from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import Dispatch
from vkconv.ir import Graph, Node, TensorType, Value
from vkconv.ops.lowering import Lowering
from vkconv.ops.operator import Operator
from vkconv.passes import assign_layouts
from vkconv.passes.assign_layouts import host_reason

X = {"x": [1, 4, 6, 6]}
W = {"w": floats(4, 4, 1, 1), "c": floats(4, 1, 1)}
CAPS = DeviceCaps()


def placed(nodes: list, outputs: tuple[str, ...] = ("y",), inputs: dict | None = None,
           constants: dict | None = None, caps: DeviceCaps = CAPS) -> Graph:  # fmt: skip
    proto = model(nodes, inputs or X, dict.fromkeys(outputs), W | (constants or {}))
    graph = rewritten(proto, lambda _: None)
    assign_layouts(graph, caps)
    return graph


def test_one_conversion_in_and_one_out() -> None:
    nodes = [node("Conv", "x w", "a"), node("Add", "a c", "b"), node("Conv", "b w", "y")]
    graph = placed(nodes)
    assert operators(graph) == ["ToC4+", "Conv", "Add", "Conv", "ToLinear+"]
    assert graph.outputs[0].layout == "linear"
    assert {v.layout for n in graph.nodes[1:4] for v in n.outputs} == {"c4"}


def test_a_value_is_converted_once_however_many_read_it() -> None:
    nodes = [node("Conv", "x w", "a"), node("Conv", "x w", "b"), node("Flatten", "a", "f"),
             node("Flatten", "a", "g"), node("Add", "a b", "y")]  # fmt: skip
    graph = placed(nodes, ("f", "g", "a", "y"))
    assert operators(graph).count("ToC4+") == 1
    # of a (for both flattenings and as output), and of y
    assert operators(graph).count("ToLinear+") == 2


def test_a_conversion_is_not_undone() -> None:
    nodes = [node("Conv", "x w", "a"), node("Add", "x a", "b"), node("Relu", "x", "r"),
             node("Conv", "r w", "y")]  # fmt: skip
    graph = placed(nodes, ("b", "y"))
    assert "ToLinear+" not in [operators(graph)[0]] and operators(graph).count("ToC4+") == 2


def test_graph_without_convolutions_is_linear() -> None:
    graph = placed([node("Relu", "x", "a"), node("Add", "a c", "y")])
    assert operators(graph) == ["Relu", "Add"]


class Stub(Operator):
    """Takes float32 on the device; its second input has to be a constant."""

    constant_inputs: ClassVar[frozenset[int]] = frozenset({1})
    linear_inputs: ClassVar[frozenset[int]] = frozenset({2})

    def lower(self, ctx: Lowering, inputs: Any, outputs: Any) -> list[Dispatch]:
        return []


@pytest.mark.parametrize(
    ("dtypes", "result", "reason"),
    [
        (["float32"], "float32", None),
        (["float64"], "float32", "no kernel for float64"),
        (["float32", "float32"], "float32", "'input_1' is computed by the model"),
        (["float32", None, "int64"], "float32", None),
        (["float32", None, "float64"], "float32", "no kernel for float64"),
        (["float32"], "int64", "no kernel for int64"),
        (["float32"], "string", "no kernel for string"),
    ],
)
def test_reasons_for_the_host(dtypes: list[str | None], result: str, reason: str | None) -> None:
    values = [
        None if dtype is None else Value(f"input_{i}", TensorType(dtype, (2,)))
        for i, dtype in enumerate(dtypes)
    ]
    made = Node("Stub", values, [Value("y", TensorType(result, (2,)))])
    found = host_reason(Stub(), made, CAPS)
    assert (found is None) if reason is None else reason in (found or "")
    assert host_reason(Stub(), made, DeviceCaps(host_only=True)) is not None


def test_operators_without_kernel_say_so() -> None:
    made = Node("Nothing", [], [Value("y", TensorType("float32", (2,)))])
    assert host_reason(Operator(), made, CAPS) == "Nothing has no kernel"


def test_host_nodes_read_and_write_linear() -> None:
    nodes = [node("Conv", "x w", "a"), node("Cast", "a", "d", to=11), node("Mul", "d d", "m"),
             node("Cast", "m", "f", to=1), node("Conv", "f w", "y")]  # fmt: skip
    graph = placed(nodes)
    hosts = [n for n in graph.nodes if n.host_reason]
    assert "Mul" in [n.op_type for n in hosts]
    assert all(v.layout == "linear" for n in hosts for v in (*n.present_inputs, *n.outputs))


def test_reference_device_converts_nothing() -> None:
    nodes = [node("Conv", "x w", "y")]
    graph = placed(nodes, caps=DeviceCaps(host_only=True))
    assert operators(graph) == ["Conv"] and graph.nodes[0].host_reason


def test_constants_are_never_converted() -> None:
    nodes = [node("Conv", "x w", "a"), node("Concat", "a k", "y", axis=1)]
    graph = placed(nodes, constants={"k": np.ones((1, 3, 6, 6), np.float32)})
    assert operators(graph) == ["ToC4+", "Conv", "Concat", "ToLinear+"]
