"""A convolution as kernel selection sees it, and the answer: a kernel and its tile. Both have a
stable textual form, by which a tuning record names them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vkconv.ops.shapes import ceil_div
from vkconv.ops.window import Axis

#: an axis that is not there
ONE = Axis(1, 1, 1, 1, 1, 0, 0)
#: lanes that share loads through shuffles
SHUFFLE_LANES = 8
#: the 1x1 kernel whose lanes share pixels through shuffles
SUBGROUP = "conv2d_1x1_subgroup"


_AXIS = re.compile(r"(\d+)>(\d+)k(\d+)s(\d+)d(\d+)p(-?\d+)\+(-?\d+)")
_KEY = re.compile(
    rf"(conv|conv_transpose) (\d+)x(\d+)g (\d+)>(\d+)((?: {_AXIS.pattern}){{2,3}})( computed)?"
)


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
    def key(self) -> str:
        """Everything that may change the choice, as text: ``conv 1x1g 64>64 80>80k3s1d1p1+1 ...``
        (batch, groups, channels of a group; each axis's size in and out, kernel, stride, dilation,
        padding)."""
        kind = "conv_transpose" if self.transposed else "conv"
        axes = " ".join(
            f"{a.size}>{a.out}k{a.kernel}s{a.stride}d{a.dilation}p{a.begin}+{a.end}"
            for a in self.axes[self.is_flat :]
        )
        weights = "" if self.constant else " computed"
        channels = f"{self.in_channels}>{self.out_channels}"
        return f"{kind} {self.batch}x{self.groups}g {channels} {axes}{weights}"

    @classmethod
    def from_key(cls, key: str) -> Problem:
        """The problem whose ``key`` this is. Raises ValueError where it is none."""
        match = _KEY.fullmatch(key)
        if match is None:
            raise ValueError(f"'{key}' is no key of a convolution")
        kind, batch, groups, in_channels, out_channels, axes = match.groups()[:6]
        found = [Axis(*map(int, numbers)) for numbers in _AXIS.findall(axes)]
        z, y, x = ([ONE] if len(found) == 2 else []) + found
        return cls(
            int(batch),
            int(groups),
            int(in_channels),
            int(out_channels),
            y,
            x,
            kind == "conv_transpose",
            z,
            constant=not key.endswith(" computed"),
        )

    @property
    def is_flat(self) -> bool:
        """Whether the depth is that of a 2-D convolution."""
        return self.z == ONE

    @property
    def out_pixels(self) -> int:
        return self.z.out * self.y.out * self.x.out

    def patches(self, edge: int) -> int:
        """Patches of edge x edge outputs, over all batches."""
        return self.batch * ceil_div(self.y.out, edge) * ceil_div(self.x.out, edge)

    @property
    def is_pointwise(self) -> bool:
        """1x1, stride 1, not padded: transposed or not, it is the same."""
        return all(
            a.kernel == a.stride == 1 and a.begin == a.end == 0 and a.out == a.size
            for a in self.axes
        )

    @property
    def is_matrix_product(self) -> bool:
        """Each output pixel is a product with one input pixel: pointwise, or 1x1 on a flat map of
        which it leaves out pixels by its stride or by negative padding."""
        inside = all(
            a.kernel == 1 and a.begin <= 0 and (a.out - 1) * a.stride - a.begin < a.size
            for a in self.axes
        )
        return self.is_pointwise or (self.is_flat and not self.transposed and inside)

    @property
    def is_depthwise(self) -> bool:
        single = self.groups > 1 and self.in_channels == self.out_channels == 1
        return single and self.is_flat and not self.transposed

    @property
    def has_whole_groups(self) -> bool:
        return self.groups == 1 or (self.in_channels % 4 == 0 and self.out_channels % 4 == 0)


@dataclass(frozen=True)
class Choice:
    """A kernel and its tile: output channels (rows for depthwise) and pixels of one invocation
    (of eight for SUBGROUP, of the workgroup for ``conv2d_shared``), lanes of a group.

    ``kernel`` may be winograd_4x4 or winograd_2x2, three dispatches whose middle one is
    ``multiply``; tile, lanes and shuffle are then that one's. ``access``: how it reads, where not
    as the device prefers (``DeviceCaps.access``).
    """

    kernel: str
    output_tile: int
    pixels: int
    lanes: int
    shuffle: bool = False
    multiply: str = ""
    access: str = ""

    def __str__(self) -> str:
        """``conv2d 16x4 lanes=8 shuffle``, ``winograd_4x4(conv2d_1x1) 16x5 lanes=8``,
        ``conv2d_8x4 8x4 lanes=64 uniform_texel``."""
        kernel = f"{self.kernel}({self.multiply})" if self.multiply else self.kernel
        more = " shuffle" * self.shuffle + f" {self.access}" * bool(self.access)
        return f"{kernel} {self.output_tile}x{self.pixels} lanes={self.lanes}{more}"

    @property
    def is_winograd(self) -> bool:
        return self.kernel.startswith("winograd")


def parts(output_tile: int) -> int:
    """Into how many parts the pixels of a tile of SUBGROUP are divided, each with so many lanes
    as have its channels, four each."""
    return SHUFFLE_LANES * 4 // output_tile
