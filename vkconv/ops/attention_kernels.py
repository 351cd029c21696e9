"""Attention as dispatches: heads gathered, product with the keys, ``attention_softmax``, product
with the values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

from vkconv.dispatch import Dispatch, View
from vkconv.ir import TensorType, Value
from vkconv.ops.copying import Dim, strided_copy
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.matrix_operands import Matrices
from vkconv.ops.matrix_product import Epilogue, lower_product
from vkconv.ops.operator import FLOATS
from vkconv.ops.shapes import ceil_div
from vkconv.ops.shared_rows import share_row

#: ``STAGE_<name>`` of ``shaders/attention_softmax.comp``, which are the modes of qk_matmul_output
SOFTMAX_STAGE = 3


class Sizes(Protocol):
    """The sizes that ``Attention.sizes`` finds."""

    @property
    def batch(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def queries(self) -> int: ...
    @property
    def keys(self) -> int: ...
    @property
    def past(self) -> int: ...
    @property
    def head_size(self) -> int: ...
    @property
    def value_size(self) -> int: ...
    @property
    def flat(self) -> bool: ...
    @property
    def total_keys(self) -> int: ...
    @property
    def scores(self) -> tuple[int, int, int, int]: ...


@dataclass(frozen=True)
class Window:
    """What restricts the keys beside the mask; ``mask_keys`` are those the mask speaks of."""

    left: int
    right: int
    softcap: float
    mask_keys: int
    single_mask_key: bool
    #: what a query gets that no key takes part in: NaN rather than zeros
    empty_is_nan: bool = False


def lower_attention(
    ctx: Lowering,
    n: Sizes,
    factor: float,
    window: Window,
    mode: int,
    inputs: Sequence[Tensor | None],
    outputs: Sequence[Tensor],
) -> list[Dispatch]:
    """Outputs: y, and where asked for the present keys, present values, and the scores of stage
    ``mode``."""
    q, k, v, mask, past_key, past_value, lengths = (*inputs, None, None, None, None)[:7]
    assert q is not None and k is not None and v is not None
    present = [t.on_device for t in outputs[1:3]] + [None, None]
    stage = outputs[3].on_device if len(outputs) > 3 else None
    steps: list[Dispatch] = []
    queries = _heads(ctx, q, n.heads, n.head_size, n, steps)
    keys = _cache(ctx, k, past_key, n.head_size, n, present[0], steps)
    values = _cache(ctx, v, past_value, n.value_size, n, present[1], steps)
    if not prod(n.scores):
        # no keys: the mean of no values is zero, which the product over an empty dimension gives
        return steps + weigh(
            ctx, n, scratch_tensor(ctx, n.scores, "weights"), values, outputs[0].on_device
        )
    # what nobody asks for has rows of whole vec4s
    pitch = n.total_keys if stage is not None else whole_keys(n)
    scratch = (*n.scores[:3], pitch)
    scores = stage if mode == 0 and stage is not None else scratch_tensor(ctx, scratch, "scores")
    steps += score(ctx, n, queries, keys, factor, scores)
    if mode in (1, 2) and stage is not None:
        steps.append(masked_softmax(ctx, n, window, mode, scores, mask, lengths, stage))
    weights = (
        stage
        if mode == SOFTMAX_STAGE and stage is not None
        else scratch_tensor(ctx, scratch, "weights")
    )
    steps.append(masked_softmax(ctx, n, window, SOFTMAX_STAGE, scores, mask, lengths, weights))
    return steps + weigh(ctx, n, weights, values, outputs[0].on_device)


def whole_keys(n: Sizes) -> int:
    """Elements from row to row of scores and weights that consist of whole vec4s."""
    return ceil_div(n.total_keys, 4) * 4


def score(
    ctx: Lowering,
    n: Sizes,
    queries: View,
    keys: View,
    factor: float,
    y: View,
    *,
    keys_are_rows: bool = True,
) -> list[Dispatch]:
    """Scores y (..., queries, keys or ``whole_keys``): factor times queries times keys, each key a
    row; or else a column."""
    share = (n.batch, n.kv_heads, n.heads // n.kv_heads)
    return lower_product(
        ctx,
        Matrices(_tensor(queries), share, n.queries, n.head_size),
        Matrices(
            _tensor(keys), (*share[:2], 1), n.head_size, n.total_keys, transposed=keys_are_rows
        ),
        y,
        share,
        Epilogue(factor),
        y.shape[-1],
    )


def weigh(ctx: Lowering, n: Sizes, weights: View, values: View, y: View) -> list[Dispatch]:
    """Means y: weights (of the shape of scores) times values, heads beside each other where y is
    flat."""
    share = (n.batch, n.kv_heads, n.heads // n.kv_heads)
    heads = (n.batch, n.heads, n.queries, n.value_size)
    target = scratch_tensor(ctx, heads, "values of heads") if n.flat else y
    steps = lower_product(
        ctx,
        Matrices(_tensor(weights), share, n.queries, n.total_keys, pitch=weights.shape[-1]),
        Matrices(_tensor(values), (*share[:2], 1), n.total_keys, n.value_size),
        target,
        share,
        Epilogue(),
    )
    if not n.flat:
        return steps
    row, size = n.heads * n.value_size, n.value_size
    dims = [
        Dim(n.batch, n.queries * row, n.queries * row),
        Dim(n.queries, size, row),
        Dim(n.heads, n.queries * size, size),
        Dim(size, 1, 1),
    ]
    return steps + strided_copy(ctx, target, y, dims)


def _heads(
    ctx: Lowering, x: Tensor, heads: int, size: int, n: Sizes, steps: list[Dispatch]
) -> View:
    """View or copy of x as (batch, heads, positions, size)."""
    view = ctx.operand(x, "linear")
    positions = x.shape[1] if n.flat else x.shape[2]
    shape = (n.batch, heads, positions, size)
    if not n.flat or heads == 1:
        return View(view.storage, shape, view.dtype, "linear", view.offset)
    y = scratch_tensor(ctx, shape, f"{x.value.name} by heads")
    steps += _into_cache(ctx, x, y, heads, size, n, 0)
    return y


def _cache(
    ctx: Lowering,
    new: Tensor,
    past: Tensor | None,
    size: int,
    n: Sizes,
    present: View | None,
    steps: list[Dispatch],
) -> View:
    """Keys or values with the past ones before them: (batch, kv_heads, total_keys, size)."""
    if past is None and present is None:
        return _heads(ctx, new, n.kv_heads, size, n, steps)
    shape = (n.batch, n.kv_heads, n.total_keys, size)
    y = (
        present
        if present is not None
        else scratch_tensor(ctx, shape, f"{new.value.name} with past")
    )
    if past is not None:
        run = n.past * size
        dims = [Dim(n.batch * n.kv_heads, run, n.total_keys * size), Dim(run, 1, 1)]
        steps += strided_copy(ctx, ctx.operand(past, "linear"), y, dims)
    steps += _into_cache(ctx, new, y, n.kv_heads, size, n, n.past)
    return y


def _into_cache(
    ctx: Lowering, x: Tensor, y: View, heads: int, size: int, n: Sizes, first: int
) -> list[Dispatch]:
    """Copy x, of either form, to the positions from ``first`` on of y (batch, heads, positions,
    size)."""
    positions = x.shape[1] if n.flat else x.shape[2]
    all_positions = y.shape[2]
    head, position = (size, heads * size) if n.flat else (positions * size, size)
    dims = [
        Dim(n.batch, positions * heads * size, all_positions * heads * size),
        Dim(heads, head, all_positions * size),
        Dim(positions, position, size),
        Dim(size, 1, 1),
    ]
    return strided_copy(ctx, ctx.operand(x, "linear"), y, dims, 0, first * size)


def masked_softmax(
    ctx: Lowering,
    n: Sizes,
    window: Window,
    stage: int,
    scores: View,
    mask: Tensor | None,
    lengths: Tensor | None,
    y: View,
) -> Dispatch:
    kind, steps = 0, [0, 0, 0, 0]
    if mask is not None:
        kind = 2 if mask.dtype in FLOATS else 1
        shape = (1,) * (4 - len(mask.shape)) + mask.shape
        step = 1
        for d in range(3, -1, -1):
            steps[d] = step if shape[d] != 1 else 0
            step *= shape[d]
        # a single key is addressed as the first of a row, unless it stands for all of them
        steps[3] = 0 if window.single_mask_key else 1
    grid = spread(ctx.caps, n.queries, n.heads, n.batch, size=1)
    pitch = scores.shape[-1]
    row = share_row(ctx.caps, pitch, (scores, y))
    push: dict[str, int | float | list[int]] = {
        "batches": n.batch,
        "heads": n.heads,
        "queries": n.queries,
        "keys": n.total_keys,
        "elements": pitch // row.unit,
        "mask_step": steps,
        "mask_keys": window.mask_keys,
        "past": n.past,
        "left": window.left,
        "right": window.right,
        "softcap": window.softcap,
    }
    return ctx.dispatch(
        "attention_softmax",
        {
            "scores": scores,
            "mask": None if mask is None else ctx.operand(mask, "linear"),
            "lengths": None if lengths is None else ctx.operand(lengths, "linear"),
            "y": y,
        },
        push,
        {
            **grid.spec,
            "local_size_x": row.lanes,
            "stage": stage,
            "mask_kind": kind,
            "has_lengths": int(lengths is not None),
            "has_softcap": int(window.softcap > 0),
            "empty_is_nan": int(window.empty_is_nan),
            "windowed": int(window.left >= 0 or window.right >= 0),
            "ragged": int(pitch > n.total_keys),
            "kept": row.kept,
        },
        grid.count,
        **row.axes,
    )


def scratch_tensor(ctx: Lowering, shape: tuple[int, ...], name: str) -> View:
    """A dense float32 temporary of a shape."""
    return View(ctx.scratch(prod(shape), name).storage, shape, "float32", "linear")


def _tensor(view: View) -> Tensor:
    return Tensor(Value("operand", TensorType("float32", view.shape)), view)
