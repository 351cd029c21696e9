"""Where the elements of a part come from: its walk followed back through nodes, one at a time
(``assemble_parts``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vkconv.ir import Node, Value
from vkconv.ops.broadcasting import Walk
from vkconv.ops.copying import row_major
from vkconv.ops.operator import FLOATS
from vkconv.ops.parts import (
    MOST_LOOPS,
    MOST_NUMBERS,
    MOST_STEPS,
    MOST_TENSORS,
    OPERATORS,
    Part,
    Step,
)
from vkconv.ops.regions import Region
from vkconv.ops.registry import create
from vkconv.ops.shapes import normalise_axis
from vkconv.ops.slice import Slice
from vkconv.ops.split import Split
from vkconv.ops.transpose import Transpose
from vkconv.passes.patterns import activation_of, scalar

RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
#: operators that compute nothing
MOVING = (*RESHAPES, "Transpose", "Split", "Slice", "Concat")
_CODES = {op_type: code for code, op_type in OPERATORS.items()}


@dataclass(frozen=True)
class _Axis:
    """A dimension of a value: a part's first index there, and (loop, indices a turn) of each loop
    of the walk that moves along it."""

    first: int
    loops: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Trace:
    """A part of the result, as far as it is followed: elements of ``value``, and the functions that
    are still to come. Strides and ``starts`` are of the result, ``value`` and ``tensors``."""

    value: Value
    walk: Walk
    starts: tuple[int, ...]
    tensors: tuple[Value, ...] = ()
    steps: tuple[Step, ...] = ()

    @property
    def size(self) -> tuple[int, ...]:
        return self.walk.size

    def part(self, inputs: tuple[int, ...]) -> Part:
        return Part(inputs, self._merged(), self.starts, self.steps)

    def through(self, node: Node) -> list[Trace] | None:
        """The same elements where ``node``, which computes the value, has them from. None where
        they are no walk there, or the kernel has no room."""
        if node.op_type in RESHAPES:
            return [replace(self, value=_first(node))]
        if node.op_type in MOVING:
            refined, axes = self._axes()
            found = None if axes is None else refined._moved(node, axes)
        else:
            computed = self._computed(node)
            found = None if computed is None else [computed]
        fits = found is not None and all(len(t._merged().size) <= MOST_LOOPS for t in found)
        return found if fits else None

    def _merged(self) -> Walk:
        """The walk in the order of the result, in as few loops as possible."""
        order = sorted(range(len(self.size)), key=lambda d: -self.walk.strides[0][d])
        strides = tuple(tuple(s[d] for d in order) for s in self.walk.strides)
        return Walk(tuple(self.size[d] for d in order), strides).merged()

    # --- what moves elements ---------------------------------------------------------------------

    def _axes(self) -> tuple[Trace, list[_Axis] | None]:
        """Which loops move along which dimension of the value; loops that run across several are
        split first. None where that can't be."""
        dims = self.value.dims
        steps = row_major(dims)
        firsts = [self.starts[1] // step % n for step, n in zip(steps, dims, strict=True)]
        pending = list(zip(self.walk.size, zip(*self.walk.strides, strict=True), strict=True))
        loops: list[tuple[int, tuple[int, ...]]] = []
        along: list[list[tuple[int, int]]] = [[] for _ in dims]
        while pending:
            count, strides = pending.pop()
            if count == 1:
                continue
            axis = _axis_of(strides[1], steps, dims)
            if axis is None:
                return self, None
            turn = strides[1] // steps[axis]
            if firsts[axis] + (count - 1) * turn >= dims[axis]:
                inner = dims[axis] // turn
                if dims[axis] % turn or count % inner or firsts[axis] >= turn:
                    return self, None
                pending.append((count // inner, tuple(s * inner for s in strides)))
                count = inner
            along[axis].append((len(loops), turn))
            loops.append((count, strides))
        axes = [_Axis(first, tuple(of)) for first, of in zip(firsts, along, strict=True)]
        size = tuple(n for n, _ in loops)
        if any(a.first + _reach(a, size) >= n for a, n in zip(axes, dims, strict=True)):
            return self, None
        columns = tuple(zip(*(strides for _, strides in loops), strict=True))
        walk = Walk(size, columns or ((),) * len(self.starts))
        return replace(self, walk=walk), axes

    def _moved(self, node: Node, axes: list[_Axis]) -> list[Trace] | None:
        source, op = _first(node), create(node)
        if isinstance(op, Transpose):
            order = op.order(len(axes))
            return [self._at(source, [axes[order.index(i)] for i in range(len(axes))])]
        if isinstance(op, Split):
            region = op.regions(node.inputs)[node.outputs.index(self.value)]
            return self._within(source, axes, region)
        if isinstance(op, Slice):
            return self._within(source, axes, op.region(node.inputs))
        return self._joined(node, axes)

    def _at(self, source: Value, axes: Sequence[_Axis]) -> Trace:
        """The elements of ``source`` at those indices."""
        start, strides = _addresses(axes, row_major(source.dims), len(self.size))
        return self._reading(source, start, strides)

    def _reading(self, source: Value, start: int, strides: tuple[int, ...]) -> Trace:
        walk = Walk(self.size, (self.walk.strides[0], strides, *self.walk.strides[2:]))
        starts = (self.starts[0], start, *self.starts[2:])
        return replace(self, value=source, walk=walk, starts=starts)

    def _within(self, source: Value, axes: list[_Axis], region: Region) -> list[Trace] | None:
        """The value is a region of ``source``."""
        if any(step < 0 and n > 1 for step, n in zip(region.steps, region.sizes, strict=True)):
            return None
        return [
            self._at(
                source,
                [
                    _Axis(start + step * a.first, tuple((d, step * turn) for d, turn in a.loops))
                    for a, start, step in zip(axes, region.starts, region.steps, strict=True)
                ],
            )
        ]

    def _joined(self, node: Node, axes: list[_Axis]) -> list[Trace] | None:
        """The value is a Concat: a part of it comes from one input, or is cut into those of
        several."""
        axis = normalise_axis(node.attributes.get("axis", 1), len(axes))
        found: list[Trace] = []
        taken = axes[axis]
        end = taken.first + _reach(taken, self.size) + 1
        at = 0
        for source in node.present_inputs:
            low, high = max(taken.first, at), min(end, at + source.dims[axis])
            if low < high:
                trace: Trace | None = self
                if (low, high) != (taken.first, end):
                    trace = self._cut(taken, low - taken.first, high - low)
                if trace is None:
                    return None
                own = [*axes]
                own[axis] = _Axis(low - at, taken.loops)
                found.append(trace._at(source, own))
            at += source.dims[axis]
        return found

    def _cut(self, axis: _Axis, skipped: int, count: int) -> Trace | None:
        """``count`` turns of the one loop along an axis."""
        if len(axis.loops) != 1 or axis.loops[0][1] != 1:
            return None
        ((loop, _),) = axis.loops
        size = tuple(count if d == loop else n for d, n in enumerate(self.size))
        starts = tuple(
            start + skipped * strides[loop]
            for start, strides in zip(self.starts, self.walk.strides, strict=True)
        )
        return replace(self, walk=Walk(size, self.walk.strides), starts=starts)

    # --- what computes ---------------------------------------------------------------------------

    def _computed(self, node: Node) -> Trace | None:
        """One function more, the first of the chain."""
        if node.op_type not in _CODES:
            found = activation_of(node)
            if found is None:
                return None
            activation, *numbers = found
            # the kernel has zeros where there are none
            given = tuple(map(float, numbers)) if any(numbers) else ()
            return self._with(_first(node), Step(activation, None, given))
        a, b = node.present_inputs
        code = _CODES[node.op_type]
        if a is b:
            return self._with(a, Step(code))
        swapped = a.is_constant or a.dims != self.value.dims
        x, other = (b, a) if swapped else (a, b)
        if x.is_constant or x.dims != self.value.dims:
            return None
        number = scalar(other)
        if number is not None:
            return self._with(x, Step(code, None, (number,), swapped))
        return self._with_tensor(x, other, Step(code, len(self.tensors), (), swapped))

    def _with(self, source: Value, step: Step) -> Trace | None:
        steps = (step, *self.steps)
        if len(steps) > MOST_STEPS or sum(len(s.numbers) for s in steps) > MOST_NUMBERS:
            return None
        return replace(self, value=source, steps=steps)

    def _with_tensor(self, source: Value, tensor: Value, step: Step) -> Trace | None:
        """The chain reads another tensor as well, broadcast to the value."""
        refined, axes = self._axes()
        if axes is None or len(self.tensors) == MOST_TENSORS or tensor.dtype not in FLOATS:
            return None
        missing = len(axes) - len(tensor.dims)
        steps = [0] * missing
        for n, stride in zip(tensor.dims, row_major(tensor.dims), strict=True):
            steps.append(stride if n != 1 else 0)
        start, strides = _addresses(axes, steps, len(refined.size))
        read = replace(
            refined,
            walk=Walk(refined.size, (*refined.walk.strides, strides)),
            starts=(*refined.starts, start),
            tensors=(*refined.tensors, tensor),
        )
        return read._with(source, step)


def whole(value: Value) -> Trace:
    """All of a value, as it is."""
    loops = [(n, s) for n, s in zip(value.dims, row_major(value.dims), strict=True) if n > 1]
    strides = tuple(s for _, s in loops)
    return Trace(value, Walk(tuple(n for n, _ in loops), (strides, strides)), (0, 0))


def _first(node: Node) -> Value:
    source = node.inputs[0]
    assert source is not None
    return source


def _axis_of(stride: int, steps: Sequence[int], dims: Sequence[int]) -> int | None:
    """The dimension along which a walk of that stride moves."""
    for axis, (step, n) in enumerate(zip(steps, dims, strict=True)):
        if n > 1 and step <= stride:
            return axis if stride % step == 0 and stride // step < n else None
    return None


def _reach(axis: _Axis, size: Sequence[int]) -> int:
    """How far along an axis the last element is from the first."""
    return sum((size[d] - 1) * turn for d, turn in axis.loops)


def _addresses(
    axes: Sequence[_Axis], steps: Sequence[int], loops: int
) -> tuple[int, tuple[int, ...]]:
    """Start and strides in a tensor whose dimensions are ``steps`` elements apart."""
    strides = [0] * loops
    for axis, step in zip(axes, steps, strict=True):
        for d, turn in axis.loops:
            strides[d] += turn * step
    return sum(a.first * step for a, step in zip(axes, steps, strict=True)), tuple(strides)
