"""A multiplication or addition per channel becomes part of the weights before it.

    s (W x + b) + t  =  (s W) x + (s b + t)

where s and t are constants, one number or one per output channel: Mul, Div, Add, Sub, and
BatchNormalization in its inference form. Behind Conv, Gemm and, where the bias has a place, MatMul
(a matrix of constants; it becomes Gemm).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vkconv.ir import Array, Graph, Node, Value, constant
from vkconv.ops.base import create
from vkconv.ops.batch_normalization import BatchNormalization
from vkconv.passes.patterns import single_user

#: opset of the Gemm that a MatMul becomes
_GEMM_OPSET = 13


def fuse_affine(graph: Graph) -> None:
    uses = graph.uses()
    for node in list(graph.nodes):
        while True:
            product = _product(node)
            reader = single_user(graph, node.outputs[0], uses) if product is not None else None
            if product is None or reader is None or not _absorb(node, product, reader):
                break
            graph.remove([reader])


@dataclass(frozen=True)
class _Product:
    """Constant weights with the axis of their output channels, the bias, and the channels' axis in
    the result."""

    weights: Array
    axis: int
    bias: Array | None
    channel_axis: int
    rank: int

    @property
    def channels(self) -> int:
        return int(self.weights.shape[self.axis])


def _product(node: Node) -> _Product | None:
    """What the node multiplies by, when all of that is constant."""
    if node.domain or node.op_type not in ("Conv", "Gemm", "MatMul"):
        return None
    weights = node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if weights is None or weights.array is None or (bias is not None and bias.array is None):
        return None
    array = weights.array
    offset = None if bias is None else bias.array
    if array.dtype.kind != "f":
        return None
    # without the types of concrete shapes, so that it happens once for all sizes of a model
    if node.op_type == "Conv":
        return _Product(array, 0, offset, 1, array.ndim)
    if array.ndim != 2:
        return None
    if node.op_type == "MatMul":
        type_ = node.outputs[0].type
        if type_ is None or type_.shape is None:
            return None
        rank = len(type_.shape)
        return _Product(array, 1, None, rank - 1, rank)
    axis = 0 if node.attributes.get("transB", 0) else 1
    if any(node.attributes.get(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return None
    # one number, or one row of them for all
    if offset is not None and offset.size != 1 and offset.size != offset.shape[-1]:
        return None
    return _Product(array, axis, offset, 1, 2)


def _absorb(node: Node, product: _Product, reader: Node) -> bool:
    affine = _affine(node.outputs[0], product, reader)
    if affine is None:
        return False
    scale, shift = affine
    shifts = bool(shift.any())
    if shifts and node.op_type == "MatMul" and product.rank != 2:
        return False
    shape = [1] * product.weights.ndim
    shape[product.axis] = -1
    dtype = product.weights.dtype
    with np.errstate(all="ignore"):
        weights = (product.weights.astype(np.float64) * scale.reshape(shape)).astype(dtype)
        bias = np.zeros(1) if product.bias is None else product.bias.astype(np.float64).reshape(-1)
        offset = np.broadcast_to(bias * scale + shift, (product.channels,)).astype(dtype)
    if not (np.isfinite(weights).all() and np.isfinite(offset).all()):
        return False
    old = node.inputs[1]
    assert old is not None
    inputs: list[Value | None] = [node.inputs[0], constant(f"{old.name}/scaled", weights)]
    if shifts or product.bias is not None:
        inputs.append(constant(f"{node.name}/bias", offset))
        if node.op_type == "MatMul":
            node.op_type, node.opset = "Gemm", _GEMM_OPSET
    node.inputs = inputs
    node.fused += [reader.name, *reader.fused]
    node.outputs = reader.outputs
    node.outputs[0].producer = node
    return True


def _affine(x: Value, product: _Product, reader: Node) -> tuple[Array, Array] | None:
    """Scale and shift per channel (float64) that ``reader`` applies to x; None when it does
    something else."""
    if reader.domain or reader.outputs[0].type != x.type or len(reader.outputs) != 1:
        return None
    if reader.op_type == "BatchNormalization":
        return _normalisation(x, product, reader)
    if reader.op_type not in ("Mul", "Div", "Add", "Sub") or len(reader.inputs) != 2:
        return None
    first = reader.inputs[0] is x
    other = reader.inputs[1] if first else reader.inputs[0]
    if other is None or other.array is None or other is x:
        return None
    number = _per_channel(other.array, product)
    if number is None:
        return None
    one, zero = np.ones(product.channels), np.zeros(product.channels)
    if reader.op_type == "Mul":
        return number, zero
    if reader.op_type == "Add":
        return one, number
    if reader.op_type == "Sub":
        return (one, -number) if first else (-one, number)
    if not first or not number.all():
        return None
    return 1 / number, zero


def _per_channel(array: Array, product: _Product) -> Array | None:
    """The constant as one number per channel; None when it varies along anything else."""
    if array.ndim > product.rank or array.dtype.kind != "f":
        return None
    shape = [1] * (product.rank - array.ndim) + list(array.shape)
    if (
        shape[product.channel_axis] not in (1, product.channels)
        or array.size != shape[product.channel_axis]
    ):
        return None
    return np.broadcast_to(array.reshape(-1).astype(np.float64), (product.channels,))


def _normalisation(x: Value, product: _Product, norm: Node) -> tuple[Array, Array] | None:
    """BatchNormalization's factor and offset, where its channels are those of the product."""
    op = create(norm)
    assert isinstance(op, BatchNormalization)
    arrays = [v.array for v in norm.present_inputs[1:5] if v.array is not None]
    if norm.inputs[0] is not x or product.channel_axis != 1 or len(arrays) != 4:
        return None
    if op.training_mode or op.spatial != 1 or any(a.shape != (product.channels,) for a in arrays):
        return None
    with np.errstate(all="ignore"):
        return op.affine(*arrays)
