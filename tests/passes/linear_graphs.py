"""Random graphs of linear layers: everything that can be fused, in every combination, and much that
cannot.

``random_linear_model(seed)`` is the same for the same seed, and float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from tests.small_models import model, node
from vkconv.ir import Array

Shape = tuple[int, ...]


class _Builder:
    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng([seed, 4])
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        size = self.integer(6, 11), self.integer(6, 11)
        self.shapes: dict[str, Shape] = {"x": (2, self.integer(1, 3) * 2, *size)}

    def integer(self, low: int, high: int) -> int:
        return int(self.random.integers(low, high + 1))

    def chance(self, p: float) -> bool:
        return bool(self.random.random() < p)

    def pick(self) -> str:
        """A tensor, rather a young one."""
        names = list(self.shapes)
        return names[-1 - min(int(self.random.exponential(1.5)), len(names) - 1)]

    def constant(self, *shape: int, low: float | None = None) -> str:
        name = f"c{len(self.constants)}"
        array = self.random.standard_normal(shape) if low is None else self.random.random(shape)
        self.constants[name] = array + (low or 0.0)
        return name

    def ints(self, *values: int) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.array(values)
        return name

    def write(self, kind: str, inputs: str, shape: Shape, **attributes: object) -> str:
        y = f"t{len(self.nodes)}"
        self.nodes.append(node(kind, inputs, y, **attributes))
        self.shapes[y] = shape
        return y


def _conv(b: _Builder, x: str | None = None, outputs: int | None = None) -> str | None:
    x = x or b.pick()
    n, c, h, w = b.shapes[x]
    groups = c if b.chance(0.15) else b.integer(1, 2)
    if c % groups:
        return None
    outputs = outputs or groups * b.integer(1, 3)
    if outputs % groups:
        return None
    kernel = (b.integer(1, 3), b.integer(1, 3))
    stride = b.integer(1, 2) if b.chance(0.3) else 1
    dilation = b.integer(1, 2) if b.chance(0.3) else 1
    pads = [b.integer(0, 1) if b.chance(0.5) else 0 for _ in range(4)]
    same = all(k % 2 for k in kernel) and b.chance(0.6)
    if same:
        begins = [dilation * (k // 2) for k in kernel]
        pads = [*begins, *begins]
    sizes = [
        (s + pads[i] + pads[2 + i] - (kernel[i] - 1) * dilation - 1) // stride + 1
        for i, s in enumerate((h, w))
    ]
    if min(sizes) < 2:
        return None
    weights = f"{x} {b.constant(outputs, c // groups, *kernel)}"
    weights += f" {b.constant(outputs)}" * b.chance(0.4)
    how = {"group": groups, "strides": [stride] * 2, "dilations": [dilation] * 2, "pads": pads}
    if b.chance(0.1) and same and dilation == 1:
        how = {"group": groups, "auto_pad": "SAME_UPPER", "strides": [stride] * 2}
        sizes = [-(-s // stride) for s in (h, w)]
    return b.write("Conv", weights, (n, outputs, *sizes), **how)


def _norm(b: _Builder) -> None:
    x = b.pick()
    c = b.shapes[x][1]
    values = [b.constant(c) for _ in range(3)] + [b.constant(c, low=0.5)]
    b.write("BatchNormalization", f"{x} {' '.join(values)}", b.shapes[x])


def _scale(b: _Builder) -> None:
    x = b.pick()
    c = b.shapes[x][1]
    kind = str(b.random.choice(["Mul", "Add", "Sub", "Div"]))
    number = b.constant(*[(1, c, 1, 1), (c, 1, 1), ()][b.integer(0, 2)], low=0.5)
    both = f"{x} {number}" if kind == "Div" or b.chance(0.5) else f"{number} {x}"
    b.write(kind, both, b.shapes[x])


def _alike(b: _Builder) -> list[str]:
    """Tensors of the shape of one, more of them made if there are few."""
    x = b.pick()
    if b.chance(0.7):
        for _ in range(b.integer(1, 3)):
            source = b.pick() if b.chance(0.3) else x
            _conv(b, source, b.shapes[x][1])
    found = [n for n, s in b.shapes.items() if s == b.shapes[x]]
    chosen = [str(n) for n in b.random.permutation(found[-6:])]
    return chosen[: b.integer(2, 4)]


def _sum(b: _Builder) -> None:
    terms = _alike(b)
    total = terms[0]
    shape = b.shapes[total]
    for term in terms[1:]:
        total = b.write("Sub" if b.chance(0.2) else "Add", f"{total} {term}", shape)
    if len(terms) > 2 and b.chance(0.3):
        b.write("Sum", " ".join(terms), shape)


def _concat(b: _Builder) -> None:
    terms = _alike(b)
    n, c, *size = b.shapes[terms[0]]
    b.write("Concat", " ".join(terms), (n, c * len(terms), *size), axis=1)


def _pool(b: _Builder) -> None:
    x = b.pick()
    n, c, h, w = b.shapes[x]
    kernel, stride, pad = b.integer(1, 3), b.integer(1, 2), b.integer(0, 1)
    pad = min(pad, kernel - 1)
    sizes = [(s + 2 * pad - kernel) // stride + 1 for s in (h, w)]
    if min(sizes) < 2:
        return
    how = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
    counted = int(b.chance(0.7))
    b.write("AveragePool", x, (n, c, *sizes), count_include_pad=counted, **how)


def _pad(b: _Builder) -> None:
    x = b.pick()
    n, c, h, w = b.shapes[x]
    low = -1 if min(h, w) > 5 else 0
    widths = [b.integer(low, 2) for _ in range(4)]
    top, left, bottom, right = widths
    pads = b.ints(0, 0, top, left, 0, 0, bottom, right)
    value = f" {b.constant()}" * b.chance(0.2)
    b.write("Pad", f"{x} {pads}{value}", (n, c, h + top + bottom, w + left + right))


def _crop(b: _Builder) -> None:
    x = b.pick()
    n, c, h, w = b.shapes[x]
    if min(h, w) < 5:
        return
    begin, end, step = b.integer(0, 1), b.integer(0, 1), b.integer(1, 2) if b.chance(0.2) else 1
    last = -end if end else 2**31 - 1
    bounds = f"{b.ints(begin, begin)} {b.ints(last, last)} {b.ints(2, 3)} {b.ints(step, step)}"
    sizes = [len(range(s)[begin : s - end : step]) for s in (h, w)]
    b.write("Slice", f"{x} {bounds}", (n, c, *sizes))


def _transposed(b: _Builder) -> None:
    x = b.pick()
    n, c, h, w = b.shapes[x]
    if max(h, w) > 12:
        return
    kernel, stride, outputs = b.integer(1, 3), b.integer(1, 2), b.integer(1, 4)
    pad = b.integer(0, (kernel - 1) // 2)
    weights = f"{x} {b.constant(c, outputs, kernel, kernel)}"
    sizes = [(s - 1) * stride + kernel - 2 * pad for s in (h, w)]
    how = {"strides": [stride] * 2, "pads": [pad] * 4}
    b.write("ConvTranspose", weights, (n, outputs, *sizes), **how)


def _rectify(b: _Builder) -> None:
    x = b.pick()
    b.write("Relu", x, b.shapes[x])


_STEPS: list[tuple[Callable[[_Builder], object], float]] = [
    (_conv, 6), (_norm, 3), (_scale, 2), (_sum, 4), (_concat, 1), (_pool, 1), (_pad, 1), (_crop, 1),
    (_transposed, 0.5), (_rectify, 0.5),
]  # fmt: skip


def random_linear_model(seed: int, steps: int = 14, open_sizes: bool = False) -> onnx.ModelProto:
    """``open_sizes``: batch, height and width of the input are not given."""
    b = _Builder(seed)
    weights = np.array([w for _, w in _STEPS])
    while len(b.nodes) < steps:
        step = _STEPS[int(b.random.choice(len(_STEPS), p=weights / weights.sum()))][0]
        step(b)
    read = {name for n in b.nodes for name in n.input}
    outputs = [n for n in b.shapes if n not in read or (n != "x" and b.chance(0.05))]
    n, c, h, w = b.shapes["x"]
    shape = ("n", c, "h", "w") if open_sizes else (n, c, h, w)
    return model(
        b.nodes,
        {"x": ("float64", shape)},
        dict.fromkeys(outputs, ("float64", None)),
        b.constants,
    )


def example(seed: int) -> Array:
    """An input of the sizes that the model is meant for."""
    b = _Builder(seed)
    return np.random.default_rng([seed, 5]).standard_normal(b.shapes["x"])
