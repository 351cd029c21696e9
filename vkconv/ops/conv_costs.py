"""What tiles of convolution kernels cost on lavapipe, where the CPU rules are measured
(docs/decisions/0010): pixels that give every lane work, Winograd against the direct form, outputs
of a depthwise lane."""

from __future__ import annotations

from dataclasses import replace

from vkconv.capabilities import DeviceCaps
from vkconv.ops.conv_problem import SUBGROUP, Choice, Problem, parts
from vkconv.ops.shapes import ceil_div

#: How long Winograd's steps take, in that of the direct form's products of a weight and a pixel.
#: A product of its own; storing the sums of one element, as so many channels' products; the
#: transforms of a patch's element and channel; reading a weight; two more dispatches.
PRODUCT, SUMS, INTO, OUT_OF, WEIGHT, TWO_DISPATCHES = 1.05, 28.0, 40.0, 32.0, 4.0, 2.6e6
#: storing a sum of the direct form
DIRECT_SUMS = 5.0
#: the same without shuffles, whose products take longer: what is not a product, and products with
#: few pixels an invocation, whose weights serve less
WITHOUT_SHUFFLES = 0.5
FEW_PIXELS = {1: 3.0, 2: 1.75}
#: what one of SUBGROUP's loads takes, in the time of a lane's products at one pixel
LOAD = 0.54
#: pixels of a lane of SUBGROUP: the ones used wherever others do not spare much, since every other
#: number is a pipeline more to compile; 25 leave next to no lane idle on maps whose sides are
#: multiples of 5 and of 7
USUAL = 25
OTHERS = (32, 28, 20, 16, 12, 9, 8, 6, 4, 3, 2, 1)
#: products of which a run must be spared for a pipeline more (some 50 us; to compile it takes 0.2 s
#: and 10 MB, once)
PIPELINE = 2.1e6


def best_pixels(extent: int, choice: Choice, each: int) -> int:
    """The pixels of a tile for ``extent`` of them: fewer where clearly fewer lanes are then idle.

    SUBGROUP's are USUAL, unless another number spares a run enough of the ``each`` products that a
    pixel takes. Of the others: with shuffles 5 or 4 by 16 outputs, 4 by 32 (more sums take half a
    second to compile), 7 by 8 and fewer. Without them 8: each weight is then loaded by itself and
    should serve more pixels (30 % less time through storage buffers). One where all pixels have a
    lane: 0.4 to 0.7 of the time for the layers behind a global pool.
    """
    if choice.kernel == SUBGROUP:
        return _subgroup_pixels(extent, parts(choice.output_tile), each)
    if extent <= choice.lanes:
        return 1
    few = {32: (4, 3, 2), 16: (5, 4, 3, 2)}.get(choice.output_tile, (7, 5, 4, 3, 2))
    best, waste = 4, 10.0
    for pixels in few if choice.shuffle else (8, 5, 4, 3, 2):
        unit = pixels * choice.lanes
        lost = ceil_div(extent, unit) * unit / extent
        if lost < waste - 0.05 * (1 if pixels > 3 else 5):
            best, waste = pixels, lost
    return best


def _subgroup_pixels(extent: int, count: int, each: int) -> int:
    def cost(pixels: int) -> float:
        return count * ceil_div(extent, pixels * count) * _subgroup_time(pixels, count)

    best = min(OTHERS, key=cost)
    return count * (best if (cost(USUAL) - cost(best)) * each >= PIPELINE else USUAL)


def _subgroup_time(pixels: int, count: int) -> float:
    """The time of a block of channels in a tile of SUBGROUP with ``count`` parts, which loads four
    rows of weights, and the pixels by eights."""
    return pixels + LOAD * (4 + ceil_div(pixels * count, 8))


def _product_cost(extent: int, choice: Choice) -> float:
    """The time of ``choice``, a kernel for 1x1, in that of so many pixels of a large map."""
    if choice.kernel == SUBGROUP:
        count = parts(choice.output_tile)
        each = _subgroup_time(choice.pixels // count, count) * USUAL / _subgroup_time(USUAL, 1)
        return ceil_div(extent, choice.pixels) * count * each
    unit = choice.pixels * choice.lanes
    return ceil_div(extent, unit) * unit * FEW_PIXELS.get(choice.pixels, 1.0)


def with_winograd(problem: Problem, caps: DeviceCaps, multiply: Choice, direct: Choice) -> Choice:
    """Winograd with the smaller cost, where it saves enough; else the direct form.

    F(4x4, 3x3) multiplies 36 times where the direct form does 144, F(2x2, 3x3) 16 where it does 36,
    less what partial patches and idle lanes waste, and has all those weights to read. Measured from
    16 channels on 40 x 40 to 512 on 7 x 7; on other devices the direct form stays until it is
    measured there.
    """
    inputs, outputs = problem.in_channels, problem.out_channels
    best = direct
    if min(inputs, outputs) < 16:
        return best
    columns = ceil_div(problem.x.out, direct.pixels) * problem.y.out
    lanes = ceil_div(columns, direct.lanes) * direct.lanes
    least = problem.batch * lanes * direct.pixels * 9 * (1 + DIRECT_SUMS / inputs)
    beside = 1.0 if multiply.kernel == SUBGROUP else WITHOUT_SHUFFLES
    transforms = beside * (INTO / outputs + OUT_OF / inputs)
    for edge in (4, 2):
        if not winograd_fits(problem, caps, edge):
            continue
        patches = problem.patches(edge)
        work = (edge + 2) ** 2 * inputs * outputs
        tile = replace(multiply, pixels=best_pixels(patches, multiply, work))
        products = PRODUCT * (1 + beside * SUMS / inputs) * _product_cost(patches, tile)
        transformed = ceil_div(patches, multiply.lanes) * multiply.lanes
        each = products + transforms * transformed + WEIGHT
        cost = each * (edge + 2) ** 2 + beside * TWO_DISPATCHES / (inputs * outputs)
        if cost < least:
            least = cost
            best = replace(tile, kernel=f"winograd_{edge}x{edge}", multiply=tile.kernel)
    return best


def winograd_fits(problem: Problem, caps: DeviceCaps, edge: int) -> bool:
    """Whether F(edge x edge, 3x3) can compute it, with intermediates that a storage buffer may
    hold."""
    plain = problem.is_flat and problem.constant and not problem.transposed and problem.groups == 1
    taps = all((a.kernel, a.stride, a.dilation) == (3, 1, 1) for a in (problem.y, problem.x))
    blocks = ceil_div(max(problem.in_channels, problem.out_channels), 4)
    held = (edge + 2) ** 2 * blocks * problem.patches(edge) * 16
    return plain and taps and held <= caps.max_storage_buffer_range


def depthwise_cost(problem: Problem, choice: Choice) -> float:
    """Cycles for a block of four channels: 25 for eight lanes to load a texel of their windows, 100
    to store one and 4 for each tap of it, 600 to start a group. Idle lanes cost what others do."""
    y, x, tile = problem.y, problem.x, choice.output_tile * choice.pixels
    high = (choice.output_tile - 1) * y.stride + (y.kernel - 1) * y.dilation + 1
    wide = (choice.pixels - 1) * x.stride + (x.kernel - 1) * x.dilation + 1
    columns, rows = ceil_div(x.out, choice.pixels), ceil_div(y.out, choice.output_tile)
    groups = ceil_div(columns * rows, choice.lanes)
    lane = 25 * high * wide + tile * (100 + 4 * y.kernel * x.kernel)
    return groups * (600 + ceil_div(choice.lanes, 8) * lane)
