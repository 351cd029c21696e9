"""Loops that the host drives: the body is planned once for each set of shapes it meets, and kept.

A loop gets here when neither its trip count nor its condition is known before it runs, or it is
too long to unroll. What the body captures and the model knows is a constant of its plan, so weights
stay on the device; what changes from one iteration to the next goes through the host.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Protocol

from vkconv.ir import Array, Graph, Node, constant, type_of
from vkconv.ops.control_flow import Repeated
from vkconv.ops.registry import create

#: plans kept for one body: its inputs may grow from one iteration to the next
BODY_PLANS = 4

DRIVEN = "the host drives the loop, its body is planned on its own"


class Runnable(Protocol):
    """A planned graph."""

    def run(self, feeds: Mapping[str, Array]) -> list[Array]: ...

    def close(self) -> None: ...


def is_loop(node: Node) -> bool:
    return not node.domain and node.op_type in ("Loop", "Scan")


class DrivenLoop:
    """A Loop or Scan node; ``plan`` makes a graph of concrete types runnable."""

    def __init__(self, node: Node, plan: Callable[[Graph], Runnable]) -> None:
        op = create(node)
        assert isinstance(op, Repeated)
        self._op, self._plan = op, plan
        self._plans: OrderedDict[tuple[tuple[int, ...], ...], Runnable] = OrderedDict()
        self._body = op.body.copy()
        #: the body's inputs that are constants of the graph around it
        self._known: set[int] = set()
        first = len(node.inputs) - op.captured
        for position in range(first, len(node.inputs)):
            outer, inner = node.inputs[position], self._body.inputs[position]
            if outer is not None and outer.array is not None:
                fact = constant(inner.name, outer.array)
                inner.type, inner.array = fact.type, fact.array
                self._known.add(position)

    def run(self, inputs: list[Array | None]) -> tuple[Array, ...]:
        """The node's outputs."""
        return self._op.drive(inputs, self._run_body)

    def close(self) -> None:
        for made in self._plans.values():
            made.close()
        self._plans.clear()

    def _run_body(self, arrays: list[Array]) -> list[Array]:
        wanted = [
            (v, a)
            for i, (v, a) in enumerate(zip(self._body.inputs, arrays, strict=True))
            if i not in self._known
        ]
        key = tuple(a.shape for _, a in wanted)
        if key not in self._plans:
            graph = self._body.copy()
            for value, array in zip(graph.inputs, arrays, strict=True):
                if not value.is_constant:
                    value.type = type_of(array)
            graph.inputs = [v for v in graph.inputs if not v.is_constant]
            self._plans[key] = self._plan(graph)
            while len(self._plans) > BODY_PLANS:
                self._plans.popitem(last=False)[1].close()
        self._plans.move_to_end(key)
        return self._plans[key].run({value.name: array for value, array in wanted})
