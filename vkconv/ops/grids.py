"""Workgroup sizes and grids for kernels whose loops cover any range (``include/grid.glsl``)."""

from __future__ import annotations

from vkconv.capabilities import DeviceCaps
from vkconv.ops.base import ceil_div


def lanes(caps: DeviceCaps, width: int) -> int:
    """Invocations per workgroup along x for ``width`` items: 64, or 32 on CPU drivers (a workgroup
    is one thread's work there, and a short row should still be shared); halved while half would
    cover ``width``."""
    count = 32 if caps.kind == "cpu" else 64
    count = min(count, caps.max_workgroup_invocations, caps.max_workgroup_size[0])
    while count > 8 and count // 2 >= width:
        count //= 2
    return count


def cover(
    caps: DeviceCaps, lanes_x: int, width: int, height: int = 1, depth: int = 1
) -> tuple[int, int, int]:
    """Workgroups for ``width`` invocations by ``height`` by ``depth`` workgroups, within the
    device's limits: the kernel's loops stride over what a clamped grid leaves."""
    limit = caps.max_workgroup_count
    return (
        max(1, min(ceil_div(width, lanes_x), limit[0])),
        max(1, min(height, limit[1])),
        max(1, min(depth, limit[2])),
    )
