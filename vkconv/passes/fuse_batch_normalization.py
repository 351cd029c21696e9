"""BatchNormalization behind a convolution becomes part of its weights.

    y = gamma * (W x + b - mean) / sqrt(var + eps) + beta
      = W' x + b'
    s = gamma / sqrt(var + eps),  W' = s W (per output channel),  b' = s (b - mean) + beta

Exact for Conv and ConvTranspose whatever their padding, since the normalisation comes after the
border was made. The other order (normalise, then convolve with padding) is not rewritten: the
padding's zeros are not normalised.
"""

from __future__ import annotations

import numpy as np

from vkconv.ir import Array, Graph, Node, constant
from vkconv.ops.base import create
from vkconv.passes.patterns import single_user


def fuse_batch_normalization(graph: Graph) -> None:
    uses = graph.uses()
    for node in list(graph.nodes):
        if node.op_type not in ("Conv", "ConvTranspose") or node.domain:
            continue
        while True:
            norm = single_user(graph, node.outputs[0], uses)
            if norm is None or norm.op_type != "BatchNormalization" or norm.domain:
                break
            if norm.inputs[0] is not node.outputs[0] or not _fuse(node, norm):
                break
            graph.remove([norm])


def _fuse(conv: Node, norm: Node) -> bool:
    scale_and_shift = _scale_and_shift(norm)
    weight = conv.inputs[1]
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    if scale_and_shift is None or weight is None or weight.array is None:
        return False
    if bias is not None and bias.array is None:
        return False
    scale, shift = scale_and_shift
    groups = int(conv.attributes.get("group", 1))
    transposed = conv.op_type == "ConvTranspose"
    weights = _scaled(weight.array, scale, groups if transposed else 0)
    if weights is None:
        return False
    offset = shift if bias is None else scale * np.asarray(bias.array, np.float64) + shift
    with np.errstate(all="ignore"):
        offset = offset.astype(weights.dtype)
    if not (np.isfinite(weights).all() and np.isfinite(offset).all()):
        return False
    conv.inputs = [
        conv.inputs[0],
        constant(f"{weight.name}/scaled", weights),
        constant(f"{conv.name}/bias", offset),
    ]
    conv.fused += [norm.name, *norm.fused]
    conv.outputs = norm.outputs
    conv.outputs[0].producer = conv
    return True


def _scale_and_shift(norm: Node) -> tuple[Array, Array] | None:
    """BN as y = scale x + shift, per channel; None unless it is the inference form of constants."""
    if len(norm.outputs) > 1 or norm.attributes.get("training_mode"):
        return None
    # before version 9 each element could have statistics of its own
    if norm.attributes.get("spatial", 1) != 1:
        return None
    arrays = [None if v is None else v.array for v in norm.inputs[1:5]]
    known = [a.astype(np.float64) for a in arrays if a is not None and a.ndim == 1]
    if len(known) != 4 or len({a.size for a in known}) != 1:
        return None
    gamma, beta, mean, variance = known
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + float(create(norm).epsilon))  # type: ignore[attr-defined]
        return scale, beta - scale * mean


def _scaled(weight: Array, scale: Array, groups: int) -> Array | None:
    """Weights times a factor per output channel; None when their numbers disagree.

    The output channels are axis 0 of Conv's weights (``groups`` 0), and axis 1 within each of the
    groups of ConvTranspose's.
    """
    rest = [1] * (weight.ndim - 2)
    if weight.ndim < 3 or scale.size != (weight.shape[1] * groups if groups else weight.shape[0]):
        return None
    wide = weight.astype(np.float64)
    with np.errstate(all="ignore"):
        if not groups:
            return np.asarray((wide * scale.reshape(-1, 1, *rest)).astype(weight.dtype))
        if weight.shape[0] % groups:
            return None
        grouped = wide.reshape(groups, -1, *weight.shape[1:])
        product = grouped * scale.reshape(groups, 1, -1, *rest)
        return np.asarray(product.reshape(weight.shape).astype(weight.dtype))
