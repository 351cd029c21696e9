"""Einsum: sums of products over labelled dimensions, as transposes, reductions and batched matrix
products.

Operands are contracted from left to right. A label in both operands that is needed later is a batch
dimension, one that is not is summed by the product; what only one operand has and nothing needs is
summed before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.ir import Array, TensorType, Value
from vkconv.ops.binary import lower_binary, require_same_dtype
from vkconv.ops.binary_codes import Binary
from vkconv.ops.copying import Dim, row_major, strided_copy
from vkconv.ops.einsum_equation import Equation, Label, parse_equation
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.matrix_operands import Matrices
from vkconv.ops.matrix_product import Epilogue, lower_product
from vkconv.ops.operator import Operator
from vkconv.ops.reduction_kernels import MOST_ITERATIONS, Combine, Reduction, lower_reduction
from vkconv.ops.registry import operator

_SUM = Reduction(Combine.SUM)


@operator("Einsum", since=(12, 28))
class Einsum(Operator):
    """y[result] = sum over all other labels of the product of the operands, each indexed by its own
    labels."""

    splits_constants: ClassVar[bool] = True
    equation: str

    def infer(self, *inputs: Value) -> TensorType:
        require_same_dtype(*inputs)
        parsed = parse_equation(self.equation, [v.dims for v in inputs])
        return TensorType(inputs[0].dtype, parsed.shape)

    def reference(self, *inputs: Array) -> Array:
        parsed = parse_equation(self.equation, [x.shape for x in inputs])
        number = {label: i for i, label in enumerate(parsed.sizes)}
        arguments: list[object] = []
        for x, term in zip(inputs, parsed.operands, strict=True):
            wide = x.astype(np.float64) if x.dtype.kind == "f" else x
            arguments += [wide, [number[label] for label in term]]
        arguments.append([number[label] for label in parsed.result])
        y = np.einsum(*arguments, optimize=len(inputs) > 2)  # type: ignore[call-overload]
        return np.asarray(y).astype(inputs[0].dtype)

    def unsupported(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> str | None:
        parsed = parse_equation(self.equation, [v.dims for v in inputs if v is not None])
        terms = prod(parsed.sizes[label] for label in parsed.summed)
        if not terms:
            return "it sums over nothing"
        if terms > MOST_ITERATIONS:
            return "it sums over more elements than one invocation's loops may"
        return None

    def lower(
        self, ctx: Lowering, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Dispatch]:
        tensors = [t for t in inputs if t is not None]
        parsed = parse_equation(self.equation, [t.shape for t in tensors])
        y = outputs[0].on_device
        if not y.span:
            return []
        work = _Contraction(ctx, parsed, y)
        last = len(tensors) - 1
        terms = [
            work.single(ctx.operand(tensor, "linear"), index)
            for index, tensor in enumerate(tensors)
        ]
        total = terms[0]
        for index, term in enumerate(terms[1:], 1):
            work.ends = index == last
            total = work.pair(total, term, work.needed_after(index))
        return work.finish(total)

    def flops(self, inputs: Sequence[Value | None], outputs: Sequence[Value]) -> int:
        parsed = parse_equation(self.equation, [v.dims for v in inputs if v is not None])
        return 2 * prod(parsed.sizes.values())


@dataclass(frozen=True)
class _Term:
    """A dense tensor with a label per dimension, all different; dimensions of size 1 have none."""

    view: View
    labels: tuple[Label, ...]


class _Contraction:
    """The dispatches of one node, collected while terms are combined."""

    def __init__(self, ctx: Lowering, equation: Equation, y: View) -> None:
        self.ctx = ctx
        self.equation = equation
        self.y = y
        #: whether the term that is made next may be the result
        self.ends = len(equation.operands) == 1
        self.steps: list[Dispatch] = []

    def size(self, labels: Sequence[Label]) -> int:
        return prod(self.equation.sizes[label] for label in labels)

    def needed_after(self, index: int) -> set[Label]:
        """The labels of the result and of the operands behind ``index``."""
        later = self.equation.operands[index + 1 :]
        return set(self.equation.result).union(*later)

    def single(self, x: View, index: int) -> _Term:
        """An operand with its diagonals taken, and summed over what only it has."""
        labels = self.equation.operands[index]
        steps: dict[Label, int] = {}
        for label, step in zip(labels, row_major(x.shape), strict=True):
            if self.equation.sizes[label] != 1:
                steps[label] = steps.get(label, 0) + step
        term = _Term(x, tuple(steps))
        if len([label for label in labels if self.equation.sizes[label] != 1]) > len(steps):
            diagonal = self._scratch(term.labels, "diagonal")
            self._copy(x, steps, diagonal, term.labels)
            term = _Term(diagonal, term.labels)
        others = self.equation.operands[:index] + self.equation.operands[index + 1 :]
        return self.reduce(term, set(self.equation.result).union(*others))

    def reduce(self, term: _Term, needed: set[Label]) -> _Term:
        """The term summed over the labels that are not needed."""
        kept = tuple(label for label in term.labels if label in needed)
        gone = tuple(label for label in term.labels if label not in needed)
        if not gone:
            return term
        source = self.arrange(term, (*kept, *gone))
        y = self._made(kept, "sums")
        flat = self._as(source, (self.size(kept), self.size(gone)))
        self.steps += lower_reduction(self.ctx, _SUM, flat, y, (1,))
        return _Term(y, kept)

    def pair(self, a: _Term, b: _Term, needed: set[Label]) -> _Term:
        """The product of two terms, summed over what both have and nothing needs."""
        both = [label for label in a.labels if label in b.labels]
        batch = self._ordered([label for label in both if label in needed])
        inner = tuple(label for label in both if label not in needed)
        rows = self._ordered([label for label in a.labels if label not in both])
        columns = self._ordered([label for label in b.labels if label not in both])
        labels = (*batch, *rows, *columns)
        if not inner or not rows or not columns:
            return self._multiply(a, b, (batch, rows, columns, inner), needed)
        y = self._made(labels, "product")
        left, left_transposed = self._matrices(a, batch, rows, inner)
        right, right_transposed = self._matrices(b, batch, inner, columns)
        m, k, n = self.size(rows), self.size(inner), self.size(columns)
        count = () if not batch else (self.size(batch),)
        self.steps += lower_product(
            self.ctx,
            Matrices(_tensor(left), count, m, k, left_transposed),
            Matrices(_tensor(right), count, k, n, right_transposed),
            self._as(y, (*count, m, n)),
            count,
            Epilogue(),
        )
        return _Term(y, labels)

    def _multiply(
        self, a: _Term, b: _Term, groups: tuple[tuple[Label, ...], ...], needed: set[Label]
    ) -> _Term:
        """Element by element, then summed: where there is no matrix to multiply."""
        batch, rows, columns, inner = groups
        labels = (*batch, *rows, *columns, *inner)
        n, m, w, k = (self.size(group) for group in groups)
        left = self._as(self.arrange(a, (*batch, *rows, *inner)), (n, m, 1, k))
        right = self._as(self.arrange(b, (*batch, *columns, *inner)), (n, 1, w, k))
        y = self._made(labels, "products")
        target = self._as(y, (n, m, w, k))
        self.steps += lower_binary(self.ctx, Binary.MUL, left, right, target)
        return self.reduce(_Term(y, labels), needed)

    def _matrices(
        self,
        term: _Term,
        batch: tuple[Label, ...],
        rows: tuple[Label, ...],
        columns: tuple[Label, ...],
    ) -> tuple[View, bool]:
        """The term as a batch of matrices; transposed where it lies so already."""
        if term.labels == (*batch, *columns, *rows):
            return term.view, True
        return self.arrange(term, (*batch, *rows, *columns)), False

    def arrange(self, term: _Term, labels: tuple[Label, ...]) -> View:
        """The term with its dimensions in another order."""
        if term.labels == labels:
            return term.view
        y = self._scratch(labels, "transposed")
        self._copy(term.view, self._strides(term.labels), y, labels)
        return y

    def finish(self, term: _Term) -> list[Dispatch]:
        """The term, in the order of the result, in y; copied there unless it was made there."""
        # an operand may share the storage (both parts of one concatenation), never the place
        if (term.view.storage, term.view.offset) != (self.y.storage, self.y.offset):
            self._copy(term.view, self._strides(term.labels), self.y, self._final())
        return self.steps

    def _final(self) -> tuple[Label, ...]:
        return tuple(label for label in self.equation.result if self.equation.sizes[label] != 1)

    def _made(self, labels: Sequence[Label], name: str) -> View:
        """Where a new term goes: into y where it is the result, else into scratch memory."""
        if not self.ends or tuple(labels) != self._final():
            return self._scratch(labels, name)
        return self._as(self.y, tuple(self.equation.sizes[label] for label in labels))

    def _ordered(self, labels: Sequence[Label]) -> tuple[Label, ...]:
        """In the order of the result, so that the last copy is a plain one."""
        result = self.equation.result
        return tuple(sorted(labels, key=lambda x: result.index(x) if x in result else len(result)))

    def _strides(self, labels: tuple[Label, ...]) -> dict[Label, int]:
        shape = [self.equation.sizes[label] for label in labels]
        return dict(zip(labels, row_major(shape), strict=True))

    def _copy(self, x: View, steps: dict[Label, int], y: View, labels: tuple[Label, ...]) -> None:
        targets = self._strides(labels)
        dims = [Dim(self.equation.sizes[x], steps[x], targets[x]) for x in labels]
        self.steps += strided_copy(self.ctx, x, y, dims)

    def _scratch(self, labels: Sequence[Label], name: str) -> View:
        shape = tuple(self.equation.sizes[label] for label in labels)
        return View(self.ctx.scratch(prod(shape), name).storage, shape, "float32", "linear")

    def _as(self, x: View, shape: tuple[int, ...]) -> View:
        return View(x.storage, shape, x.dtype, "linear", x.offset)


def _tensor(view: View) -> Tensor:
    return Tensor(Value("operand", TensorType("float32", view.shape)), view)
