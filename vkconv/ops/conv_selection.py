"""Which kernel of the convolution family for which shape on which device: pure rules.

``select_kernel`` gives the one to use: what a tuning record names, where it is one of
``candidates``, else what the rules say. Problems and choices have a stable textual form, so that a
record is a mapping of text to text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import product

from vkconv.capabilities import DeviceCaps
from vkconv.ops.conv_costs import best_pixels, depthwise_cost, winograd_fits, with_winograd
from vkconv.ops.conv_problem import SHUFFLE_LANES, SUBGROUP, Choice, Problem, parts
from vkconv.ops.shapes import ceil_div

#: outputs and pixels of a workgroup of ``conv2d_shared``, and the shared memory it takes
SHARED_TILE = 64
SHARED_BYTES = 16384
#: invocations below which a GPU is not filled, so that smaller tiles are better. A judgement: a
#: mobile GPU runs some 500 to 2,000 at a time, a desktop one many times that.
FILLED = {"discrete": 8192}
FILLED_ELSEWHERE = 2048
#: windows beyond these go to kernels that loop over them: columns of a dense kernel, taps of a
#: depthwise one, and what a row of four results spans in x
MOST_COLUMNS, MOST_TAPS, MOST_SPAN = 31, 121, 256
#: phases of a transposed convolution, each of which takes workgroups of its own
MOST_PHASES = 1024
#: how kernels for GPUs may read other than from storage buffers
TEXTURED = {
    "conv2d_8x4": ("uniform_texel", "weights_texel"),
    "conv_transpose2d_8x4": ("uniform_texel", "weights_texel"),
    "depthwise_conv2d_4x1": ("uniform_texel",),
}


def select_kernel(
    problem: Problem, caps: DeviceCaps, choices: Mapping[str, str] | None = None
) -> Choice:
    """The kernel for a shape on a device: what ``choices`` (``Problem.key`` to text of a Choice)
    names if it is a candidate, else by rule.

    On CPU drivers (measured on lavapipe): 32 or 16 outputs by 4 pixels an invocation, groups of 8
    lanes (one SIMD register), weights spread by shuffles. Elsewhere: 8 x 4 sums, which mobile GPUs
    keep in registers, and groups of 64; on discrete GPUs 64 x 64 sums a group through shared
    memory.
    """
    named = None if choices is None else choices.get(problem.key)
    if named is not None:
        for candidate in candidates(problem, caps):
            if str(candidate) == named:
                return candidate
    return _by_rule(problem, caps)


def candidates(problem: Problem, caps: DeviceCaps) -> list[Choice]:
    """All choices worth timing for a shape on a device, each of which computes it; the rules' own
    comes first, what reads its operands otherwise next."""
    rule = _by_rule(problem, caps)
    tiles = [rule, *_considered(problem, caps)]
    ordered = [rule, *_through_textures([rule], caps), *tiles, *_through_textures(tiles, caps)]
    return list(dict.fromkeys(ordered))


def _through_textures(choices: Iterable[Choice], caps: DeviceCaps) -> list[Choice]:
    """Those of a GPU's choices that read texels, in groups of one size: some (Adreno) have a cache
    for textures that storage buffers do not use."""
    if caps.kind == "cpu" or not caps.uniform_texel:
        return []
    lanes = _lanes(caps, 64)
    return [
        replace(choice, access=access)
        for choice in choices
        for access in TEXTURED.get(choice.kernel, ())
        if choice.lanes == lanes
    ]


def _considered(problem: Problem, caps: DeviceCaps) -> list[Choice]:
    lanes = _lanes(caps, 64)
    sizes = sorted({min(lanes, n) for n in ((8, 32) if caps.kind == "cpu" else (32, 64, 128))})
    if problem.is_depthwise:
        tiles = [(1, 1), (1, 4), (2, 2), (2, 4), (4, 2), (4, 4), (2, 8)]
        taps = problem.y.kernel * problem.x.kernel
        return [Choice("depthwise_conv2d_4x1", 1, 4, size) for size in sizes] + [
            Choice("depthwise_conv2d", rows, pixels, size)
            for (rows, pixels), size in product(tiles, sizes)
            if rows * pixels * taps <= 400 and rows <= problem.y.out and _unrolls(problem, caps)
        ]
    if not problem.has_whole_groups:
        return [Choice("grouped_conv", 4, 1, size) for size in sizes]
    if _is_spatial(problem):
        tiles = [(tile, pixels) for tile in _tiles(problem, (4, 8)) for pixels in (2, 4)]
        return [Choice("conv3d", *tile, size) for tile, size in product(tiles, sizes)]
    direct = _products(problem, caps, _plain(problem), sizes)
    sums = [c for c in _products(problem, caps, "conv2d_1x1", sizes) if c.output_tile >= 8]
    return direct + [
        replace(c, kernel=kernel, multiply=c.kernel)
        for kernel, edge in (("winograd_4x4", 4), ("winograd_2x2", 2))
        if winograd_fits(problem, caps, edge)
        for c in sums
    ]


def _products(problem: Problem, caps: DeviceCaps, plain: str, sizes: list[int]) -> list[Choice]:
    """Tiles of the kernels that multiply channels by weights; ``plain`` is the one with tiles by
    specialization constants."""
    small = _written_out(problem)
    found = [Choice(small, tile, 4, size) for tile in _tiles(problem, (4, 8)) for size in sizes]
    if _shared_fits(caps) and not _is_sub_pixel(problem):
        found += [Choice("conv2d_shared", SHARED_TILE, SHARED_TILE, n) for n in _shared_lanes(caps)]
    if not _unrolls(problem, caps):
        return found
    if plain == "conv2d_1x1" and (sharing := _sharing_pixels(problem, caps)):
        found += sharing
        if caps.kind == "cpu":
            return found
    # every tile is a pipeline to compile: on CPU drivers, where that takes longest, only tiles near
    # the rules', and shuffles wherever there are any
    cpu = caps.kind == "cpu"
    tiles = _tiles(problem, (4, 8, 16, 32))[-2:] if cpu else _tiles(problem, (4, 8, 16))
    for tile, pixels, size in product(tiles, (2, 3, 4, 5, 8) if cpu else (1, 2, 4), sizes):
        shuffles = plain != "conv2d_1x1" and _shuffles(caps, tile, size)
        if tile * pixels > (128 if cpu else 64) or (cpu and size > 8 and pixels != 4):
            continue
        if not (cpu and shuffles):
            found.append(Choice(plain, tile, pixels, size))
        if shuffles:
            found.append(Choice(plain, tile, pixels, size, shuffle=True))
    return found


def _sharing_pixels(problem: Problem, caps: DeviceCaps) -> list[Choice]:
    """Tiles of SUBGROUP, with as many sums a lane as a CPU driver compiles in reasonable time, or
    as fit into a GPU's registers."""
    cpu = caps.kind == "cpu"
    tiles = [t for t in _tiles(problem, (8, 16, 32))[-2:] if _shares_pixels(caps, t)]
    counts = (16, 25, 32) if cpu else (4, 8)
    return [
        Choice(SUBGROUP, tile, parts(tile) * count, caps.subgroup_size)
        for tile, count in product(tiles, counts)
    ]


def _by_rule(problem: Problem, caps: DeviceCaps) -> Choice:
    cpu = caps.kind == "cpu"
    lanes = _lanes(caps, 8 if cpu else 64)
    if problem.is_depthwise:
        if not cpu or not _unrolls(problem, caps):
            # 16 sums: the 64 and the window of the other kernel are more than mobile GPUs hold
            return Choice("depthwise_conv2d_4x1", 1, 4, lanes)
        return min(_depthwise_tiles(problem, caps), key=lambda c: depthwise_cost(problem, c))
    if not problem.has_whole_groups:
        return Choice("grouped_conv", 4, 1, _lanes(caps, lanes * 4))
    if _is_spatial(problem):
        tile = _cpu_tile(problem, caps)
        if cpu and caps.unrolls_loops and not problem.transposed and _shuffles(caps, tile, lanes):
            return Choice("conv3d", tile, 4, lanes, shuffle=True)
        return Choice("conv3d", _small_tiles(problem, caps)[-1], 4, lanes)
    if not cpu:
        return _on_gpu(problem, caps, lanes)
    if not _unrolls(problem, caps):
        return Choice(_written_out(problem), _small_tiles(problem, caps)[-1], 4, lanes)
    tile = _cpu_tile(problem, caps)
    plain = Choice("conv2d_1x1", tile, 4, lanes)
    if _shares_pixels(caps, tile):
        plain = Choice(SUBGROUP, tile, parts(tile), caps.subgroup_size)
    each = problem.batch * problem.groups * problem.in_channels * problem.out_channels
    if problem.is_matrix_product:
        return replace(plain, pixels=best_pixels(problem.out_pixels, plain, each))
    # these kernels have the pixels of an invocation in one row, of one phase
    columns = ceil_div(problem.x.out, problem.x.stride) if problem.transposed else problem.x.out
    if problem.in_channels < 4:  # stems: little work, and a group takes 600 cycles to start
        lanes = _lanes(caps, 32)
    tile = _cpu_tile(problem, caps, 1 if problem.transposed else problem.x.kernel)
    direct = Choice(_plain(problem), tile, 4, lanes, _shuffles(caps, tile, lanes))
    direct = replace(direct, pixels=best_pixels(columns, replace(direct, lanes=1), each))
    return with_winograd(problem, caps, plain, direct)


def _on_gpu(problem: Problem, caps: DeviceCaps, lanes: int) -> Choice:
    """On a discrete GPU the product through shared memory where it fills the device; else the small
    tile, made smaller yet where the map is small and the device would not be filled. Judgement:
    nothing here was measured on a GPU."""
    most = problem.batch * problem.groups * problem.out_pixels * problem.out_channels
    pays = problem.out_channels >= 48 and most >= 16 * SHARED_TILE * SHARED_TILE
    if caps.kind == "discrete" and _shared_fits(caps) and pays and not _is_sub_pixel(problem):
        return Choice("conv2d_shared", SHARED_TILE, SHARED_TILE, _shared_lanes(caps)[-1])
    wanted = FILLED.get(caps.kind, FILLED_ELSEWHERE)
    plain, small = _plain(problem), _written_out(problem)
    found = [Choice(small, tile, 4, lanes) for tile in reversed(_small_tiles(problem, caps))]
    if _unrolls(problem, caps):
        found += [Choice(plain, 4, pixels, lanes) for pixels in (2, 1)]
    for choice in found:
        if most >= wanted * choice.output_tile * choice.pixels:
            return choice
    return found[-1]


def _is_spatial(problem: Problem) -> bool:
    """Whether it takes the kernel with three axes: depth, or more phases of a transposed
    convolution than are worth a workgroup each."""
    if problem.is_pointwise:
        return False
    many = problem.transposed and problem.y.stride * problem.x.stride > MOST_PHASES
    return many or not problem.is_flat


def _plain(problem: Problem) -> str:
    """The kernel with tiles by specialization constants."""
    if problem.is_matrix_product:
        return "conv2d_1x1"
    return "conv_transpose2d" if problem.transposed else "conv2d"


def _written_out(problem: Problem) -> str:
    """Its sibling for GPUs, and for compilers that do not unroll."""
    return "conv_transpose2d_8x4" if _is_sub_pixel(problem) else "conv2d_8x4"


def _is_sub_pixel(problem: Problem) -> bool:
    return problem.transposed and not problem.is_pointwise


def _depthwise_tiles(problem: Problem, caps: DeviceCaps) -> list[Choice]:
    """Tiles that ``depthwise_conv2d`` may get by rule on a CPU driver. More than 8 outputs take
    more registers than there are (5 to 25 % slower), as do two rows of a kernel beyond 7 x 7."""
    taps = problem.y.kernel * problem.x.kernel
    tiles = [(2, 4), (4, 2), (1, 4), (2, 2), (1, 2)] if taps <= 49 else [(1, 4)]
    if problem.x.kernel > 7:
        tiles = [(1, 1)]
    most = max(problem.y.out, 1)
    lanes = dict.fromkeys(_lanes(caps, n) for n in (32, 8))
    return [Choice("depthwise_conv2d", *t, n) for t in tiles for n in lanes if t[0] <= most]


def _tiles(problem: Problem, sizes: tuple[int, ...]) -> list[int]:
    """Those of ``sizes`` (ascending) without one that leaves half of its outputs unused."""
    return [n for n in sizes if n == sizes[0] or n // 2 < problem.out_channels]


def _small_tiles(problem: Problem, caps: DeviceCaps) -> list[int]:
    """The outputs of an invocation of kernels with few sums."""
    return _tiles(problem, (4, 8) if caps.wide_tiles else (4,))


def _lanes(caps: DeviceCaps, wanted: int) -> int:
    return min(wanted, caps.max_workgroup_invocations, caps.max_workgroup_size[0])


def _unrolls(problem: Problem, caps: DeviceCaps) -> bool:
    """Whether tiles by specialization constants end up in registers; and whether a window that the
    driver writes out whole is small enough to (63 columns take lavapipe 2.6 s, 1000 for ever)."""
    columns = (problem.x.kernel - 1) * problem.x.dilation + 3 * problem.x.stride + 1
    taps = problem.x.kernel * (problem.y.kernel if problem.is_depthwise else 1)
    written = taps <= (MOST_TAPS if problem.is_depthwise else MOST_COLUMNS)
    looping = problem.is_matrix_product or (problem.transposed and problem.is_flat)
    loops = looping and not problem.is_depthwise
    return caps.unrolls_loops and (loops or (written and columns <= MOST_SPAN))


def _shuffles(caps: DeviceCaps, tile: int, lanes: int) -> bool:
    """Whether a group may spread its weights through shuffles."""
    wide = caps.subgroup_size >= SHUFFLE_LANES and lanes % caps.subgroup_size == 0
    return caps.subgroup_shuffle and wide and tile >= SHUFFLE_LANES


def _shares_pixels(caps: DeviceCaps, tile: int) -> bool:
    """Whether SUBGROUP runs, whose workgroup is one subgroup."""
    size = caps.subgroup_size
    return size <= _lanes(caps, size) and _shuffles(caps, tile, size)


def _shared_lanes(caps: DeviceCaps) -> list[int]:
    """Group sizes of ``conv2d_shared``: 16, 8 or 4 outputs an invocation."""
    return [n for n in (64, 128, 256) if n == _lanes(caps, n)]


def _shared_fits(caps: DeviceCaps) -> bool:
    return caps.max_shared_memory >= SHARED_BYTES and bool(_shared_lanes(caps))


def _cpu_tile(problem: Problem, caps: DeviceCaps, columns: int = 1) -> int:
    """32 outputs an invocation where weights are shuffled and 32 compute no more than 16 would: 5
    to 10 % less time on lavapipe (1x1, Winograd's products, transposed); fewer where there are
    fewer.

    16 where the kernel has a few ``columns`` of the window written out, 8 where it has 5 and more.
    Twice as many outputs take 0 to 7 % less time with Mesa 22.3, and up to 2.2 times as much with
    25.0 and 26.2 (docs/decisions/0010); and what is half as long compiles in half the time."""
    [*_, tile] = _tiles(problem, (4, 8) if columns >= 5 else (4, 8, 16))
    wide = ceil_div(problem.out_channels, 32) * 32 <= ceil_div(problem.out_channels, 16) * 16
    shuffles = _shuffles(caps, 32, _lanes(caps, 8))
    return 32 if tile == 16 and wide and shuffles and columns == 1 else tile
