"""Which kernel of the convolution family for which shape on which device: pure rules."""

from __future__ import annotations

from dataclasses import dataclass

from vkconv.capabilities import DeviceCaps
from vkconv.ops.base import ceil_div
from vkconv.ops.window import Axis

#: lanes that share their weights through shuffles in the kernels with shuffle = on
SHUFFLE_LANES = 8
#: an axis that is not there
ONE = Axis(1, 1, 1, 1, 1, 0, 0)


@dataclass(frozen=True)
class Problem:
    """A convolution: channels of one group, and the spatial axes (a 1-D one has a height of 1)."""

    batch: int
    groups: int
    in_channels: int
    out_channels: int
    y: Axis
    x: Axis
    transposed: bool = False
    z: Axis = ONE
    #: the weights are known when the model is planned
    constant: bool = True

    @property
    def axes(self) -> tuple[Axis, Axis, Axis]:
        return self.z, self.y, self.x

    @property
    def is_flat(self) -> bool:
        """Whether the depth is that of a 2-D convolution."""
        return self.z == ONE

    @property
    def out_pixels(self) -> int:
        return self.z.out * self.y.out * self.x.out

    @property
    def patches(self) -> int:
        """4x4 patches of the output, over all batches."""
        return self.batch * ceil_div(self.y.out, 4) * ceil_div(self.x.out, 4)

    @property
    def is_pointwise(self) -> bool:
        return all(a.kernel == a.stride == 1 and a.begin == a.end == 0 for a in self.axes)

    @property
    def is_depthwise(self) -> bool:
        single = self.groups > 1 and self.in_channels == self.out_channels == 1
        return single and self.is_flat and not self.transposed

    @property
    def has_whole_groups(self) -> bool:
        return self.groups == 1 or (self.in_channels % 4 == 0 and self.out_channels % 4 == 0)


@dataclass(frozen=True)
class Choice:
    """A kernel and its tile: output channels (rows for depthwise) and pixels of one invocation,
    lanes of a group."""

    kernel: str
    output_tile: int
    pixels: int
    lanes: int
    shuffle: bool = False


def select_kernel(problem: Problem, caps: DeviceCaps) -> Choice:
    """The kernel for a shape on a device, by rule.

    On CPU drivers (measured on lavapipe): 16 x 4 sums an invocation, groups of 8 lanes (one SIMD
    register), weights spread by shuffles. Elsewhere: 8 x 4 sums, which mobile GPUs keep in
    registers, and groups of 64.
    """
    cpu = caps.kind == "cpu"
    lanes = min(8 if cpu else 64, caps.max_workgroup_invocations, caps.max_workgroup_size[0])
    if problem.is_depthwise:
        rows = _depthwise_rows(problem)
        return Choice("depthwise_conv2d", rows, 4 if problem.x.kernel <= 7 else 1, lanes)
    if not problem.has_whole_groups:
        return Choice("grouped_conv", 4, 1, min(lanes * 4, caps.max_workgroup_invocations))
    tile = 16 if cpu else 8
    while tile > 4 and tile // 2 >= problem.out_channels:
        tile //= 2
    if problem.transposed or not (problem.is_flat or problem.is_pointwise):
        kernel = "conv_transpose2d" if problem.is_flat else "conv3d"
        return Choice(kernel, min(tile, 8), 4, lanes)
    shuffle = (
        cpu
        and caps.subgroup_shuffle
        and caps.subgroup_size >= SHUFFLE_LANES
        and tile >= SHUFFLE_LANES
        and lanes % caps.subgroup_size == 0
    )
    if cpu and _winograd_fits(problem, caps) and _winograd_pays(problem, lanes):
        return Choice("winograd", tile, _pixels(problem.patches, lanes), lanes, shuffle)
    if problem.is_pointwise:
        return Choice("conv2d_1x1", tile, _pixels(problem.out_pixels, lanes), lanes, shuffle)
    return Choice("conv2d", tile, _pixels(problem.x.out, 1), lanes, shuffle)


def _winograd_fits(problem: Problem, caps: DeviceCaps) -> bool:
    """Whether F(4x4, 3x3) can compute it, with intermediates that a storage buffer may hold."""
    plain = problem.is_flat and problem.constant and not problem.transposed and problem.groups == 1
    taps = all((a.kernel, a.stride, a.dilation) == (3, 1, 1) for a in (problem.y, problem.x))
    blocks = ceil_div(max(problem.in_channels, problem.out_channels), 4)
    return plain and taps and 36 * blocks * problem.patches * 16 <= caps.max_storage_buffer_range


def _winograd_pays(problem: Problem, lanes: int) -> bool:
    """Whether F(4x4, 3x3) saves work: it multiplies 36 times where the direct form does 144, less
    what partial patches and idle lanes waste, and the transforms cost as much as some channels.

    Measured on lavapipe; on other devices the direct form stays until it is measured there.
    """
    if min(problem.in_channels, problem.out_channels) < 16:
        return False
    unit = _pixels(problem.patches, lanes) * lanes
    computed = ceil_div(problem.patches, unit) * unit * 36
    return problem.batch * problem.out_pixels * 9 > 1.5 * computed


def _depthwise_rows(problem: Problem) -> int:
    """Output rows an invocation computes: more reuse of input rows, until code and registers grow
    too large."""
    taps = problem.y.kernel * problem.x.kernel
    if problem.y.out < 4 or taps > 49:
        return 1
    return 4 if taps <= 9 else 2


def _pixels(extent: int, lanes: int) -> int:
    """4 pixels an invocation, or 5 or fewer where they leave clearly fewer lanes idle."""
    best, waste = 4, 10.0
    for pixels in (4, 5, 3, 2):
        unit = pixels * lanes
        lost = ceil_div(extent, unit) * unit / extent
        if lost < waste - 0.05 * (1 if pixels > 3 else 5):
            best, waste = pixels, lost
    return best
