"""Scatters on the device: every element of the result looks up which update goes to it.

So results never depend on which update happens to come first. Without a reduction the table *last*
holds each target's last update. With one the updates are sorted by target and those of a target
combined side by side, in their order and in as many steps as the logarithm of their number; *last*
is where the result then lies. From constant indices table and order are made when the model is
planned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from vkconv.dispatch import ELEMENT_BYTES, Dispatch, View
from vkconv.errors import InvalidModelError, UnsupportedModelError
from vkconv.ir import Array
from vkconv.ops.copying import Dim, strided_copy
from vkconv.ops.grids import spread
from vkconv.ops.lowering import Lowering, Tensor
from vkconv.ops.picking import pick_slices
from vkconv.ops.sorting import sort_rows


class Reduction(IntEnum):
    """``REDUCE_<name>`` of ``include/scatter_reductions.glsl`` (a test compares)."""

    NONE = 0
    ADD = 1
    MUL = 2
    MAX = 3
    MIN = 4


#: how numpy combines updates with what is there; the last of equal places stays with a plain
#: assignment
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
    """Where updates go: ``push`` and ``spec`` for scatter_targets.comp in variant ``index``;
    ``places`` is the same of constant indices, in numpy."""

    index: str
    count: int
    updates: int
    push: dict[str, int | list[int]]
    depth: int
    places: Callable[[Array], Array]


@dataclass(frozen=True)
class _Sorted:
    """Updates in the order of their targets: keys that tell these apart, the update at each place,
    and at most how many go to one target."""

    keys: View
    order: View
    most: int


def scatter(
    ctx: Lowering,
    x: View,
    indices: Tensor,
    updates: View,
    y: View,
    targets: Targets,
    reduction: Reduction,
) -> list[Dispatch]:
    """Dispatches of y = x with the updates; all linear, y has ``targets.count`` rows that are
    updated as a whole."""
    if not y.span:
        return []
    inner = y.span // targets.count
    found = _constant_last if indices.array is not None else _computed_last
    dispatches, last, ordered = found(ctx, indices, targets, reduction)
    if ordered is not None:
        more, updates = _combined(ctx, ordered, updates, inner, reduction)
        dispatches += more
    grid = spread(ctx.caps, y.span)
    dispatches.append(
        ctx.dispatch(
            "scatter_apply",
            {"x": x, "last": last, "updates": updates, "y": y},
            {"targets": targets.count, "inner": inner},
            {**grid.spec, "reduction": int(reduction), "inner_is_one": int(inner == 1)},
            grid.count,
            dtype=_dtype(y, reduction),
        )
    )
    return dispatches


def last_of(places: Array, count: int) -> Array:
    """For each of ``count`` targets where it last occurs in ``places``, or -1."""
    last = np.full(count, -1, np.int32)
    last[places] = np.arange(len(places), dtype=np.int32)
    return last


def _dtype(y: View, reduction: Reduction) -> str:
    # what is only moved is moved as bits
    return "int" if y.is_integer or reduction == Reduction.NONE else "float"


def _constant_last(
    ctx: Lowering, indices: Tensor, targets: Targets, reduction: Reduction
) -> tuple[list[Dispatch], View, _Sorted | None]:
    array = indices.array
    assert array is not None
    if targets.count * ELEMENT_BYTES > ctx.caps.max_storage_buffer_range:
        raise UnsupportedModelError(
            f"a scatter over {targets.count} targets takes {targets.count * ELEMENT_BYTES} bytes "
            "for a table of them, more than the device's maxStorageBufferRange of "
            f"{ctx.caps.max_storage_buffer_range}; use a smaller input size"
        )
    tag = f"scatter {targets.index} {targets.count} {targets.push}"
    if reduction == Reduction.NONE or not targets.updates:
        last = ctx.prepack(
            array, f"{tag} last", lambda: last_of(targets.places(array), targets.count)
        )
        return [], last, None
    places = targets.places(array)
    order = np.argsort(places, kind="stable")
    keys = ctx.prepack(array, f"{tag} keys", lambda: places[order])
    last = ctx.prepack(array, f"{tag} sorted", lambda: last_of(places[order], targets.count))
    most = int(np.bincount(places).max())
    return [], last, _Sorted(keys, ctx.prepack(array, f"{tag} order", lambda: order), most)


def _computed_last(
    ctx: Lowering, indices: Tensor, targets: Targets, reduction: Reduction
) -> tuple[list[Dispatch], View, _Sorted | None]:
    count, updates = targets.count, targets.updates
    minus_one = ctx.constant(np.full(1, -1, np.int32), "no update")
    last = replace(ctx.scratch(count, "last updates"), dtype="int32")
    result = strided_copy(ctx, minus_one, last, [Dim(count, 0, 1)])
    if not updates:
        return result, last, None
    winners = reduction == Reduction.NONE
    places = last if winners else replace(ctx.scratch(updates, "targets"), dtype="int32")
    grid = spread(ctx.caps, updates)
    result.append(
        ctx.dispatch(
            "scatter_targets",
            {"indices": ctx.operand(indices, "linear"), "targets": places},
            {"updates": updates, **targets.push},
            {**grid.spec, "winners": int(winners), "depth": targets.depth},
            grid.count,
            index=targets.index,
        )
    )
    if winners:
        return result, last, None
    sorting, pairs = sort_rows(ctx, places, 1, updates, 1, updates, ascending=True)
    keys = replace(pairs, shape=(updates,), dtype="int32")
    order = replace(keys, offset=updates)
    push = {"updates": updates}
    marking = ctx.dispatch(
        "scatter_last", {"keys": keys, "last": last}, push, grid.spec, grid.count
    )
    return [*result, *sorting, marking], last, _Sorted(keys, order, updates)


def _combined(
    ctx: Lowering, ordered: _Sorted, updates: View, inner: int, reduction: Reduction
) -> tuple[list[Dispatch], View]:
    """The updates in order, each combined with all before it that go to the same target."""
    count = ordered.order.span
    shape = (count, inner)
    values = replace(
        ctx.scratch(count * inner, "ordered updates"), shape=shape, dtype=updates.dtype
    )
    source = replace(updates, shape=shape)
    result = pick_slices(ctx, source, ordered.order, values, 0)
    grid = spread(ctx.caps, count * inner)
    distance = 1
    while distance < ordered.most:
        combined = replace(
            ctx.scratch(count * inner, "combined updates"), shape=shape, dtype=updates.dtype
        )
        result.append(
            ctx.dispatch(
                "scatter_combine",
                {"keys": ordered.keys, "x": values, "y": combined},
                {"updates": count, "inner": inner, "distance": distance},
                {**grid.spec, "reduction": int(reduction), "inner_is_one": int(inner == 1)},
                grid.count,
                dtype=_dtype(updates, reduction),
            )
        )
        values, distance = combined, distance * 2
    return result, values
