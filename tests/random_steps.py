"""What a random model is made of: a graph in the making, and the steps that add nodes to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vkconv.ir import Array

Shape = tuple[int, ...]
#: a tensor may not have more elements than this
LARGEST = 6000


@dataclass
class Builder:
    """A graph in the making: ``tensors`` are those later nodes may read, with their shapes."""

    random: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    inputs: dict[str, Shape] = field(default_factory=dict)
    tensors: dict[str, Shape] = field(default_factory=dict)

    def pick(self, accept: Callable[[Shape], bool] = lambda _: True) -> str | None:
        """A tensor whose shape is accepted, the newer ones likelier; None when there is none."""
        names = [name for name, shape in self.tensors.items() if accept(shape)]
        if not names:
            return None
        weights = np.arange(1, len(names) + 1, dtype=np.float64) ** 1.5
        return str(self.random.choice(names, p=weights / weights.sum()))

    def constant(self, array: Array) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def floats(self, *shape: int, scale: float = 1.0) -> str:
        return self.constant((self.random.standard_normal(shape) * scale).astype(np.float32))

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def add(self, op_type: str, inputs: list[str], *shapes: Shape, **attributes: object) -> str:
        """A node with one output a shape; returns the first one's name."""
        index = len(self.nodes)
        names = [f"t{index}_{i}" for i in range(len(shapes))]
        self.nodes.append(
            helper.make_node(op_type, inputs, names, name=f"{op_type}_{index}", **attributes)
        )
        self.tensors.update(zip(names, shapes, strict=True))
        return names[0]

    def chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    def integer(self, low: int, high: int) -> int:
        """low <= result <= high"""
        return int(self.random.integers(low, high + 1))


def _is_map(shape: Shape) -> bool:
    return len(shape) == 4


def _size(shape: Shape) -> int:
    return int(np.prod(shape))


def conv(b: Builder) -> None:
    x = b.pick(_is_map)
    if x is None:
        return
    n, c, h, w = b.tensors[x]
    kernel = 3 if min(h, w) >= 2 and b.chance(0.5) else 1
    stride = 2 if min(h, w) >= 5 and b.chance(0.25) else 1
    groups = c if b.chance(0.2) else 2 if c % 2 == 0 and b.chance(0.2) else 1
    out = groups * b.integer(1, max(1, 12 // groups))
    pad = kernel // 2
    height, width = ((d + 2 * pad - kernel) // stride + 1 for d in (h, w))
    scale = 1.0 / np.sqrt(c / groups * kernel * kernel)
    inputs = [x, b.floats(out, c // groups, kernel, kernel, scale=scale)]
    if b.chance(0.6):
        inputs.append(b.floats(out, scale=0.2))
    shape = (n, out, height, width)
    y = b.add(
        "Conv", inputs, shape, group=groups, strides=[stride] * 2, pads=[pad] * 4,
        kernel_shape=[kernel] * 2,
    )  # fmt: skip
    if b.chance(0.3):
        statistics = [b.floats(out, scale=0.5) for _ in range(3)]
        statistics.append(b.constant(b.random.uniform(0.5, 2, out).astype(np.float32)))
        y = b.add("BatchNormalization", [y, *statistics], shape)
    if b.chance(0.6):
        y = _activation(b, y)
    if b.chance(0.4):
        other = b.pick(lambda s: s == shape)
        if other is not None:
            y = b.add("Add", [y, other] if b.chance(0.5) else [other, y], shape)
            if b.chance(0.5):
                _activation(b, y)


def _activation(b: Builder, x: str) -> str:
    shape = b.tensors[x]
    kind = b.integer(0, 5)
    if kind == 0:
        return b.add("Mul", [x, b.add("Sigmoid", [x], shape)], shape)
    if kind == 1:
        bounds = [b.constant(np.array(v, np.float32)) for v in (-0.5, 1.5)]
        return b.add("Clip", [x, *bounds], shape)
    if kind == 2:
        return b.add("LeakyRelu", [x], shape, alpha=0.1)
    return b.add(("Relu", "Tanh", "HardSwish")[kind - 3], [x], shape)


def unary(b: Builder) -> None:
    x = b.pick()
    assert x is not None
    if b.chance(0.5):
        _activation(b, x)
    else:
        b.add(str(b.random.choice(["Neg", "Abs", "Sigmoid", "Identity"])), [x], b.tensors[x])


def binary(b: Builder) -> None:
    x = b.pick()
    assert x is not None
    shape = b.tensors[x]
    kind = str(b.random.choice(["Add", "Mul", "Sub", "Max"]))
    choice = b.integer(0, 3)
    y: str | None = None
    if choice == 0:  # another tensor of the same shape, perhaps itself
        y = b.pick(lambda s: s == shape)
    elif choice == 1:  # a tensor that broadcasts
        y = b.pick(lambda s: s != shape and _broadcasts(s, shape))
    elif choice == 2:  # a constant of fewer dimensions, some of them 1
        dims = [d if b.chance(0.6) else 1 for d in shape[b.integer(0, len(shape)) :]]
        y = b.floats(*dims)
    if y is None:
        y = b.constant(np.array(0.7, np.float32))
    result = b.add(kind, [x, y] if b.chance(0.5) else [y, x], shape)
    if kind == "Mul":  # products of products would leave float32
        b.add("Tanh", [result], shape)


def _broadcasts(small: Shape, shape: Shape) -> bool:
    tail = shape[len(shape) - len(small) :]
    return len(small) <= len(shape) and all(a in (1, b) for a, b in zip(small, tail, strict=True))


def concat(b: Builder) -> None:
    first = b.pick()
    assert first is not None
    shape = b.tensors[first]
    if not shape:
        return
    axis = 1 if len(shape) > 1 and b.chance(0.7) else b.integer(0, len(shape) - 1)
    parts = [first]
    for _ in range(b.integer(1, 3)):
        other = b.pick(lambda s: s[:axis] + s[axis + 1 :] == shape[:axis] + shape[axis + 1 :]
                       and len(s) == len(shape))  # fmt: skip
        assert other is not None
        parts.append(other)
    if b.chance(0.2):
        fill = (*shape[:axis], b.integer(1, 4), *shape[axis + 1 :])
        parts.insert(b.integer(0, len(parts)), b.floats(*fill))
    known = {c.name: tuple(c.dims) for c in b.constants}
    total = sum((b.tensors.get(p) or known[p])[axis] for p in parts)
    result = (*shape[:axis], total, *shape[axis + 1 :])
    if _size(result) <= LARGEST:
        b.add("Concat", parts, result, axis=axis if b.chance(0.5) else axis - len(shape))


def dense_block(b: Builder) -> None:
    """Layers that read a function of the concat of all before them (DenseNet)."""
    x = b.pick(lambda s: _is_map(s) and _size(s) <= LARGEST // 4)
    if x is None:
        return
    n, channels, h, w = b.tensors[x]
    parts = [x]
    if channels % 4:  # whole blocks of channels lie in the concat itself
        weights = b.floats(4, channels, 1, 1, scale=1 / np.sqrt(channels))
        parts = [b.add("Conv", [x, weights], (n, 4, h, w), kernel_shape=[1, 1])]
        channels = 4
    for _ in range(b.integer(3, 4)):
        order = parts[::-1] if b.chance(0.5) else list(parts)
        joined = b.add("Concat", order, (n, channels, h, w), axis=1)
        growth = 4 if b.chance(0.9) else b.integer(1, 6)
        inputs = [
            _activation(b, joined),
            b.floats(growth, channels, 1, 1, scale=1 / np.sqrt(channels)),
        ]
        parts.append(b.add("Conv", inputs, (n, growth, h, w), kernel_shape=[1, 1]))
        channels += growth


def split(b: Builder) -> None:
    x = b.pick(lambda s: any(d > 1 for d in s))
    if x is None:
        return
    shape = b.tensors[x]
    axes = [i for i, d in enumerate(shape) if d > 1]
    axis = 1 if 1 in axes and b.chance(0.7) else int(b.random.choice(axes))
    if axis == 1 and shape[1] > 4 and b.chance(0.5):
        sizes = [4, shape[1] - 4]
    else:
        cut = b.integer(1, shape[axis] - 1)
        sizes = [cut, shape[axis] - cut]
    shapes = [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]
    if b.chance(0.5):
        b.add("Split", [x, b.ints(*sizes)], *shapes, axis=axis)
        return
    start, stop = (0, sizes[0]) if b.chance(0.5) else (sizes[0], shape[axis])
    kept = (*shape[:axis], stop - start, *shape[axis + 1 :])
    b.add("Slice", [x, b.ints(start), b.ints(stop), b.ints(axis)], kept)


def pool(b: Builder) -> None:
    x = b.pick(lambda s: _is_map(s) and min(s[2:]) >= 2)
    if x is None:
        return
    n, c, h, w = b.tensors[x]
    kind = b.integer(0, 3)
    if kind == 0:
        b.add("GlobalAveragePool", [x], (n, c, 1, 1))
    elif kind == 1:
        b.add("MaxPool", [x], (n, c, h, w), kernel_shape=[3, 3], pads=[1] * 4)
    else:
        op_type = "MaxPool" if kind == 2 else "AveragePool"
        b.add(op_type, [x], (n, c, h // 2, w // 2), kernel_shape=[2, 2], strides=[2, 2])


def reshape(b: Builder) -> None:
    x = b.pick()
    assert x is not None
    shape = b.tensors[x]
    kind = b.integer(0, 3)
    if kind == 0 and len(shape) >= 3:
        target: Shape = (shape[0], shape[1], _size(shape[2:]))
        b.add("Reshape", [x, b.ints(0, 0, -1)], target)
    elif kind == 1 and len(shape) == 4 and shape[1] % 2 == 0:
        target = (shape[0], shape[1] // 2, shape[2] * 2, shape[3])
        b.add("Reshape", [x, b.ints(*target)], target)
    elif kind == 2 and len(shape) >= 2:
        b.add("Flatten", [x], (shape[0], _size(shape[1:])))
    elif len(shape) < 5:
        axis = b.integer(0, len(shape))
        b.add("Unsqueeze", [x, b.ints(axis)], (*shape[:axis], 1, *shape[axis:]))


def unflatten(b: Builder) -> None:
    """A tensor of any rank as feature maps again."""
    x = b.pick(lambda s: len(s) != 4)
    if x is None:
        return
    size = _size(b.tensors[x])
    width = next(d for d in (5, 4, 3, 2, 1) if size % d == 0)
    rest = size // width
    height = next(d for d in (4, 3, 2, 1) if rest % d == 0)
    target = (1, rest // height, height, width)
    if target[1] <= 64:
        b.add("Reshape", [x, b.ints(*target)], target)


def transpose(b: Builder) -> None:
    x = b.pick(lambda s: len(s) >= 2)
    if x is None:
        return
    shape = b.tensors[x]
    order = [int(i) for i in b.random.permutation(len(shape))]
    y = b.add("Transpose", [x], tuple(shape[i] for i in order), perm=order)
    if b.chance(0.2):
        back = [int(i) for i in np.argsort(order)]
        b.add("Transpose", [y], shape, perm=back)


def resize(b: Builder) -> None:
    x = b.pick(lambda s: _is_map(s) and _size(s) * 4 <= LARGEST)
    if x is None:
        return
    n, c, h, w = b.tensors[x]
    scales = b.constant(np.array([1, 1, 2, 2], np.float32))
    mode = "nearest" if b.chance(0.7) else "linear"
    how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    b.add("Resize", [x, "", scales], (n, c, 2 * h, 2 * w), mode=mode, **how)


def reduce(b: Builder) -> None:
    x = b.pick(lambda s: len(s) >= 2)
    if x is None:
        return
    shape = b.tensors[x]
    axis = b.integer(1, len(shape) - 1)
    if b.chance(0.5):
        b.add("Softmax", [x], shape, axis=axis)
    else:
        kept = (*shape[:axis], 1, *shape[axis + 1 :])
        b.add("ReduceMean", [x], kept, axes=[axis], keepdims=1)


def matmul(b: Builder) -> None:
    x = b.pick(lambda s: len(s) in (2, 3) and s[-1] <= 200)
    if x is None:
        return
    shape = b.tensors[x]
    columns = b.integer(1, 9)
    weights = b.floats(shape[-1], columns, scale=1 / np.sqrt(shape[-1]))
    b.add("MatMul", [x, weights], (*shape[:-1], columns))


def conv_transpose(b: Builder) -> None:
    x = b.pick(lambda s: _is_map(s) and _size(s) <= LARGEST // 8)
    if x is None:
        return
    n, c, h, w = b.tensors[x]
    groups = 2 if c % 2 == 0 and b.chance(0.3) else 1
    out = groups * b.integer(1, 5)
    kernel = b.integer(2, 3)
    weights = b.floats(c, out // groups, kernel, kernel, scale=1 / np.sqrt(c / groups))
    shape = (n, out, (h - 1) * 2 + kernel, (w - 1) * 2 + kernel)
    y = b.add("ConvTranspose", [x, weights], shape, group=groups, strides=[2, 2])
    if b.chance(0.5):
        _activation(b, y)


def pad(b: Builder) -> None:
    x = b.pick(lambda s: len(s) >= 2 and _size(s) <= LARGEST // 2)
    if x is None:
        return
    shape = b.tensors[x]
    amounts = [b.integer(0, 1) if i >= len(shape) - 2 else 0 for i in range(len(shape))]
    result = tuple(d + a for d, a in zip(shape, amounts, strict=True))
    b.add("Pad", [x, b.ints(*amounts, *[0] * len(shape))], result)


def gather(b: Builder) -> None:
    x = b.pick(lambda s: len(s) >= 2)
    if x is None:
        return
    shape = b.tensors[x]
    axis = b.integer(0, len(shape) - 1)
    indices = [b.integer(0, shape[axis] - 1) for _ in range(b.integer(1, 4))]
    kept = (*shape[:axis], len(indices), *shape[axis + 1 :])
    b.add("Gather", [x, b.ints(*indices)], kept, axis=axis)


def on_the_host(b: Builder) -> None:
    """Float64 arithmetic, which no kernel does."""
    x = b.pick()
    assert x is not None
    shape = b.tensors[x]
    wide = b.add("Cast", [x], shape, to=TensorProto.DOUBLE)
    result = b.add("Add", [wide, wide], shape)
    half = b.add("Mul", [result, b.constant(np.array(0.5, np.float64))], shape)
    b.add("Cast", [half], shape, to=TensorProto.FLOAT)
    for name in (wide, result, half):
        del b.tensors[name]


#: the frequent ones more than once
STEPS: tuple[Callable[[Builder], None], ...] = (
    conv, conv, conv, concat, concat, concat, dense_block, split, split, binary, binary, unary,
    pool, reshape, reshape, unflatten, transpose, resize, reduce, matmul, conv_transpose, pad,
    gather, on_the_host,
)  # fmt: skip
