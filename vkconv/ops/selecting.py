"""The best few elements of long rows picked on the device, without sorting the rest.

A radix select: the key of the last element that is taken is settled digit by digit from counts of
the keys' digits (Alabi et al., "Fast K-selection Algorithms for Graphics Processing Units", 2012).
What is taken keeps its order.
"""

from __future__ import annotations

from vkconv.dispatch import Dispatch, View
from vkconv.ops.lowering import Lowering
from vkconv.ops.rows import full_grid
from vkconv.ops.shapes import ceil_div

#: rows from this length on, of which at most this share is kept: sorting them whole would take
#: longer
LONG_ROW = 1024
MOST_KEPT = 1 / 2
#: elements that one workgroup goes through at least, and the most workgroups that share a row
CHUNK = 4096
MOST_CHUNKS = 256
#: ``RADIX_BITS`` of include/radix_select.glsl
RADIX_BITS = 8
KEY_BITS = 32


def worth_selecting(length: int, kept: int) -> bool:
    """Whether to pick elements before they are sorted."""
    return length >= LONG_ROW and kept <= length * MOST_KEPT


def select_rows(
    ctx: Lowering, x: View, rows: int, length: int, inner: int, kept: int, *, ascending: bool
) -> tuple[list[Dispatch], View]:
    """Dispatches, and the best ``kept`` of each row in the order they have there: indices (rows,
    kept), then elements (rows, kept). Rows and order are those of ``sort_rows``."""
    chunk = max(CHUNK, ceil_div(length, MOST_CHUNKS))
    chunks = ceil_div(length, chunk)
    lanes = 16 if ctx.caps.kind == "cpu" else 64
    wide, single = full_grid(ctx.caps, chunks, rows, lanes), full_grid(ctx.caps, 1, rows, lanes)
    state = ctx.scratch(rows * 2, "last keys")
    counts = ctx.scratch(rows * chunks << RADIX_BITS, "digits")
    tallies = ctx.scratch(rows * chunks * 2, "tallies")
    picked = ctx.scratch(rows * kept * 2, "picked")
    push = {"rows": rows, "length": length, "inner": inner, "chunks": chunks, "chunk": chunk}
    order = {"is_float": int(not x.is_integer), "ascending": int(ascending)}
    result: list[Dispatch] = []
    for shift in range(KEY_BITS - RADIX_BITS, -1, -RADIX_BITS):
        result += [
            ctx.dispatch(
                "radix_count",
                {"x": x, "state": state, "counts": counts},
                push,
                {**wide.spec, **order, "shift": shift},
                wide.count,
            ),
            ctx.dispatch(
                "radix_settle",
                {"counts": counts, "state": state},
                {"rows": rows, "chunks": chunks, "kept": kept},
                {**single.spec, "first_digit": int(shift + RADIX_BITS == KEY_BITS)},
                single.count,
            ),
        ]
    result += [
        ctx.dispatch(
            "radix_collect",
            {"x": x, "state": state, "tallies": tallies, "y": picked},
            {**push, "kept": kept},
            {**wide.spec, **order, "collect": collect},
            wide.count,
        )
        for collect in (0, 1)
    ]
    return result, picked
