"""Small cases of every kernel family, for the self-test: names, inputs and attributes of nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vkconv.ir import Array, Graph, Node, TensorType, Value, constant
from vkconv.ops.activation_codes import Activation
from vkconv.ops.binary_codes import Binary
from vkconv.ops.broadcasting import Walk
from vkconv.ops.parts import Part, Step
from vkconv.ops.registry import NEWEST_OPSET

__all__ = ["FAMILIES", "Case", "family_graph"]


@dataclass(frozen=True, eq=False)
class Case:
    """One node: ``fed`` inputs first, then ``constants`` (None: omitted); ``then``: nodes behind
    it, each of which takes the first output of the one before as its first input."""

    op_type: str
    fed: tuple[Array, ...]
    constants: tuple[Array | None, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: int = 1
    domain: str = ""
    then: tuple[Case, ...] = ()


def _floats(*shape: int) -> Array:
    random = np.random.default_rng([7, *shape])
    return random.uniform(-2.0, 2.0, shape).astype(np.float32)


def _ints(*shape: int, low: int = 0, high: int = 5, dtype: str = "int64") -> Array:
    random = np.random.default_rng([8, *shape])
    return random.integers(low, high, shape).astype(dtype)


def _case(
    op_type: str, *fed: Array, constants: Any = (), outputs: int = 1, **attributes: Any
) -> Case:
    domain, then = attributes.pop("domain", ""), attributes.pop("then", ())
    return Case(op_type, fed, tuple(constants), attributes, outputs, domain, then)


def _i64(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def _f32(*numbers: float) -> Array:
    return np.array(numbers, np.float32)


_f, _i = _floats, _ints
_ONE = np.float32(0.02)
_ZERO_POINT = np.uint8(100)
_IMAGE = _i(1, 9, 8, 3, high=256, dtype="uint8")
_TABLE = np.array([[0.1] * 3, [-1.0] * 3, [2, 1, 0]], np.float32)
_BOXES = np.concatenate([_i(1, 24, 2, high=20), _i(1, 24, 2, low=20, high=40)], 2).astype(
    np.float32
)
_ROIS = np.array([[1, 1, 6, 7], [0, 2, 5, 5]], np.float32)
#: the first half of 24 elements through a sigmoid and transposed, the second doubled
_PARTS = (
    Part((0,), Walk((3, 4), ((4, 1), (1, 3))), (0, 0), (Step(Activation.SIGMOID),)),
    Part((0,), Walk((12,), ((1,), (1,))), (12, 12), (Step(Binary.MUL, numbers=(2.0,)),)),
)


def _bytes(*shape: int) -> Array:
    return _i(*shape, high=255, dtype="uint8")


#: what the self-test runs, by the family's name
FAMILIES: dict[str, tuple[Case, ...]] = {
    "convolution": (
        _case("Conv", _f(1, 3, 17, 19), constants=[_f(8, 3, 3, 3), _f(8)], pads=(1, 1, 1, 1)),
        _case("Conv", _f(1, 16, 13, 13), constants=[_f(16, 16, 1, 1)]),
        _case("Conv", _f(1, 32, 24, 24), constants=[_f(32, 32, 3, 3)], pads=(1, 1, 1, 1)),
        _case("Conv", _f(1, 64, 32, 33), constants=[_f(64, 64, 3, 3)], pads=(1, 1, 1, 1)),
        _case(
            "Conv", _f(1, 8, 6, 7), constants=[_f(12, 8, 1, 1), None, None, _f(1, 8, 1, 1)],
            domain="vkconv",
        ),
        _case("Conv", _f(1, 8, 15, 14), constants=[_f(8, 1, 3, 3)], group=8, pads=(1, 1, 1, 1)),
        _case("Conv", _f(1, 8, 15, 14), constants=[_f(8, 1, 5, 5)], group=8, strides=(2, 2)),
        _case("Conv", _f(1, 6, 9, 9), constants=[_f(8, 3, 3, 3)], group=2),
        _case("Conv", _f(1, 3, 5, 6, 7), constants=[_f(4, 3, 3, 3, 3)]),
        _case("Conv", _f(1, 5, 9, 8), _f(7, 5, 3, 3)),
        _case("ConvTranspose", _f(1, 8, 7, 7), constants=[_f(8, 4, 3, 3)], strides=(2, 2)),
        _case("ConvTranspose", _f(1, 4, 40, 40), constants=[_f(4, 24, 2, 2)], strides=(2, 2)),
    ),
    "deformable convolution": (
        _case("DeformConv", _f(1, 8, 9, 9), constants=[_f(8, 8, 3, 3), _f(1, 18, 7, 7)]),
        _case(
            "DeformConv", _f(1, 8, 9, 9), constants=[_f(8, 2, 3, 3), _f(1, 18, 7, 7)], group=4
        ),
        _case("DeformConv", _f(1, 4, 9, 9), constants=[_f(196, 4, 3, 3), _f(1, 18, 7, 7)]),
    ),
    "matrix products": (
        _case("MatMul", _f(3, 17, 24), _f(3, 24, 20)),
        _case("MatMul", _f(64, 64), constants=[_f(64, 96)]),
        _case("Gemm", _f(9, 31), constants=[_f(13, 31), _f(13)], transB=1, alpha=0.5),
    ),
    "pooling": (
        _case("MaxPool", _f(1, 5, 15, 13), kernel_shape=(3, 3), strides=(2, 2)),
        _case("MaxPool", _f(1, 8, 16, 16), kernel_shape=(5, 5), pads=(2, 2, 2, 2)),
        _case("MaxPool", _f(1, 8, 16, 16), kernel_shape=(9, 9), pads=(4, 4, 4, 4)),
        _case("MaxPool", _f(1, 4, 8, 8), outputs=2, kernel_shape=(2, 2), strides=(2, 2)),
        _case("AveragePool", _f(1, 5, 15, 13), kernel_shape=(3, 3), pads=(1, 1, 1, 1)),
        _case("GlobalAveragePool", _f(1, 7, 11, 9)),
        _case("LpPool", _f(1, 5, 9, 9), kernel_shape=(2, 2)),
        _case(
            "MaxUnpool", _f(1, 1, 2, 2), constants=[_i64(0, 3, 9, 14).reshape(1, 1, 2, 2)],
            kernel_shape=(2, 2), strides=(2, 2),
        ),
    ),
    "resizing": (
        _case("Resize", _f(1, 8, 7, 9), constants=[None, _f32(1, 1, 2, 2)]),
        _case(
            "Resize", _f(1, 8, 7, 9), constants=[None, _f32(1, 1, 1.5, 1.7)], mode="linear"
        ),
    ),
    "element-wise": (
        _case("Add", _f(2, 5, 7), _f(5, 1)),
        _case("Pow", np.abs(_f(3, 9)) + 0.1, _f(3, 9)),
        _case("Sigmoid", _f(4, 33)),
        _case("Erf", _f(1, 6, 5, 4)),
        _case("Sin", _f(3, 17) * 8),
        _case("Greater", _f(5, 9), _f(5, 9)),
        _case("Where", _f(5, 9) > 0, _f(5, 9), _f(1, 9)),
        _case("BitwiseAnd", _i(3, 9, dtype="int32"), _i(9, dtype="int32")),
        _case("Abs", _i(3, 9, low=-5, dtype="int32")),
        _case("Mod", _f(5, 9), _f(1, 9) + 3, fmod=1),
        _case("IsNaN", _f(5, 9)),
        _case("Cast", _f(5, 9) * 9, to=6),
    ),
    "reductions": (
        _case("ReduceSum", _f(3, 40, 5), constants=[_i64(1)]),
        _case("ReduceMax", _f(3, 4, 65), constants=[_i64(2)]),
        _case("ArgMax", _f(7, 19), axis=1),
        _case("CumSum", _f(3, 21), constants=[np.int64(1)]),
    ),
    "normalisation": (
        _case("Softmax", _f(5, 65)),
        _case("Softmax", _f(2, 12, 5, 5), axis=1),
        _case("LayerNormalization", _f(6, 32), constants=[_f(32), _f(32)]),
        _case("LayerNormalization", _f(6, 32), constants=[_f(32), _f(32)], outputs=3),
        _case("InstanceNormalization", _f(1, 6, 9, 7), constants=[_f(6), _f(6)]),
        _case("Conv", _f(1, 8, 9, 7), constants=[_f(8, 8, 1, 1)], then=(
            _case("GroupNormalization", constants=[_f(8), _f(8)], num_groups=2),
        )),
        _case("GroupNormalization", _f(1, 8, 9, 7), constants=[_f(8), _f(8)], num_groups=2),
        _case(
            "BatchNormalization", _f(2, 6, 5), constants=[_f(6), _f(6), _f(6), np.abs(_f(6)) + 0.5]
        ),
        _case("LRN", _f(1, 8, 5, 5), size=3),
    ),
    "attention": (
        _case("Attention", _f(1, 2, 9, 8), _f(1, 2, 11, 8), _f(1, 2, 11, 8)),
        _case("RotaryEmbedding", _f(1, 2, 5, 8), constants=[_f(5, 4), _f(5, 4), _i(1, 5)]),
    ),
    "copies and layouts": (
        _case("Transpose", _f(3, 5, 7), perm=(2, 0, 1)),
        _case("Concat", _f(1, 3, 5, 5), _f(1, 5, 5, 5), axis=1),
        _case("Conv", _f(1, 3, 5, 5), constants=[_f(9, 3, 1, 1)], then=(
            _case("Slice", constants=[_i64(2), _i64(7), _i64(1)]),
            _case("Conv", constants=[_f(4, 5, 1, 1)]),
        )),
        _case(
            "PermuteChannels", _f(1, 8, 5, 7), channels=(5, 0, 3, 6, 1, 7, 2, 4), domain="vkconv"
        ),
        _case("Assemble", _f(6, 4), shape=(4, 6), parts=_PARTS, domain="vkconv"),
        _case("Slice", _f(7, 9), constants=[_i64(1), _i64(6), _i64(0), _i64(2)]),
        _case("Pad", _f(3, 5), constants=[_i64(1, 2, 0, 1)], mode="reflect"),
        _case("DepthToSpace", _f(1, 8, 4, 5), blocksize=2),
        _case("Expand", _f(3, 1), constants=[_i64(2, 3, 4)]),
        _case("ReverseSequence", _f(4, 5, 3), constants=[_i64(4, 2, 1, 3, 4)]),
        _case("Trilu", _f(6, 7)),
        _case("OneHot", _i(7), constants=[np.int64(5), _f32(0, 1)]),
    ),
    "gathering and scattering": (
        _case("Gather", _f(9, 4), _i(3, 2)),
        _case("GatherElements", _f(5, 6), _i(5, 3)),
        _case("GatherND", _f(5, 6, 2), _i(4, 2)),
        _case("ScatterElements", _f(5, 6), _i(5, 3), _f(5, 3), axis=1, reduction="add"),
        _case("ScatterND", _f(6, 3), _i64(4, 1, 5).reshape(3, 1), _f(3, 3)),
        _case("TensorScatter", _f(2, 5, 3), _f(2, 2, 3), constants=[_i64(1, 3)], axis=1),
    ),
    "sorting and choosing": (
        _case("TopK", _f(3, 50), constants=[_i64(5)], outputs=2),
        _case("TopK", _f(600, 9), constants=[_i64(3)], outputs=2),
        _case("TopK", _f(2, 3000), constants=[_i64(900)], outputs=2),
        _case("NonZero", _i(5, 6, high=2, dtype="int32")),
        _case(
            "NonMaxSuppression", _BOXES, np.abs(_f(1, 2, 24)),
            constants=[_i64(6), _f32(0.4), _f32(0.1)],
        ),
    ),
    "sampling": (
        _case("GridSample", _f(1, 5, 7, 9), _f(1, 6, 5, 2) * 0.6),
        _case("AffineGrid", _f(2, 2, 3), constants=[_i64(2, 3, 4, 5)]),
        _case("RoiAlign", _f(1, 5, 9, 9), constants=[_ROIS, _i64(0, 0)], output_height=3,
              output_width=3, sampling_ratio=2),
        _case("MaxRoiPool", _f(1, 5, 9, 9),
              constants=[np.concatenate([np.zeros((2, 1), np.float32), _ROIS], 1)],
              pooled_shape=(2, 2)),
        _case("Col2Im", _f(1, 8, 12), constants=[_i64(4, 5), _i64(2, 2)]),
    ),
    "quantised": (
        _case("QuantizeLinear", _f(3, 9), constants=[_ONE, _ZERO_POINT]),
        _case("DequantizeLinear", _bytes(3, 9), constants=[_ONE, _ZERO_POINT]),
        _case("DynamicQuantizeLinear", _f(5, 9), outputs=3),
        _case("QLinearConv", _bytes(1, 4, 7, 7), constants=[
            _ONE, _ZERO_POINT, _bytes(6, 4, 3, 3), _ONE, _ZERO_POINT, np.float32(0.1), _ZERO_POINT,
        ]),
        _case("QLinearMatMul", _bytes(5, 9), np.abs(_f(5)) / 50, constants=[
            np.full(5, 100, np.uint8), _bytes(9, 7), _ONE, _ZERO_POINT, _ONE * 5, _ZERO_POINT,
        ]),
        _case("MatMulInteger", _bytes(5, 9), constants=[_bytes(9, 7), _ZERO_POINT]),
    ),
    "images": (
        _case(
            "ImageToTensor", _IMAGE.reshape(-1).view(np.int32), _TABLE,
            shape=(1, 3, 9, 8), domain="vkconv",
        ),
    ),
}  # fmt: skip


def family_graph(name: str) -> tuple[Graph, dict[str, Array]]:
    """A graph of the family's cases side by side, and what it is fed with."""
    feeds: dict[str, Array] = {}
    graph = Graph(name, [], [], [], {"": NEWEST_OPSET})
    for first in FAMILIES[name]:
        made: list[Value] = []
        for case in (first, *first.then):
            made = _add_node(graph, case, made[:1], feeds)
        graph.outputs += made
    graph.output_names = [value.name for value in graph.outputs]
    graph.source_nodes = [(node.name, node.op_type) for node in graph.nodes]
    return graph, feeds


def _add_node(
    graph: Graph, case: Case, before: list[Value], feeds: dict[str, Array]
) -> list[Value]:
    """The outputs of a node for ``case``, the first of whose inputs are those ``before``."""
    number = len(graph.nodes)
    inputs: list[Value | None] = [*before]
    for position, array in enumerate(case.fed):
        value = Value(f"x{number}_{position}", TensorType(array.dtype.name, array.shape))
        feeds[value.name] = array
        graph.inputs.append(value)
        inputs.append(value)
    for position, given in enumerate(case.constants):
        made = None if given is None else constant(f"c{number}_{position}", np.asarray(given))
        inputs.append(made)
    outputs = [Value(f"y{number}_{i}") for i in range(case.outputs)]
    opset = 1 if case.domain else NEWEST_OPSET
    label = f"{case.op_type}_{number}"
    attributes = dict(case.attributes)
    graph.nodes.append(Node(case.op_type, inputs, outputs, attributes, label, case.domain, opset))
    return outputs
