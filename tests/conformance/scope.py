"""Which of ONNX's tests count: those whose operators and element types a detector's model has."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto

#: operators of ONNX's own domain that vkconv means to run
# fmt: off
OPERATORS = frozenset({
    "Abs", "Acos", "Acosh", "Add", "AffineGrid", "And", "ArgMax", "ArgMin", "Asin", "Asinh",
    "Atan", "Atanh", "Attention", "AveragePool", "BatchNormalization", "BitShift", "BitwiseAnd",
    "BitwiseNot", "BitwiseOr", "BitwiseXor", "BlackmanWindow", "Cast", "CastLike",
    "CausalConvWithState", "Ceil", "Celu", "CenterCropPad", "Clip", "Col2Im", "Compress",
    "Concat", "ConcatFromSequence", "Constant", "ConstantOfShape", "Conv", "ConvInteger",
    "ConvTranspose", "Cos", "Cosh", "CumSum", "DeformConv", "DepthToSpace", "DequantizeLinear",
    "Div", "Dropout", "DynamicQuantizeLinear", "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand",
    "EyeLike", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm",
    "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "Greater", "GreaterOrEqual",
    "GridSample", "GroupNormalization", "HammingWindow", "HannWindow", "HardSigmoid",
    "HardSwish", "Hardmax", "Identity", "If", "InstanceNormalization", "IsInf", "IsNaN", "LRN",
    "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "LinearAttention", "Log",
    "LogSoftmax", "Loop", "LpNormalization", "LpPool", "MatMul", "MatMulInteger", "Max",
    "MaxPool", "MaxUnpool", "Mean", "MeanVarianceNormalization", "Min", "Mish", "Mod", "Mul",
    "Neg", "NegativeLogLikelihoodLoss", "NonMaxSuppression", "NonZero", "Not", "OneHot", "Or",
    "PRelu", "Pad", "Pow", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "RMSNormalization",
    "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp",
    "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
    "Relu", "Reshape", "Resize", "ReverseSequence", "RoiAlign", "RotaryEmbedding", "Round",
    "Scan", "Scatter", "ScatterElements", "ScatterND", "Selu", "SequenceAt",
    "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength",
    "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Slice", "Softmax",
    "SoftmaxCrossEntropyLoss", "Softplus", "Softsign", "SpaceToDepth", "Split",
    "SplitToSequence", "Sqrt", "Squeeze", "Sub", "Sum", "SwiGLU", "Swish", "Tan", "Tanh",
    "ThresholdedRelu", "Tile", "TopK", "Transpose", "Trilu", "Unique", "Unsqueeze", "Upsample",
    "Where", "Xor",
})
# fmt: on
ELEMENT_TYPES = frozenset(
    {
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.INT8,
        TensorProto.UINT8,
        TensorProto.INT32,
        TensorProto.INT64,
        TensorProto.BOOL,
    }
)


def in_scope(model: ModelProto) -> bool:
    """Whether all operators of the model, and all element types it names, are meant to be run."""
    return operators(model) <= OPERATORS and set(_types(model.graph)) <= ELEMENT_TYPES


def operators(model: ModelProto) -> set[str]:
    """The operators in it, with their domain where that is not ONNX's own."""
    domains = {"": "", "ai.onnx": ""}
    return {domains.get(n.domain, f"{n.domain}.") + n.op_type for n in _nodes(model.graph)}


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for item in node.attribute:
            if item.type == AttributeProto.GRAPH:
                yield from _nodes(item.g)


def _types(graph: GraphProto) -> Iterator[int]:
    for info in (*graph.input, *graph.output):
        yield from _element_type(info.type)
    for tensor in graph.initializer:
        yield tensor.data_type
    for node in _nodes(graph):
        for item in node.attribute:
            if item.type == AttributeProto.TENSOR:
                yield item.t.data_type
            if node.op_type in ("Cast", "EyeLike", "QuantizeLinear") and item.name in _TYPES:
                yield from [item.i] if item.i else []


#: attributes that name an element type
_TYPES = ("to", "dtype", "output_dtype")


def _element_type(type_: TypeProto) -> Iterator[int]:
    """Of a tensor; a sequence or an optional is of no type that counts."""
    kind = type_.WhichOneof("value")
    yield type_.tensor_type.elem_type if kind == "tensor_type" else TensorProto.UNDEFINED
