"""Least and greatest elements of integer tensors, where they follow from the graph.

The device holds int64 as int32, and arithmetic on it could overflow unseen. Much of what models
compute with integers can't: positions found by TopK, ArgMax or NonMaxSuppression lie within the
axis they were found along, and so does what exporters make of them (position // classes,
position % classes, row * width + column). Where the interval of every result fits into int32,
``assign_layouts`` leaves the node on the device; without one it runs on the host.

An interval bounds the elements of one tensor; a rule takes those of the inputs (None: not known).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np

from vkconv.ir import Graph, Node, Value

Interval = tuple[int, int]
Known = Sequence[Interval | None]

_INT32: Interval = (-(2**31), 2**31 - 1)
#: constants longer than this are not searched
_LONGEST_CONSTANT = 1 << 22
#: their elements are some of the first input's
_MOVING = frozenset(
    {
        *("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Tile"),
        *("Slice", "Gather", "GatherElements", "GatherND", "Split", "Compress", "ReverseSequence"),
        *("DepthToSpace", "SpaceToDepth", "ReduceMax", "ReduceMin", "MaxPool", "CenterCropPad"),
    }
)
#: what they fill up with, besides elements of the first input
_ZERO_FILLING = frozenset({"CenterCropPad"})


def bound_integers(graph: Graph) -> None:
    """Set ``Value.bounds`` of what nodes compute; those of the graph's inputs stay as they are."""
    uses = graph.uses()
    for node in graph.nodes:
        intervals = _intervals(node)
        if node.op_type == "Cast" and not intervals[0] and _is_only_clipped(graph, node, uses):
            intervals = [_INT32]
        for index, value in enumerate(node.outputs):
            value.bounds = _held(value, intervals[index] if index < len(intervals) else None)


def _is_only_clipped(graph: Graph, cast: Node, uses: Mapping[Value, list[Node]]) -> bool:
    """Whether all that reads a cast of floats are Clips between two bounds. The device's cast
    saturates at the limits of int32, and between two bounds that makes no difference."""
    x, y = cast.inputs[0], cast.outputs[0]
    if x is None or x.type is None or x.dtype not in ("float32", "float16") or y in graph.outputs:
        return False
    return bool(uses.get(y)) and all(
        node.op_type == "Clip"
        and not node.domain
        and len(node.present_inputs) == 3
        and all(interval(bound) is not None for bound in node.present_inputs[1:])
        for node in uses[y]
    )


def interval(value: Value | None) -> Interval | None:
    """Least and greatest element, where they are known."""
    if value is None:
        return None
    array = value.array
    if array is None:
        return value.bounds if value.bounds is not None else _of_type(value)
    if array.dtype.kind not in "iub" or not 0 < array.size <= _LONGEST_CONSTANT:
        return None
    return int(array.min()), int(array.max())


def _held(value: Value, found: Interval | None) -> Interval | None:
    """``found``, unless the value's type is of floats or wraps around before."""
    own = _of_type(value)
    if found is None or (value.type is not None and value.dtype[0] not in "iub"):
        return own
    return found if own is None or _within(found, own) else own


def _within(inner: Interval, outer: Interval) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _of_type(value: Value) -> Interval | None:
    """Of types that int32 holds, what they hold at all."""
    if value.type is None or value.dtype not in (
        "bool",
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
    ):
        return None
    if value.dtype == "bool":
        return 0, 1
    limits = np.iinfo(value.dtype)
    return int(limits.min), int(limits.max)


def _intervals(node: Node) -> Known:
    """One for each output whose interval the operator tells."""
    if node.domain:
        return ()
    known = [interval(v) for v in node.inputs]
    kind = node.op_type
    positions = _POSITIONS.get(kind)
    if positions is not None:
        return positions(node)
    if kind in _MOVING:
        first = known[0] if known else None
        if kind in _ZERO_FILLING and first is not None:
            first = (min(first[0], 0), max(first[1], 0))
        # a second output (MaxPool's indices) is no element of the input
        return [first] * len(node.outputs) if kind == "Split" else [first]
    joined = _JOINED.get(kind)
    if joined is not None:
        return [_hull([known[i] for i in range(len(known)) if joined(i)])]
    if kind in ("Cast", "CastLike"):
        return [_cast(node, known[0])]
    rule = _ARITHMETIC.get(kind)
    if rule is None or any(i is None for i in known):
        return _counted(node, known)
    return [rule(*[i for i in known if i is not None])]


def _cast(node: Node, source: Interval | None) -> Interval | None:
    """Integers stay what they are in a type that holds them all; floats may become anything."""
    x, y = node.inputs[0], node.outputs[0]
    if source is None or x is None or x.type is None or y.type is None:
        return None
    return source if y.dtype != "bool" else (0, 1)


def _hull(intervals: Known) -> Interval | None:
    found = [i for i in intervals if i is not None]
    if not found or len(found) < len(intervals):
        return None
    return min(i[0] for i in found), max(i[1] for i in found)


# --- where nodes find things ------------------------------------------------------------------


def _size(value: Value | None, axis: int) -> int | None:
    shape = None if value is None or value.type is None else value.type.shape
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    size = shape[axis]
    return size if isinstance(size, int) else None


def _below(*sizes: int | None) -> Interval | None:
    """Positions along axes of these sizes."""
    known = [s for s in sizes if s is not None]
    return (0, max(1, *known) - 1) if known and len(known) == len(sizes) else None


def _found_along_axis(default: int) -> Callable[[Node], Known]:
    def rule(node: Node) -> Known:
        return [_below(_size(node.inputs[0], int(node.attributes.get("axis", default))))]

    return rule


def _kept_boxes(node: Node) -> Known:
    """NonMaxSuppression: image, class, box."""
    boxes, scores = node.inputs[:2]
    return [_below(_size(boxes, 0), _size(scores, 1), _size(boxes, 1))]


def _nonzero(node: Node) -> Known:
    x = node.inputs[0]
    shape = None if x is None or x.type is None else x.type.shape
    return [_below(*[d if isinstance(d, int) else None for d in shape])] if shape else ()


_POSITIONS: dict[str, Callable[[Node], Known]] = {
    "ArgMax": _found_along_axis(0),
    "ArgMin": _found_along_axis(0),
    "TopK": lambda node: [interval(node.inputs[0]), *_found_along_axis(-1)(node)],
    "NonMaxSuppression": _kept_boxes,
    "NonZero": _nonzero,
}


# --- elements of several inputs ---------------------------------------------------------------

_JOINED: dict[str, Callable[[int], bool]] = {
    "Concat": lambda position: True,
    "Where": lambda position: position > 0,
}


# --- arithmetic -------------------------------------------------------------------------------


def _corners(function: Callable[[int, int], int]) -> Callable[..., Interval]:
    """Of a function that is monotonous in either argument: its values at the ends."""

    def rule(a: Interval, b: Interval) -> Interval:
        values = [function(x, y) for x, y in product(a, b)]
        return min(values), max(values)

    return rule


def _div(a: Interval, b: Interval) -> Interval | None:
    """Truncated; no quotient is larger than its dividend."""
    if b[0] <= 0 <= b[1]:
        return None
    largest = max(abs(a[0]), abs(a[1])) // min(abs(b[0]), abs(b[1]))
    return (0 if min(a[0], b[0]) >= 0 else -largest), largest


def _mod(a: Interval, b: Interval) -> Interval | None:
    """Smaller than the divisor; of the sign of one of the operands."""
    if b[0] <= 0 <= b[1]:
        return None
    largest = max(abs(b[0]), abs(b[1])) - 1
    return (0 if min(a[0], b[0]) >= 0 else -largest), largest


def _clip(x: Interval, *bounds: Interval) -> Interval:
    """The least of the upper bound and the greatest of the lower one and x, which is monotonous in
    all three."""
    above = _greatest_of(x, *bounds[:1])
    return _least_of(above, *bounds[1:])


def _greatest_of(*intervals: Interval) -> Interval:
    return max(i[0] for i in intervals), max(i[1] for i in intervals)


def _least_of(*intervals: Interval) -> Interval:
    return min(i[0] for i in intervals), min(i[1] for i in intervals)


_ARITHMETIC: dict[str, Callable[..., Interval | None]] = {
    "Add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "Sub": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "Mul": _corners(lambda x, y: x * y),
    "Div": _div,
    "Mod": _mod,
    "Neg": lambda a: (-a[1], -a[0]),
    "Abs": lambda a: (0, max(abs(a[0]), abs(a[1]))),
    "Sign": lambda a: (-1, 1),
    "Max": _greatest_of,
    "Min": _least_of,
    "Clip": _clip,
}


def _counted(node: Node, known: Known) -> Known:
    """Sums of as many elements as an axis, or all axes, have."""
    x = node.inputs[0] if node.inputs else None
    if node.op_type not in ("ReduceSum", "CumSum") or x is None or x.type is None:
        return ()
    first = known[0]
    if first is None or not x.type.is_static:
        return ()
    count = max(1, x.type.size)
    return [(min(0, first[0] * count), max(0, first[1] * count))]
