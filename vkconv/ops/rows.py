"""Kernels that work along an axis: where its rows lie, and whether the lanes of a workgroup share
one."""

from __future__ import annotations

from dataclasses import dataclass

from vkconv.capabilities import DeviceCaps
from vkconv.ops.grids import Grid, lanes
from vkconv.ops.reduction_kernels import MOST_ITERATIONS
from vkconv.ops.shapes import ceil_div
from vkconv.ops.shared_rows import CHUNK, lanes_per_row

#: rows from this length on are worth sharing
SHARED_LENGTH = 16
#: too few rows to give every lane its own
FEW_ROWS = 64
#: enough rows to give every lane of a CPU driver its own
MANY_ROWS = 512
#: times a kernel walks along its row at most
PASSES = 2


@dataclass(frozen=True)
class Rows:
    """Element i of row (o, c) lies at o * outer_stride + c * row_stride + i * step.

    Lanes share dense rows, and few long ones; else each lane has a row of its own, beside its
    neighbours' where that is possible.
    """

    outer: int
    outer_stride: int
    rows: int
    row_stride: int
    length: int
    step: int
    shared: bool

    @property
    def push(self) -> dict[str, int]:
        names = ("outer", "outer_stride", "rows", "row_stride", "length", "step")
        return {name: getattr(self, name) for name in names}

    @property
    def lanes(self) -> str:
        """The kernels' variant."""
        return "shared_row" if self.shared else "own_row"

    def grid(self, caps: DeviceCaps) -> Grid:
        """A workgroup for every row that is shared, a lane for every other. Not fewer on CPU
        drivers, as for kernels with less to do: the iterations of an invocation are limited."""
        size = lanes_per_row(caps, self.length) if self.shared else lanes(caps, self.rows)
        return full_grid(
            caps, self.rows if self.shared else ceil_div(self.rows, size), self.outer, size
        )


def rows_along(caps: DeviceCaps, outer: int, length: int, inner: int) -> Rows:
    """The rows of a dense tensor seen as (outer, length, inner)."""
    # lanes beside each other read dense rows slowly on a GPU; a CPU driver doesn't care, and its
    # barriers cost
    dense = inner == 1 and not (caps.kind == "cpu" and outer >= MANY_ROWS)
    shared = length >= SHARED_LENGTH and (dense or outer * inner < FEW_ROWS or length > CHUNK)
    if inner == 1:
        return Rows(1, 0, outer, length, length, inner, shared)
    return Rows(outer, length * inner, inner, 1, length, inner, shared)


def too_long(length: int) -> str | None:
    """Why kernels can't walk along an axis of that length, or None."""
    if length * PASSES // 64 > MOST_ITERATIONS:
        return "the axis is too long for one invocation's loops"
    return None


def full_grid(caps: DeviceCaps, x: int, y: int, size: int) -> Grid:
    """``x`` by ``y`` workgroups of ``size`` lanes, as far as the device goes."""
    limit = caps.max_workgroup_count
    spec = {
        "local_size_x": size,
        "loop_x": int(x > limit[0]),
        "loop_y": int(y > limit[1]),
        "loop_z": 0,
    }
    return Grid((min(x, limit[0]), min(y, limit[1]), 1), spec)
