"""Kernels that work along an axis: where its rows lie, and whether the lanes of a workgroup share one."""

from __future__ import annotations

from dataclasses import dataclass

#: rows from this length on are worth sharing
SHARED_LENGTH = 16
#: too few rows to give every lane its own
FEW_ROWS = 64


@dataclass(frozen=True)
class Rows:
    """Push constants that say where element i of row (o, c) lies: o * outer_stride + c * row_stride + i * step."""

    push: dict[str, int]
    shared: bool

    @property
    def lanes(self) -> str:
        """The kernels' variant."""
        return "shared_row" if self.shared else "own_row"


def rows_along(outer: int, length: int, inner: int) -> Rows:
    """The rows of a dense tensor seen as (outer, length, inner). Lanes share dense rows, and few long ones; else each
    lane has a row of its own, beside its neighbours' where that is possible."""
    shared = length >= SHARED_LENGTH and (inner == 1 or outer * inner < FEW_ROWS)
    if inner == 1:
        push = {"outer": 1, "outer_stride": 0, "rows": outer, "row_stride": length}
    else:
        push = {"outer": outer, "outer_stride": length * inner, "rows": inner, "row_stride": 1}
    return Rows({**push, "length": length, "step": inner}, shared)
