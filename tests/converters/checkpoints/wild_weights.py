"""Checkpoints as other people's code writes them, and what their networks compute.

An oracle is written down once more, with functions instead of modules: it asks for weights by the
name they have in published files. A name that is asked for the first time gets random numbers. So
one run of an oracle gives both a state_dict and the right answer, in float64, and shares no line
with the converters.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

Tensor = torch.Tensor


class Weights:
    """Weights by name; made up when first asked for, from a seed."""

    def __init__(self, seed: int = 0) -> None:
        self.state: dict[str, Tensor] = {}
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, name: str, *shape: int, low: float = 0.0, high: float = 0.0) -> Tensor:
        """Uniform between ``low`` and ``high``, else normal with the size a kernel needs."""
        if name not in self.state:
            if low < high:
                value = torch.rand(shape, generator=self.generator) * (high - low) + low
            else:
                terms = math.prod(shape[1:]) or 1
                value = torch.randn(shape, generator=self.generator) * math.sqrt(2 / terms)
            self.state[name] = value.to(torch.float32)
        assert tuple(self.state[name].shape) == shape, name
        return self.state[name].double()

    def bias(self, name: str, outputs: int) -> Tensor:
        return self(name, outputs, low=-0.2, high=0.2)

    def conv(
        self,
        x: Tensor,
        name: str,
        outputs: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        groups: int = 1,
        *,
        bias: bool = False,
    ) -> Tensor:
        """A convolution ``name.weight`` whose padding keeps ceil(size / stride)."""
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        weight = self(f"{name}.weight", outputs, x.shape[1] // groups, height, width)
        shift = self.bias(f"{name}.bias", outputs) if bias else None
        return F.conv2d(x, weight, shift, stride, (height // 2, width // 2), 1, groups)

    def norm(self, x: Tensor, name: str, epsilon: float = 1e-5) -> Tensor:
        """A batch normalization with statistics that matter."""
        channels = x.shape[1]
        mean = self(f"{name}.running_mean", channels, low=-0.3, high=0.3)
        variance = self(f"{name}.running_var", channels, low=0.5, high=1.5)
        scale = self(f"{name}.weight", channels, low=0.5, high=1.1)
        shift = self.bias(f"{name}.bias", channels)
        self.state.setdefault(f"{name}.num_batches_tracked", torch.tensor(7))
        return F.batch_norm(x, mean, variance, scale, shift, False, 0.0, epsilon)

    def group_norm(self, x: Tensor, name: str, groups: int = 32) -> Tensor:
        channels = x.shape[1]
        scale = self(f"{name}.weight", channels, low=0.5, high=1.1)
        return F.group_norm(x, groups, scale, self.bias(f"{name}.bias", channels))


def pictures(*shape: int, seed: int = 5) -> Tensor:
    """Random pixels in 0..1, float32."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def nmse(actual: Tensor, expected: Tensor) -> float:
    """Mean squared error over the mean square of what is expected; which has to vary."""
    assert actual.shape == expected.shape
    expected = expected.double()
    assert expected.std() > 0
    return float(((actual.double() - expected) ** 2).sum() / (expected**2).sum())


def points(height: int, width: int, stride: int, offset: float) -> tuple[Tensor, Tensor]:
    """x and y, each (height, width), of the points of a map in the picture."""
    x = (torch.arange(width).double() + offset) * stride
    y = (torch.arange(height).double() + offset) * stride
    return x.expand(height, width), y[:, None].expand(height, width)


def by_rows(x: Tensor) -> Tensor:
    """(b, c, h, w) to (b, h * w, c)."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, x.shape[1])


def boxes(sides: Tensor, stride: int, offset: float) -> Tensor:
    """(b, h * w, 4) cx, cy, w, h from (b, 4, h, w) distances in pixels."""
    x, y = points(sides.shape[2], sides.shape[3], stride, offset)
    left, upper, right, lower = sides.unbind(1)
    x1, y1, x2, y2 = x - left, y - upper, x + right, y + lower
    return by_rows(torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], 1))
