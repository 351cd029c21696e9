"""Broadcasting as strides: which dimensions a kernel has to loop over, and the step of each operand
in them.

A broadcast dimension has stride 0. Neighbouring dimensions that all operands walk through without a
break are merged, so that the common cases (same shapes, a scalar, one value per channel) become one
or two dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import View, c4_dims
from vkconv.ops.grids import Grid, spread

#: dimensions that the kernels' push constants have room for
KERNEL_DIMENSIONS = 6


@dataclass(frozen=True)
class Walk:
    """Sizes of the loop, and per operand the stride in each dimension."""

    size: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    def merged(self, first: int = 0) -> Walk:
        """The same walk; from ``first`` on, size 1 dropped and neighbours merged."""
        kept: list[tuple[int, list[int]]] = []
        for d in range(first, len(self.size)):
            size, steps = self.size[d], [s[d] for s in self.strides]
            if size == 1:
                continue
            if kept and all(
                outer == step * size for outer, step in zip(kept[-1][1], steps, strict=True)
            ):
                kept[-1] = (kept[-1][0] * size, steps)
            else:
                kept.append((size, steps))
        return Walk(
            self.size[:first] + tuple(size for size, _ in kept),
            tuple(
                s[:first] + tuple(steps[i] for _, steps in kept) for i, s in enumerate(self.strides)
            ),
        )

    def padded(self, rank: int = KERNEL_DIMENSIONS, at: int = 0) -> Walk:
        """The same walk in ``rank`` dimensions: some of size 1 come before dimension ``at``."""
        missing = rank - len(self.size)
        assert missing >= 0, f"{len(self.size)} dimensions do not merge into {rank}"
        return Walk(
            self.size[:at] + (1,) * missing + self.size[at:],
            tuple(s[:at] + (0,) * missing + s[at:] for s in self.strides),
        )


def linear_walk(shape: Sequence[int], operands: Sequence[Sequence[int]]) -> Walk:
    """The merged walk of row-major tensors of the shapes ``operands``, then the result of
    ``shape``."""
    strides = [_linear_strides(operand, shape) for operand in (*operands, shape)]
    return Walk(tuple(shape), tuple(strides)).merged()


def _linear_strides(operand: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    aligned = (1,) * (len(shape) - len(operand)) + tuple(operand)
    strides = [0] * len(shape)
    step = 1
    for d in range(len(shape) - 1, -1, -1):
        if aligned[d] != 1:
            strides[d] = step
        step *= aligned[d]
    return tuple(strides)


def c4_walk(result: View, operands: Sequence[View]) -> tuple[Walk, tuple[bool, ...]]:
    """The walk of C4 tensors of one rank, in vec4s; and per operand whether its one channel serves
    all lanes.

    Such an operand's strides count scalars. While the result has padding lanes, its channel blocks
    stay dimension 1 of the walk; else everything merges that can.
    """
    n, blocks, _, _ = c4_dims(result.shape)
    spatial = result.shape[2:]
    strides = []
    splats = []
    for view in (*operands, result):
        splat = view.shape[1] == 1 and result.shape[1] > 1
        plane = 1
        steps = [0] * len(spatial)
        for d in range(len(spatial) - 1, -1, -1):
            if view.shape[2 + d] != 1:
                steps[d] = plane
            plane *= view.shape[2 + d]
        batch = view.batch_stride // 4 if view.shape[0] != 1 else 0
        block = plane if c4_dims(view.shape)[1] > 1 else 0
        scale = 4 if splat else 1
        strides.append(tuple(scale * s for s in (batch, block, *steps)))
        splats.append(splat)
    walk = Walk((n, blocks, *spatial), tuple(strides))
    return walk.merged(2 if result.shape[1] % 4 else 0), tuple(splats[:-1])


def walk_grid(caps: DeviceCaps, walk: Walk) -> Grid:
    """A grid for the KERNEL_DIMENSIONS of a padded walk: the last ones, as many as the
    specialization constant ``lane_dimensions`` says, over the lanes, the first three along z."""
    over_lanes = _lane_dimensions(walk)
    rows = KERNEL_DIMENSIONS - over_lanes
    grid = spread(caps, prod(walk.size[rows:]), prod(walk.size[3:rows]), prod(walk.size[:3]))
    return Grid(grid.count, {**grid.spec, "lane_dimensions": over_lanes})


def _lane_dimensions(walk: Walk) -> int:
    """How many of the last dimensions run over the lanes: more of them where the innermost are
    short."""
    count = 1
    while count < 3 and prod(walk.size[-count:]) < 16:
        # the kernels divide by way of floats, which is exact for quotients below 2^22
        if prod(walk.size[-count - 1 : -1]) >= 1 << 22:
            break
        count += 1
    return count


def in_vec4s(walk: Walk, views: Sequence[View]) -> tuple[Walk, tuple[bool, ...]] | None:
    """A linear walk in vec4s, and which operands are scalars along the innermost dimension; None if
    it can't be."""
    if not walk.size or walk.size[-1] % 4:
        return None
    if any(v.offset % 4 for v in views):
        return None
    strides = []
    for steps in walk.strides:
        if steps[-1] == 0:
            strides.append(steps)
        elif any(s % 4 for s in steps[:-1]):
            return None
        else:
            strides.append((*(s // 4 for s in steps[:-1]), 1))
    size = (*walk.size[:-1], walk.size[-1] // 4)
    return Walk(size, tuple(strides)), tuple(s[-1] == 0 for s in strides[:-1])
