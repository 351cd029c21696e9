"""One spatial axis of a sliding window, as convolutions and poolings share it; and ``auto_pad``."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vkconv.errors import InvalidModelError
from vkconv.ops.shapes import ceil_div

AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


@dataclass(frozen=True)
class Axis:
    """``size`` in, ``out`` windows of ``kernel`` taps; ``begin`` and ``end`` are the padding."""

    size: int
    out: int
    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int

    def tap(self, k: int) -> slice:
        """Positions of tap ``k`` of all windows, in the axis padded by ``padding``."""
        start = k * self.dilation
        return slice(start, start + (self.out - 1) * self.stride + 1, self.stride)

    @property
    def padding(self) -> tuple[int, int]:
        """Padding that makes all taps exist; ceil mode may reach beyond the declared padding."""
        reach = (self.out - 1) * self.stride + (self.kernel - 1) * self.dilation + 1
        return self.begin, max(self.end, reach - self.begin - self.size)

    @property
    def trimmed(self) -> Axis:
        """The same windows without the taps that are outside the input in all of them: a window may
        have any number of those. ``begin`` and ``end`` follow; no tap at all may be left."""
        last_start = (self.out - 1) * self.stride - self.begin
        first = max(0, min(-(last_start // self.dilation), self.begin // self.dilation))
        end = min(self.kernel, ceil_div(self.size + self.begin, self.dilation))
        kernel = max(end - first, 0)
        begin = self.begin - first * self.dilation
        reach = (self.out - 1) * self.stride + (kernel - 1) * self.dilation + 1
        return replace(self, kernel=kernel, begin=begin, end=max(0, reach - begin - self.size))


def check_auto_pad(auto_pad: str) -> None:
    """Raises InvalidModelError on a value that the standard does not have."""
    if auto_pad not in AUTO_PADS:
        raise InvalidModelError(f"auto_pad is '{auto_pad}', not one of {', '.join(AUTO_PADS)}")


def same_padding(size: int, stride: int, extent: int, auto_pad: str) -> tuple[int, int]:
    """Padding of SAME_UPPER and SAME_LOWER, which give ceil(size / stride) windows: the odd one
    goes to the end or to the beginning."""
    needed = max(0, (ceil_div(size, stride) - 1) * stride + extent - size)
    small = needed // 2
    return (small, needed - small) if auto_pad == "SAME_UPPER" else (needed - small, small)
