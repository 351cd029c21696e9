"""A deformable convolution as the choice of its kernels sees it, and the choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vkconv.capabilities import DeviceCaps
from vkconv.dispatch import ELEMENT_BYTES
from vkconv.ops.conv_problem import ONE, SHUFFLE_LANES, Choice, Problem
from vkconv.ops.conv_selection import select_kernel
from vkconv.ops.shapes import ceil_div
from vkconv.ops.window import Axis

#: outputs up to which samples are taken anew for each tile of them, and not stored: on CPU drivers
#: with shuffles and without, and on GPUs
FUSED_OUTPUTS, FUSED_OUTPUTS_WITHOUT_SHUFFLES, FUSED_OUTPUTS_ON_GPU = 192, 32, 112
#: memory that samples may take: kernel size times that of the map
SAMPLED_BYTES = 16 << 20


@dataclass(frozen=True)
class DeformTile:
    """What one invocation of deform_conv2d.comp computes: output channels and pixels."""

    outputs: int
    pixels: int
    lanes: int
    shuffle: bool


@dataclass(frozen=True)
class DeformProblem:
    """A deformable convolution: channels of all groups and of one, and the spatial axes."""

    batch: int
    channels: int
    out_channels: int
    groups: int
    offset_groups: int
    y: Axis
    x: Axis

    @property
    def group_in(self) -> int:
        return self.channels // self.groups

    @property
    def group_out(self) -> int:
        return self.out_channels // self.groups

    @property
    def part_channels(self) -> int:
        """Channels that share their offsets."""
        return self.channels // self.offset_groups

    @property
    def taps(self) -> int:
        return self.y.kernel * self.x.kernel

    @property
    def pairs(self) -> int:
        """Of an offset group and a tap."""
        return self.offset_groups * self.taps

    @property
    def pixels(self) -> int:
        return self.y.out * self.x.out

    @property
    def has_whole_blocks(self) -> bool:
        parts = (
            (self.groups, self.group_in),
            (self.groups, self.group_out),
            (self.offset_groups, self.part_channels),
        )
        return all(count == 1 or size % 4 == 0 for count, size in parts)

    @property
    def sampled_blocks(self) -> int:
        """Channel blocks of a group, one for each tap."""
        return ceil_div(self.group_in, 4) * self.taps

    @property
    def sampled_elements(self) -> int:
        return self.batch * self.groups * self.sampled_blocks * self.pixels * 4


def select_tile(out_channels: int, caps: DeviceCaps) -> DeformTile:
    """A sample costs four loads, so it should serve many output channels: on lavapipe 32 at 4
    pixels take 0.73 of the time of 16 at 4, and 64 at 3 take 0.65 (64 channels, 3x3); 64 at 4 take
    0.60 with Mesa 22.3, but with 25.0 and 26.2 1.6 times as long as 64 at 3. Without shuffles 64
    take three times as long to compile and hardly less to run. Elsewhere as many sums as mobile
    GPUs keep in registers."""
    cpu = caps.kind == "cpu"
    size = min(8 if cpu else 64, caps.max_workgroup_invocations, caps.max_workgroup_size[0])
    shuffles = cpu and caps.subgroup_shuffle and caps.subgroup_size >= SHUFFLE_LANES
    shuffles = shuffles and size % caps.subgroup_size == 0
    outputs = (64 if shuffles else 32) if cpu else 16
    while outputs > 4 and outputs // 2 >= out_channels:
        outputs //= 2
    pixels = (3 if outputs == 64 else 4) if cpu or outputs < 16 else 2
    return DeformTile(outputs, pixels, size, shuffles and outputs >= SHUFFLE_LANES)


def stores_samples(problem: DeformProblem, caps: DeviceCaps) -> bool:
    """Whether the samples go through memory, to be multiplied by a 1x1 convolution.

    Measured on lavapipe (3x3, CPU time of one image, fused -> stored, ms): 128 channels on 28 x 28
    8.1 -> 9.0, 256 on 14 x 14 8.8 -> 7.4, 512 on 7 x 7 10.8 -> 8.1; without shuffles 64 on 56 x 56
    20 -> 18, 128 on 28 x 28 19 -> 14; without texel buffers too 45 -> 32 and 44 -> 27. On GPUs it
    is a judgement.
    """
    shuffles = select_tile(problem.group_out, caps).shuffle
    fused = FUSED_OUTPUTS if shuffles else FUSED_OUTPUTS_WITHOUT_SHUFFLES
    if caps.kind != "cpu":
        fused = FUSED_OUTPUTS_ON_GPU
    size = problem.sampled_elements * ELEMENT_BYTES
    most = min(SAMPLED_BYTES, caps.max_storage_buffer_range)
    return problem.has_whole_blocks and problem.group_out > fused and size <= most


def select_product(
    problem: DeformProblem, caps: DeviceCaps, choices: Mapping[str, str], *, constant: bool
) -> tuple[Problem, Choice]:
    """The 1x1 convolution that multiplies stored samples, and its kernel; ``constant``: weights
    are known."""
    flat = Axis(problem.pixels, problem.pixels, 1, 1, 1, 0, 0)
    channels = (problem.sampled_blocks * 4, problem.group_out)
    product = Problem(problem.batch, problem.groups, *channels, ONE, flat, constant=constant)
    return product, select_kernel(product, caps, choices)
