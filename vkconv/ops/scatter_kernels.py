"""Scatters on the device: every element of the result looks up which updates go to it.

So results never depend on which update happens to come first: without a reduction the last of several updates stays;
with one they are combined in their order. The look-up table, the *chain*, is what scatter_apply.comp describes. From
constant indices it is made when the model is planned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from vkconv.dispatch import Dispatch, View
from vkconv.errors import InvalidModelError
from vkconv.ir import Array
from vkconv.ops.base import Lowering, Tensor
from vkconv.ops.copying import Dim, strided_copy
from vkconv.ops.grids import spread
from vkconv.ops.sorting import sort_rows


class Reduction(IntEnum):
    """``REDUCE_<name>`` of ``shaders/scatter_apply.comp`` (a test compares)."""

    NONE = 0
    ADD = 1
    MUL = 2
    MAX = 3
    MIN = 4


#: how numpy combines updates with what is there; the last of equal places stays with a plain assignment
COMBINE: dict[Reduction, np.ufunc] = {
    Reduction.ADD: np.add,
    Reduction.MUL: np.multiply,
    Reduction.MAX: np.maximum,
    Reduction.MIN: np.minimum,
}


def reduction_named(name: str, version: int) -> Reduction:
    """The reduction of an attribute: none before version 16, max and min since 18."""
    known = {r.name.lower(): r for r in Reduction}
    if name not in known or (version < 18 and known[name] in (Reduction.MAX, Reduction.MIN)):
        raise InvalidModelError(f"reduction '{name}' is not one of: {', '.join(known)}")
    return known[name]


def apply_updates(y: Array, places: Array, updates: Array, reduction: Reduction) -> None:
    """In place: ``updates`` (U, inner) into the rows ``places`` of y (targets, inner)."""
    with np.errstate(all="ignore"):
        if reduction == Reduction.NONE:
            y[places] = updates
        else:
            COMBINE[reduction].at(y, places, updates)


@dataclass(frozen=True)
class Targets:
    """Where updates go: ``push`` and ``spec`` for scatter_targets.comp in variant ``index``; ``places`` is the same of
    constant indices, in numpy."""

    index: str
    count: int
    updates: int
    push: dict[str, int | list[int]]
    depth: int
    places: Callable[[Array], Array]


def scatter(
    ctx: Lowering,
    x: View,
    indices: Tensor,
    updates: View,
    y: View,
    targets: Targets,
    reduction: Reduction,
) -> list[Dispatch]:
    """y = x with the updates; all linear, y has ``targets.count`` rows that are updated as a whole."""
    if not y.span:
        return []
    dispatches: list[Dispatch] = []
    if indices.array is not None:
        array, tag = indices.array, f"chain {targets.index} {targets.count} {reduction.name} {targets.push}"
        chain = ctx.prepack(array, tag, lambda: chain_of(targets.places(array), targets.count, reduction))
    else:
        dispatches, chain = _computed_chain(ctx, ctx.operand(indices, "linear"), targets, reduction)
    inner = y.span // targets.count
    grid = spread(ctx.caps, y.span)
    dispatches.append(
        ctx.dispatch(
            "scatter_apply",
            {"x": x, "chain": chain, "updates": updates, "y": y},
            {"targets": targets.count, "updates_count": targets.updates, "inner": inner},
            {**grid.spec, "reduction": int(reduction), "inner_is_one": int(inner == 1)},
            grid.count,
            dtype="int" if y.is_integer or reduction == Reduction.NONE else "float",
        )
    )
    return dispatches


def chain_of(places: Array, count: int, reduction: Reduction) -> Array:
    """The chain of updates that go to ``places``, of ``count`` targets."""
    heads = np.full(count, -1, np.int32)
    order = np.arange(len(places), dtype=np.int32)
    if reduction == Reduction.NONE:
        heads[places] = order
        return heads
    order = np.argsort(places, kind="stable").astype(np.int32)
    ordered = places[order]
    # written from the back, so that the first update of a target stays
    heads[ordered[::-1]] = np.arange(len(places), dtype=np.int32)[::-1]
    return np.concatenate([heads, ~ordered.astype(np.int32), order])


def _computed_chain(
    ctx: Lowering, indices: View, targets: Targets, reduction: Reduction
) -> tuple[list[Dispatch], View]:
    count, updates = targets.count, targets.updates
    winners = reduction == Reduction.NONE
    minus_one = ctx.constant(np.full(1, -1, np.int32), "no update")
    heads = replace(ctx.scratch(count, "last updates"), dtype="int32")
    result = strided_copy(ctx, minus_one, heads, [Dim(count, 0, 1)])
    if not updates:
        return result, heads
    places = heads if winners else replace(ctx.scratch(updates, "targets"), dtype="int32")
    grid = spread(ctx.caps, updates)
    result.append(
        ctx.dispatch(
            "scatter_targets",
            {"indices": indices, "targets": places},
            {"updates": updates, **targets.push},
            {**grid.spec, "winners": int(winners), "depth": targets.depth},
            grid.count,
            index=targets.index,
        )
    )
    if winners:
        return result, heads
    sorting, pairs = sort_rows(ctx, places, 1, updates, 1, updates, ascending=True)
    chain = replace(ctx.scratch(count + 2 * updates, "chain"), dtype="int32")
    heads = replace(chain, shape=(count,))
    keys = replace(pairs, shape=(updates,), dtype="int32")
    return [
        *strided_copy(ctx, minus_one, heads, [Dim(count, 0, 1)]),
        *result[1:],
        *sorting,
        ctx.dispatch(
            "scatter_heads", {"sorted": keys, "heads": heads}, {"updates": updates}, grid.spec, grid.count
        ),
        *strided_copy(
            ctx,
            replace(pairs, dtype="int32"),
            replace(chain, shape=(2 * updates,), offset=count),
            [Dim(2 * updates, 1, 1)],
        ),
    ], chain
