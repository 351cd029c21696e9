"""BatchNormalization behind a convolution becomes part of its weights.

    y = gamma * (W x + b - mean) / sqrt(var + eps) + beta
      = W' x + b'   with   s = gamma / sqrt(var + eps),   W' = s W (per output channel),   b' = s (b - mean) + beta

Exact for Conv and ConvTranspose whatever their padding, since the normalisation comes after the border was made. The
other order (normalise, then convolve with padding) is not rewritten: the padding's zeros are not normalised.
"""

from __future__ import annotations

import numpy as np

from vkconv.ir import Graph, Node, Value, constant
from vkconv.ops.base import create
from vkconv.passes.patterns import single_user


def fuse_batch_normalization(graph: Graph) -> None:
    uses = graph.uses()
    for node in list(graph.nodes):
        if node.op_type not in ("Conv", "ConvTranspose") or node.domain:
            continue
        norm = single_user(graph, node.outputs[0], uses)
        if (
            norm is None
            or norm.op_type != "BatchNormalization"
            or norm.inputs[0] is not node.outputs[0]
        ):
            continue
        if _fuse(node, norm):
            graph.remove([norm])


def _fuse(conv: Node, norm: Node) -> bool:
    weight = conv.inputs[1]
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    parameters = [v.array if v is not None else None for v in norm.inputs[1:5]]
    if weight is None or weight.array is None or (bias is not None and bias.array is None):
        return False
    if (
        len(norm.outputs) > 1
        or norm.attributes.get("training_mode")
        or any(p is None for p in parameters)
    ):
        return False
    gamma, beta, mean, variance = (np.asarray(p, np.float64) for p in parameters)
    scale = gamma / np.sqrt(variance + float(create(norm).epsilon))  # type: ignore[attr-defined]
    old = np.zeros_like(mean) if bias is None else np.asarray(bias.array, np.float64)
    groups = int(conv.attributes.get("group", 1))
    conv.inputs = [
        conv.inputs[0],
        _scaled(weight, scale, groups, transposed=conv.op_type == "ConvTranspose"),
        constant(f"{conv.name}/bias", (scale * (old - mean) + beta).astype(weight.array.dtype)),
    ]
    conv.fused += [norm.name, *norm.fused]
    conv.outputs = norm.outputs
    conv.outputs[0].producer = conv
    return True


def _scaled(weight: Value, scale: np.ndarray, groups: int, *, transposed: bool) -> Value:
    """Weights times a factor per output channel: axis 0 of Conv's, axis 1 within each group of ConvTranspose's."""
    array = np.asarray(weight.array)
    if transposed:
        grouped = array.reshape(groups, -1, *array.shape[1:]).astype(np.float64)
        factor = scale.reshape(groups, 1, -1, *[1] * (array.ndim - 2))
        product = (grouped * factor).reshape(array.shape)
    else:
        product = array.astype(np.float64) * scale.reshape(-1, *[1] * (array.ndim - 1))
    return constant(f"{weight.name}/scaled", product.astype(array.dtype))
