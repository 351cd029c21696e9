"""Workgroup sizes and grids for kernels whose loops cover any range (``include/grid.glsl``)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from vkconv.capabilities import DeviceCaps
from vkconv.ops.shapes import ceil_div

#: workgroups that keep a CPU driver's threads busy. More only cost: starting one takes lavapipe
#: 0.2 us, in which it copies 100 floats
CPU_WORKGROUPS = 512
#: turns of its loops that one invocation may take. llvmpipe ends a shader's loops, without a word,
#: once an invocation has been through about 65,535 turns of all its loops together, those within
#: each item included
MAX_TURNS = 4096


@dataclass(frozen=True)
class Grid:
    """Workgroups, and the specialization constants of ``include/grid.glsl`` that go with them."""

    count: tuple[int, int, int]
    spec: dict[str, int]


def lanes(caps: DeviceCaps, width: int) -> int:
    """Invocations per workgroup along x for ``width`` items: 64, or 32 on CPU drivers (where a
    workgroup is one thread's work); halved while half would cover ``width``."""
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
    return spread(caps, width, height, depth, size=lanes_x).count


def spread(
    caps: DeviceCaps,
    width: int,
    height: int = 1,
    depth: int = 1,
    *,
    size: int | None = None,
    most_turns: int = MAX_TURNS,
) -> Grid:
    """``cover`` with the constants that leave out the loops which the grid does not need; ``size``
    is the workgroup's (``lanes`` by default). ``most_turns``: fewer where each has long loops."""
    size = lanes(caps, width) if size is None else size
    wanted = (max(1, ceil_div(width, size)), max(1, height), max(1, depth))
    x, y, z = wanted
    if caps.kind == "cpu":
        x = min(x, max(1, CPU_WORKGROUPS // (y * z)))
        # looping over y or z as well pays only when very many are saved
        if y * z > 4 * CPU_WORKGROUPS:
            y = min(y, max(1, CPU_WORKGROUPS // z))
            z = min(z, CPU_WORKGROUPS)
    limit = caps.max_workgroup_count
    x, y, z = _within_turns((x, y, z), wanted, max(1, min(most_turns, MAX_TURNS)))
    count = (min(x, limit[0]), min(y, limit[1]), min(z, limit[2]))
    loops = [int(a < b) for a, b in zip(count, wanted, strict=True)]
    spec = {"local_size_x": size, **dict(zip(("loop_x", "loop_y", "loop_z"), loops, strict=True))}
    return Grid(count, spec)


def _within_turns(count: tuple[int, ...], wanted: tuple[int, ...], most: int) -> tuple[int, ...]:
    """More workgroups, along z first, until no invocation takes more than ``most`` turns."""
    grown = list(count)
    for axis in (2, 1, 0):
        turns = prod(ceil_div(w, c) for w, c in zip(wanted, grown, strict=True))
        grown[axis] = min(wanted[axis], grown[axis] * ceil_div(turns, most))
    return tuple(grown)
