"""What the tests of the passes share: a model before and after, by operators and by numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx

from tests.small_models import assert_same, expected
from vkconv import passes
from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import HostStep
from vkconv.ir import Array, Graph
from vkconv.onnx_reader import read_model
from vkconv.plan import ConstantStore, make_plan

Pass = Callable[[Graph], None]


def rewritten(proto: onnx.ModelProto, *run: Pass) -> Graph:
    """The graph after type inference and these passes (all when none is given)."""
    graph = read_model(proto)
    passes.infer_and_fold(graph)
    for one in run or passes.PASSES:
        one(graph)
        graph.keep_live()
    passes.infer_and_fold(graph)
    return graph


def operators(graph: Graph) -> list[str]:
    """Operators in order; those of this package's own domain with a plus."""
    return [n.op_type + "+" * bool(n.domain) for n in graph.nodes]


def evaluate(graph: Graph, feeds: Mapping[str, Array]) -> list[Array]:
    """The graph's outputs by numpy: ``reference`` of each node."""
    passes.finish(graph, caps := DeviceCaps(kind="reference", host_only=True))
    plan = make_plan(graph, caps, ConstantStore())
    known: dict[str, Array] = dict(feeds)
    for step in plan.steps:
        assert isinstance(step, HostStep)
        arrays = [
            x if x is None or isinstance(x, np.ndarray) else known[x.name] for x in step.inputs
        ]
        results = step.compute(*arrays)
        tuples = results if isinstance(results, (tuple, list)) else (results,)
        known.update({y.name: a for y, a in zip(step.outputs, tuples, strict=True)})
    return [
        port.place if isinstance(port.place, np.ndarray) else known[port.place.name]
        for port in plan.outputs
    ]


def check(proto: onnx.ModelProto, wanted: list[str], *run: Pass) -> Graph:
    """After these passes the model has these operators, and means the same."""
    graph = rewritten(proto, *run)
    assert operators(graph) == wanted
    assert graph.output_names == [o.name for o in proto.graph.output]
    random = np.random.default_rng(5)
    feeds = {
        v.name: np.asarray(random.standard_normal(v.dims) * 2).astype(v.dtype) for v in graph.inputs
    }
    assert_same(evaluate(graph.copy(), feeds), expected(proto, feeds))
    return graph
