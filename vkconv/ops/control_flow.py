"""If, Loop and Scan: nodes that hold graphs.

The graphs are closed: the reader made what they capture into further inputs, the last ``captured``
ones of the node and of each graph. Where what decides them is known, the nodes of the graph take
the node's place (``passes.inline_control_flow``). An If that is decided in a run is a matter of
the stages; a loop then runs on the host, its body on the device (``loops``): ``drive`` is the part
of it that knows the standard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import TypeAlias

import numpy as np

from vkconv.errors import InvalidInputError, InvalidModelError, UnsupportedModelError, VkconvError
from vkconv.ir import Array, Graph, TensorType, Value
from vkconv.ops.operator import Operator, UnknownShapeError, as_tuple
from vkconv.ops.registry import create, operator

#: runs a graph once: its inputs in order to its outputs in order
RunGraph: TypeAlias = Callable[[list[Array]], list[Array]]

#: a loop that goes on longer ends with an error: models are untrusted, and no exporter's loop does
MOST_ITERATIONS = 10_000_000


def evaluate(graph: Graph, arrays: Sequence[Array]) -> list[Array]:
    """The outputs of a graph by the operators' ``reference``."""
    known = dict(zip(graph.inputs, arrays, strict=True))

    def array_of(value: Value) -> Array:
        return known[value] if value.array is None else value.array

    for node in graph.nodes:
        given = [None if v is None else array_of(v) for v in node.inputs]
        try:
            results = as_tuple(create(node).reference(*given))
        except VkconvError as error:
            raise type(error)(f"{node}: {error}") from None
        known.update(zip(node.outputs, map(np.asarray, results), strict=False))
    return [array_of(value) for value in graph.outputs]


def flag(array: Array, what: str) -> bool:
    """The one element of a condition."""
    if array.size != 1:
        raise InvalidModelError(f"{what} has shape {array.shape}, not a scalar's")
    return bool(array.reshape(()))


def trip_count(trips: Array | None) -> int | None:
    """How often a loop runs at most; None where its condition alone ends it."""
    if trips is None:
        return None
    if trips.size != 1:
        raise InvalidModelError(f"the trip count has shape {trips.shape}, not a scalar's")
    return int(trips.reshape(()))


@operator("If", since=(1, 11, 13, 16, 19, 21, 23, 24, 25))
class If(Operator):
    """The outputs of ``then_branch`` where the condition holds, else those of ``else_branch``."""

    then_branch: Graph
    else_branch: Graph
    captured: int = 0

    def infer(self, cond: Value, *captured: Value) -> tuple[TensorType, ...]:
        self.check(len(captured))
        raise UnknownShapeError(f"condition '{cond.name}' is computed by the model", cond)

    def check(self, given: int) -> None:
        """``given``: how many inputs the node has behind the condition."""
        for name, branch in (("then", self.then_branch), ("else", self.else_branch)):
            if len(branch.outputs) != self.output_count or len(branch.inputs) != given:
                raise InvalidModelError(
                    f"its {name}_branch has {len(branch.inputs) - self.captured} inputs and "
                    f"{len(branch.outputs)} outputs, not none and {self.output_count}"
                )

    def branch(self, cond: Array) -> Graph:
        return self.then_branch if flag(cond, "the condition") else self.else_branch

    def reference(self, cond: Array, *captured: Array) -> tuple[Array, ...]:
        return tuple(evaluate(self.branch(cond), captured))


class Repeated(Operator):
    """Loop and Scan: a body that runs any number of times."""

    body: Graph
    captured: int

    def drive(self, inputs: Sequence[Array | None], run: RunGraph) -> tuple[Array, ...]:
        """The outputs of the node, where ``run`` runs the body."""
        raise NotImplementedError

    def reference(self, *inputs: Array | None) -> tuple[Array, ...]:
        return self.drive(inputs, lambda arrays: evaluate(self.body, arrays))

    def _check(self, inputs: int, outputs: int, given: int) -> None:
        """The body takes ``inputs``, and gives one more output than the node where it decides."""
        if len(self.body.inputs) != given or len(self.body.outputs) != outputs or inputs < 0:
            raise InvalidModelError(
                f"its body has {len(self.body.inputs) - self.captured} inputs and "
                f"{len(self.body.outputs)} outputs, which do not fit the node's "
                f"{given - self.captured} and {self.output_count}"
            )


@operator("Loop", since=(1, 11, 13, 16, 19, 21, 23, 24, 25))
class Loop(Repeated):
    """While the condition holds, at most ``trips`` times: (condition, v, scans) = body(i, c, v).

    The outputs are the last v, and each of the scans of all iterations stacked along a new axis 0.
    """

    body: Graph
    captured: int = 0

    def infer(
        self, trips: Value | None = None, cond: Value | None = None, *rest: Value
    ) -> tuple[TensorType, ...]:
        self.check(len(rest) + 2)
        raise UnknownShapeError("how often a loop runs, and what it makes, depends on its body")

    def check(self, given: int) -> None:
        """``given``: how many inputs the node has."""
        self._check(given - 2 - self.captured, 1 + self.output_count, given)

    def state_count(self) -> int:
        """How many tensors are carried from one iteration to the next."""
        return len(self.body.inputs) - self.captured - 2

    def number(self, iteration: int) -> Array:
        """The body's first input."""
        return np.array(iteration, np.int64).reshape(_shape_of_one(self.body.inputs[0]))

    def holds(self) -> Array:
        """The body's second input: it only runs while the condition holds."""
        return np.array(True).reshape(_shape_of_one(self.body.inputs[1]))

    def drive(self, inputs: Sequence[Array | None], run: RunGraph) -> tuple[Array, ...]:
        trips, cond, *given = inputs
        values = [x for x in given if x is not None]
        state, captured = values[: self.state_count()], values[self.state_count() :]
        going_on = cond is None or flag(cond, "the condition")
        last = trip_count(trips)
        scans: list[list[Array]] = [[] for _ in self.body.outputs[1 + len(state) :]]
        for i in count():
            if not going_on or (last is not None and i >= last):
                break
            if i >= MOST_ITERATIONS:
                raise InvalidInputError(f"the loop does not end within {MOST_ITERATIONS} rounds")
            condition, *results = run([self.number(i), self.holds(), *state, *captured])
            going_on = flag(condition, "the condition")
            state = results[: len(state)]
            for collected, result in zip(scans, results[len(state) :], strict=True):
                collected.append(result)
        made = zip(scans, self.body.outputs[1 + len(state) :], strict=True)
        return (*state, *(_stacked(parts, value, 0) for parts, value in made))


@operator("Scan", since=(8, 9, 11, 16, 19, 21, 23, 24, 25))
class Scan(Repeated):
    """(state, scans) = body(state, one slice of each scanned input), over all slices in order."""

    body: Graph
    num_scan_inputs: int
    scan_input_directions: tuple[int, ...] = ()
    scan_output_directions: tuple[int, ...] = ()
    scan_input_axes: tuple[int, ...] = ()
    scan_output_axes: tuple[int, ...] = ()
    directions: tuple[int, ...] = ()
    captured: int = 0

    def infer(self, *inputs: Value) -> tuple[TensorType, ...]:
        self.check(len(inputs))
        raise UnknownShapeError("what a scan makes depends on its body")

    def check(self, given: int) -> None:
        """``given``: how many inputs the node has."""
        if self.version < 9:
            raise UnsupportedModelError(
                "Scan of opset 8 is not supported; export the model with opset 9 or newer"
            )
        states = self.state_count()
        self._check(states, self.output_count, given)
        scans = self.output_count - states
        lengths = (
            (self.scan_input_directions, self.num_scan_inputs),
            (self.scan_input_axes, self.num_scan_inputs),
            (self.scan_output_directions, scans),
            (self.scan_output_axes, scans),
        )
        if self.num_scan_inputs < 1 or scans < 0 or any(len(a) not in (0, n) for a, n in lengths):
            raise InvalidModelError("its directions or axes do not fit its inputs and outputs")

    def state_count(self) -> int:
        """How many tensors are carried from one slice to the next."""
        return len(self.body.inputs) - self.captured - self.num_scan_inputs

    def input_axis(self, index: int, rank: int) -> int:
        axis = self.scan_input_axes[index] if self.scan_input_axes else 0
        if not -rank <= axis < rank:
            raise InvalidModelError(f"scan axis {axis} is outside a tensor of rank {rank}")
        return axis % rank

    def output_axis(self, index: int) -> int:
        return self.scan_output_axes[index] if self.scan_output_axes else 0

    def input_reversed(self, index: int) -> bool:
        return bool(self.scan_input_directions and self.scan_input_directions[index])

    def output_reversed(self, index: int) -> bool:
        return bool(self.scan_output_directions and self.scan_output_directions[index])

    def length(self, shapes: Sequence[Sequence[int]]) -> int:
        """How many slices the scanned inputs of these shapes have."""
        found = {shape[self.input_axis(i, len(shape))] for i, shape in enumerate(shapes)}
        if len(found) != 1:
            raise InvalidModelError(f"its scanned inputs have {sorted(found)} slices, not as many")
        return found.pop()

    def drive(self, inputs: Sequence[Array | None], run: RunGraph) -> tuple[Array, ...]:
        values = [x for x in inputs if x is not None]
        states, scanned = self.state_count(), self.state_count() + self.num_scan_inputs
        state, captured = values[:states], values[scanned:]
        slices = []
        for index, x in enumerate(values[states:scanned]):
            parts = np.moveaxis(x, self.input_axis(index, x.ndim), 0)
            slices.append(parts[::-1] if self.input_reversed(index) else parts)
        results = self.body.outputs[states:]
        scans: list[list[Array]] = [[] for _ in results]
        for i in range(self.length([x.shape for x in values[states:scanned]])):
            outputs = run([*state, *(np.ascontiguousarray(x[i]) for x in slices), *captured])
            state = outputs[:states]
            for collected, result in zip(scans, outputs[states:], strict=True):
                collected.append(result)
        made = []
        for index, (collected, value) in enumerate(zip(scans, results, strict=True)):
            ordered = collected[::-1] if self.output_reversed(index) else collected
            made.append(_stacked(ordered, value, self.output_axis(index)))
        return (*state, *made)


def _shape_of_one(value: Value) -> tuple[int, ...]:
    """The shape the body declares for a scalar: some exporters write (1,)."""
    shape = () if value.type is None else value.type.shape
    return (1,) if shape is not None and len(shape) == 1 else ()


def _stacked(parts: Sequence[Array], value: Value, axis: int) -> Array:
    """All results for one output of the body along a new axis; of none, what it declares."""
    if parts:
        if any(p.shape != parts[0].shape for p in parts):
            raise InvalidInputError(f"the shape of '{value.name}' differs between iterations")
        return np.stack(parts, axis)
    declared = value.type or TensorType("float32", ())
    dims = [d if isinstance(d, int) else 0 for d in declared.shape or ()]
    dims.insert(axis if axis >= 0 else len(dims) + 1 + axis, 0)
    return np.zeros(dims, declared.dtype)
