"""Assemble: a tensor put together of parts of others. Not an operator of ONNX:
``passes/assemble_parts.py`` makes it of what cuts, moves, computes element by element and joins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from math import prod

import numpy as np

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.activation_codes import Activation
from vkconv.ops.broadcasting import Walk
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.operator import Operator
from vkconv.ops.parts import MOST_LOOPS, MOST_NUMBERS, MOST_STEPS, Part
from vkconv.ops.registry import operator

#: where functions of two elements begin among the kernel's codes, and those with operands swapped
SECOND_CODE, SWAPPED_CODE = 100, 200
#: the kernel's operands that are the first tensor and the first number; 0 is the element itself
FIRST_TENSOR, FIRST_NUMBER = 1, 3


@operator("Assemble", since=(1,), domain="vkconv")
class Assemble(Operator):
    """y of ``shape``, every element from one of the ``parts``, one dispatch each."""

    shape: tuple[int, ...]
    parts: tuple[Part, ...]

    def infer(self, *inputs: Value) -> TensorType:
        if not self.parts:
            raise InvalidModelError("it has no parts")
        for part in self.parts:
            known = all(0 <= i < len(inputs) for i in part.inputs)
            sizes = [inputs[i].known_type.size for i in part.inputs] if known else []
            if not known or not part.fits((prod(self.shape), *sizes)):
                raise InvalidModelError("a part is not within its tensors")
        if sum(prod(part.walk.size) for part in self.parts) != prod(self.shape):
            raise InvalidModelError(f"its parts do not make up {self.shape}")
        return TensorType(inputs[0].dtype, self.shape)

    def reference(self, *inputs: Array) -> Array:
        y = np.empty(self.shape, inputs[0].dtype)
        dense = tuple(np.ascontiguousarray(x) for x in inputs)
        with np.errstate(all="ignore"):
            for part in self.parts:
                part.write(y, dense)
        return y

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        y = outputs[0].on_device
        views = [ctx.operand(t, "linear") for t in inputs if t is not None]
        return [_lower(ctx, part, [views[i] for i in part.inputs], y) for part in self.parts]


def _lower(ctx: Lowering, part: Part, inputs: Sequence[View], y: View) -> Dispatch:
    walk = part.walk.merged()
    views = [
        _touched(view, start, strides, walk.size)
        for view, start, strides in zip((y, *inputs), part.starts, walk.strides, strict=True)
    ]
    width, walk = _in_fours(ctx.caps, walk, *views[:2])
    walk = walk.padded(MOST_LOOPS)
    y_stride, x_stride, *strides = walk.strides
    tensors = [
        _tensor(view, stride, width) for view, stride in zip(views[2:], strides, strict=True)
    ]
    unused = _Tensor(None, (0,) * MOST_LOOPS, 0, Lanes.ONE)
    first, second = [*tensors, unused, unused][:2]
    grid = spread(ctx.caps, prod(walk.size[2:]), walk.size[1], walk.size[0])
    return ctx.dispatch(
        "assemble",
        {"x": views[1], "first": first.view, "second": second.view, "y": _rows(views[0], part)},
        {
            "size": walk.size,
            "x_stride": x_stride,
            "first_stride": first.strides,
            "second_stride": second.strides,
            "y_stride": y_stride,
            "first_start": first.start,
            "second_start": second.start,
            "numbers": [*part.numbers, *[0.0] * (MOST_NUMBERS - len(part.numbers))],
        },
        {
            **grid.spec,
            **_codes(part),
            "tensors": len(tensors),
            "first_lanes": int(first.lanes),
            "second_lanes": int(second.lanes),
        },
        grid.count,
        width=width,
        **({"access": "ssbo"} if width == "one" else {}),
    )


def _touched(view: View, start: int, strides: Sequence[int], size: Sequence[int]) -> View:
    """What a walk touches of a dense tensor, its gaps included."""
    span = 1 + sum((n - 1) * step for n, step in zip(size, strides, strict=True))
    return View(view.storage, (span,), view.dtype, "linear", view.offset + start)


def _rows(touched: View, part: Part) -> View:
    """The same of the result as rows without the gaps between them, so that dispatches which write
    into each other's gaps need not wait."""
    loops = [(n, s) for n, s in zip(part.walk.size, part.walk.strides[0], strict=True) if n > 1]
    for apart in sorted({step for _, step in loops if step > 1}):
        length = 1 + sum((n - 1) * step for n, step in loops if step < apart)
        outer = [(n, step) for n, step in loops if step >= apart]
        if length < apart and all(step % apart == 0 for _, step in outer):
            rows = 1 + sum((n - 1) * step // apart for n, step in outer)
            return replace(touched, shape=(rows, length), batch_stride=apart)
    return touched


def _in_fours(caps: DeviceCaps, walk: Walk, y: View, x: View) -> tuple[str, Walk]:
    """The kernel's width, and the walk as the kernel takes it.

    Four elements at once where they lie together in x: and in y, or on CPU drivers in any case. A
    GPU joins what neighbouring invocations store; there the loops stay in the order of y.
    """
    in_y, in_x = walk.strides[:2]
    runs = [d for d, n in enumerate(walk.size) if in_x[d] == 1 and n % 4 == 0]
    if not runs:
        return "one", walk
    inner = runs[-1]
    outer = [d for d in range(len(walk.size)) if d != inner]
    if x.offset % 4 or any(in_x[d] % 4 for d in outer):
        return "one", walk
    together = in_y[inner] == 1 and y.offset % 4 == 0 and not any(in_y[d] % 4 for d in outer)
    if not together and caps.kind != "cpu":
        return "one", walk

    def scaled(strides: Sequence[int], vec4: bool) -> tuple[int, ...]:
        if vec4:
            return (*(strides[d] // 4 for d in outer), 1)
        return (*(strides[d] for d in outer), 4 * strides[inner])

    size = (*(walk.size[d] for d in outer), walk.size[inner] // 4)
    vec4s = (together, True, *[False] * len(walk.strides[2:]))
    strides = tuple(scaled(s, v) for s, v in zip(walk.strides, vec4s, strict=True))
    return "four" if together else "spread", Walk(size, strides)


class Lanes(IntEnum):
    """How the operands of four elements lie, as ``assemble.comp`` has it."""

    ONE = 0
    TOGETHER = 1
    APART = 2


@dataclass(frozen=True)
class _Tensor:
    """A tensor of the chain as the kernel takes it: ``start`` and strides count scalars."""

    view: View | None
    strides: tuple[int, ...]
    start: int
    lanes: Lanes


def _tensor(view: View, strides: tuple[int, ...], width: str) -> _Tensor:
    if width == "one":
        return _Tensor(view, strides, 0, Lanes.ONE)
    # bound in vec4s
    start = view.offset % 4
    aligned = replace(view, offset=view.offset - start, shape=(view.shape[0] + start,))
    lanes = Lanes.ONE if strides[-1] == 0 else Lanes.APART
    if strides[-1] == 4 and not any(n % 4 for n in (start, *strides)):
        lanes = Lanes.TOGETHER
    return _Tensor(aligned, strides, start, lanes)


def _codes(part: Part) -> dict[str, int]:
    """Functions and operands of the chain, as the kernel has them."""
    codes: dict[str, int] = {}
    number = FIRST_NUMBER
    for i, step in enumerate(part.steps):
        function, operand = int(step.function), 0
        if not isinstance(step.function, Activation):
            function += SWAPPED_CODE if step.swapped else SECOND_CODE
        if step.tensor is not None:
            operand = FIRST_TENSOR + step.tensor
        elif step.numbers:
            operand = number
        number += len(step.numbers)
        codes |= {f"function_{i}": function, f"operand_{i}": operand}
    unused = range(len(part.steps), MOST_STEPS)
    return codes | {f"{what}_{i}": 0 for what in ("function", "operand") for i in unused}
